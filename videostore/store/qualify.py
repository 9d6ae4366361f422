"""Asks a store everything that our promises need of it, in a bucket of its own that is removed again.

The conformance suite of the port (tests/contracts/test_segment_store.py) asks the adapters; this asks the
store, wherever it is, before footage is trusted to it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, cast

from videostore.domain.errors import ObjectMissing, StoreError, StoreRefused, VideostoreError
from videostore.domain.segment import ObjectKey, Sha256Hex
from videostore.ports import SegmentStore
from videostore.store.bucket import Bucket, ClientError, md5_of, sha256_of
from videostore.store.lifecycle import Rule, differences
from videostore.store.rights import Role
from videostore.store.s3 import S3Store

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import BucketLifecycleConfigurationTypeDef

BODY = b"what a recorder seals is longer than this"
_SHA256 = Sha256Hex(hashlib.sha256(BODY).hexdigest())
_A, _B = ObjectKey("segments/2000-01-01/qualify/a"), ObjectKey("segments/2000-01-01/qualify/b")
_CLOCK = timedelta(seconds=30)
"""How far store and host may be apart: less than the lead of any policy for video."""


class Unfit(Exception):
    """The store answered, and not as it must."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One question, its answer, and whether a promise stands or falls with it."""

    question: str
    ok: bool
    needed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Trial:
    """A scratch bucket, and the store over it."""

    bucket: Bucket
    store: SegmentStore
    rules: Sequence[Rule]
    now: datetime


def qualify(
    bucket: Bucket, adapter: Callable[[Bucket], SegmentStore], rules: Sequence[Rule], *, now: datetime
) -> Iterator[Finding]:
    """Ask a store about itself in a scratch bucket beside ``bucket``, as an administrator."""
    scratch = replace(bucket, name=f"{bucket.name[:40]}-qualify-{secrets.token_hex(4)}")
    with scratch.translated():
        scratch.client.create_bucket(Bucket=scratch.name)
    try:
        trial = Trial(scratch, adapter(scratch), rules, now)
        for question, needed, ask in _QUESTIONS:
            yield _answer(question, needed, partial(ask, trial))
    finally:
        _remove(scratch)


def qualify_roles(bucket: Bucket, roles: Mapping[Role, Bucket]) -> Iterator[Finding]:
    """Ask whether the store lets each role do its work and refuses it all else.

    The administrator of ``bucket`` puts an object there for it, and removes it again.
    """
    everything = S3Store(bucket)
    for role, own in roles.items():
        for what, act in _ACTS.items():
            everything.put(_A, BODY, sha256=_SHA256)
            question = f"may {role} {what}?" if what in _MAY[role] else f"is {role} refused to {what}?"
            yield _answer(question, True, partial(_may if what in _MAY[role] else _refused, act, own))
    everything.delete([_A, _B])


def _answer(question: str, needed: bool, ask: Callable[[], str]) -> Finding:
    try:
        return Finding(question, True, needed, ask())
    except Unfit as error:
        return Finding(question, False, needed, str(error))
    except (VideostoreError, ClientError) as error:
        return Finding(question, False, needed, f"{error}")


def _put(trial: Trial, key: ObjectKey) -> None:
    trial.store.put(key, BODY, sha256=_SHA256)


def _stores(trial: Trial) -> str:
    _put(trial, _A)
    _put(trial, _A)
    if trial.store.get(_A) != BODY:
        raise Unfit("it gave other bytes back")
    return f"{len(BODY)} bytes, twice the same"


def _verifies(trial: Trial) -> str:
    checks = {
        "SHA-256": {"ChecksumSHA256": sha256_of(BODY, _SHA256, _A)},
        "Content-MD5": {"ContentMD5": md5_of(BODY)},
    }
    believed = []
    for name, header in checks.items():
        with suppress(ClientError):
            trial.bucket.client.put_object(Bucket=trial.bucket.name, Key=_B, Body=b"altered", **header)  # type: ignore[arg-type] # one of two headers
            believed.append(name)
    trial.store.delete([_B])
    if len(believed) == len(checks):
        raise Unfit("it stored bytes that are not those of their hash: set store.read_back to content")
    return "refused by " + " and ".join(name for name in checks if name not in believed)


def _lists(trial: Trial) -> str:
    found = {one.key: one.size_bytes for one in trial.store.objects("segments/2000-01-01/")}
    if found.get(_A) != len(BODY) or trial.store.prefixes("segments/") != ["segments/2000-01-01/"]:
        raise Unfit(f"it listed {found}")
    return "at once, with size"


