"""The object store of a site: what is asked of it, and how it is made fit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from videostore.app.host import host_time
from videostore.app.parts import Parts, bucket_of, s3_adapter
from videostore.config.settings import S3StoreSettings
from videostore.domain.errors import ConfigInvalid
from videostore.domain.retention import Kind
from videostore.durable import write_file

if TYPE_CHECKING:
    from videostore.store.lifecycle import Rule
    from videostore.store.qualify import Finding
    from videostore.store.rights import Role
    from videostore.store.walls import Drift

Identities = Literal["none", "iam", "files"]


def qualify_store(parts: Parts, admin: str) -> Iterator[Finding]:
    """Ask the store what our promises need of it, as an administrator; then for the rights of each role."""
    from videostore.store.qualify import qualify, qualify_roles

    settings = _settings(parts)
    bucket = bucket_of(parts.site, settings, admin or settings.credentials)
    yield from qualify(bucket, s3_adapter(settings), _rules(parts), now=host_time())
    own = {role: bucket_of(parts.site, settings, named) for role, named in settings.roles.items()}
    yield from qualify_roles(bucket, own)


def provision_store(parts: Parts, admin: str, identities: Identities) -> Iterator[tuple[str, str]]:
    """Make bucket, settings and identities. Yields each thing and what became of it."""
    from videostore.store.provision import make_identities, set_up

    settings = _settings(parts)
    bucket = bucket_of(parts.site, settings, admin or settings.credentials)
    yield from set_up(bucket, _rules(parts))
    if identities == "iam":
        for role, key in make_identities(bucket, known=_keys(parts)):
            yield f"identity of {role}", _keep(parts, role, key)
    elif identities == "files":
        yield from _write_identities(parts, bucket.name)


def store_drift(parts: Parts, *, objects: bool) -> list[Drift]:
    """Return what about the bucket is not as it must be."""
    _settings(parts)
    return list(parts.walls.drift(now=host_time(), objects=objects)) if parts.walls else []


def _settings(parts: Parts) -> S3StoreSettings:
    settings = parts.site.settings.store
    if not isinstance(settings, S3StoreSettings):
        raise ConfigInvalid(
            "this site keeps its segments in a directory",
            hint="`videostore check` looks after a directory. For S3, set store.kind to s3 or minio.",
        )
    return settings


def _rules(parts: Parts) -> list[Rule]:
    from videostore.store.lifecycle import rules

    policies = parts.policies()
    return rules(policies[Kind.VIDEO], policies[Kind.ENTRY_EXIT], today=host_time().date())


def _keys(parts: Parts) -> Mapping[Role, tuple[str, str]]:
    """Return the keys of the roles that have some in ``secrets/``."""
    from videostore.store.rights import ROLES

    found: dict[Role, tuple[str, str]] = {}
    for role in ROLES:
        path = parts.site.root / _secret(role)
        if path.exists():
            access, _, secret = path.read_text(encoding="utf-8").strip().partition(":")
            found[role] = access, secret
    return found


def _keep(parts: Parts, role: Role, key: tuple[str, str]) -> str:
    write_file(parts.site.root / _secret(role), f"{':'.join(key)}\n".encode(), mode=0o600)
    return f"store: {{roles: {{{role}: file:{_secret(role)}}}}}"


def _secret(role: Role) -> str:
    return f"secrets/store-{role}"


def _write_identities(parts: Parts, bucket: str) -> Iterator[tuple[str, str]]:
    from videostore.store.provision import new_keys
    from videostore.store.rights import ROLES, policy, seaweedfs

    keys = dict(_keys(parts))
    for role in ROLES:
        if role not in keys:
            keys[role] = new_keys()
            yield f"identity of {role}", _keep(parts, role, keys[role])
        _write(parts, f"store-policies/{role}.json", policy(role, bucket))
    _write(parts, "secrets/store-seaweedfs.json", seaweedfs(bucket, keys))
    yield (
        "policies",
        "store-policies/*.json for AWS, MinIO and Ceph; secrets/store-seaweedfs.json for SeaweedFS",
    )


def _write(parts: Parts, name: str, content: Mapping[str, Any]) -> None:
    write_file(parts.site.root / name, json.dumps(content, indent=2).encode(), mode=0o600)