def _hides(trial: Trial) -> str:
    anybody = replace(trial.bucket, credentials=None, anonymous=True)
    for act in _ACTS.values():
        _refused(act, anybody)
    return "they can do nothing"


def _deletes(trial: Trial) -> str:
    keys = [ObjectKey(f"segments/2000-01-01/qualify/{number:03d}") for number in range(50)]
    for key in keys:
        _put(trial, key)
    refused = trial.store.delete(keys)
    left = [key for key in keys if trial.store.size(key) is not None]
    if refused or left:
        raise Unfit(
            f"{len(left)} of {len(keys)} are still there: {next(iter(refused.values()), 'without a word')}"
        )
    with suppress(ObjectMissing):
        trial.store.get(keys[0])
        raise Unfit("it serves what it says is deleted")
    return f"{len(keys)} at once, and then absent"


def _versions(trial: Trial) -> str:
    client, name = trial.bucket.client, trial.bucket.name
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    _put(trial, _B)
    client.put_object(Bucket=name, Key=_B, Body=b"a second version")
    client.delete_object(Bucket=name, Key=_B)
    trial.store.delete([_B])
    left = client.list_object_versions(Bucket=name, Prefix=_B)
    if left.get("Versions") or left.get("DeleteMarkers"):
        raise Unfit("versions or delete markers are left")
    return "two versions and a delete marker are gone"


def _uploads(trial: Trial) -> str:
    client, name = trial.bucket.client, trial.bucket.name
    client.create_multipart_upload(Bucket=name, Key=_B)
    trial.store.delete([_B])
    if client.list_multipart_uploads(Bucket=name).get("Uploads"):
        raise Unfit("an unfinished upload is left")
    return "one was aborted"


def _conditions(trial: Trial) -> str:
    client, name = trial.bucket.client, trial.bucket.name
    with suppress(ClientError):
        client.put_object(Bucket=name, Key=_A, Body=b"another", IfNoneMatch="*")
        raise Unfit("it wrote over an object in spite of If-None-Match")
    return "an object is not written over"


def _lifecycle(trial: Trial) -> str:
    client, name = trial.bucket.client, trial.bucket.name
    wanted = cast("BucketLifecycleConfigurationTypeDef", {"Rules": list(trial.rules)})
    client.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration=wanted)
    found = client.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
    for line in differences(trial.rules, found):
        raise Unfit(line)
    return f"{len(found)} rules by date were kept as written"


def _clock(trial: Trial) -> str:
    time = trial.store.time()
    if time is None:
        raise Unfit("it does not tell its time")
    off = time - trial.now
    if abs(off) > _CLOCK:
        raise Unfit(f"it is {off.total_seconds():+.0f} s off this host's")
    return f"{off.total_seconds():+.0f} s"


_QUESTIONS: Sequence[tuple[str, bool, Callable[[Trial], str]]] = (
    ("does it store what it is given, and give it back?", True, _stores),
    ("does it refuse bytes that were altered on the way?", True, _verifies),
    ("does a listing show what is there?", True, _lists),
    ("does it refuse those who do not sign?", True, _hides),
    ("is what it deleted gone?", True, _deletes),
    ("does deletion reach all versions and markers?", True, _versions),
    ("does deletion reach unfinished uploads?", True, _uploads),
    ("does it keep rules that delete by date? (the third wall)", False, _lifecycle),
    ("does it know If-None-Match?", False, _conditions),
    ("is its clock right?", False, _clock),
)

_MAY: Mapping[Role, frozenset[str]] = {
    "recorder": frozenset({"put"}),
    "gate": frozenset({"get"}),
    "retention": frozenset({"list", "delete"}),
    "auditor": frozenset({"list"}),
}


_ACTS: Mapping[str, Callable[[Bucket], object]] = {
    "put": lambda bucket: S3Store(bucket).put(_B, BODY, sha256=_SHA256),
    "get": lambda bucket: S3Store(bucket).get(_A),
    "list": lambda bucket: next(S3Store(bucket).objects("segments/"), None),
    "delete": lambda bucket: bucket.client.delete_object(Bucket=bucket.name, Key=_A),
}


def _may(act: Callable[[Bucket], object], bucket: Bucket) -> str:
    with bucket.translated():
        act(bucket)
    return "yes"


def _refused(act: Callable[[Bucket], object], bucket: Bucket) -> str:
    try:
        _may(act, bucket)
    except StoreRefused:
        return "refused"
    raise Unfit("it may")


def _remove(scratch: Bucket) -> None:
    with suppress(StoreError), scratch.translated():
        everything = S3Store(scratch)
        everything.delete([found.key for found in everything.objects()])
        scratch.client.delete_bucket(Bucket=scratch.name)
