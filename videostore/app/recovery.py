"""Backup, restore, reconcile: how a site survives its host. docs/design/0023-operations.md says why so.

What is in a backup: configuration, secrets, people, ledger, the clock's mark, and the gaps of the catalogue.
What is not: hour keys and what wraps them, for nobody could be sure that a copy is gone at its deadline; and
everything that the store says itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from videostore import telemetry
from videostore.app.host import host_time
from videostore.app.keys import ELSEWHERE
from videostore.app.ledger import restored_mark, verify_ledger
from videostore.app.parts import Parts
from videostore.backup.archive import Content, pack, unpack
from videostore.config.settings import DirectoryStoreSettings
from videostore.config.site import NewDirectory, Site
from videostore.domain.errors import BackupInvalid, LedgerBroken, SignatureInvalid
from videostore.domain.keys import EVENTS, KeysOnRecord
from videostore.domain.ledger import CHECKPOINT_CONTEXT, Event, Json
from videostore.domain.retention import Kind
from videostore.domain.segment import EPOCH, Gap, GapReason, Span
from videostore.durable import remove_file, write_file
from videostore.keyring.master import MasterKeyFile
from videostore.sealing import new_identity
from videostore.signing import verify
from videostore.store.directory import DirectoryStore

_ACTOR = "operator"
_FACTS = "backup.json"
_GAPS = "gaps.jsonl"
_MADE = "backed-up.json"
_MOST_AGE = timedelta(hours=36)
_FILES = ("videostore.yaml", "cameras.yaml", "clock.json")
_FOLDERS = ("policies", "secrets", "staff", "ledger")  # the ledger last: nothing may name what it lacks


def backup_key(file: Path) -> str:
    """Make the key pair that backups are sealed to; write the private half and return the public one."""
    if file.exists():
        raise BackupInvalid(f"{file} exists already", hint="Name a new file; a key is never overwritten.")
    identity, recipient = new_identity()
    write_file(file, f"# public key: {recipient}\n{identity}\n".encode(), mode=0o600)
    return recipient


def back_up(site: Site, file: Path, *, recipient: str) -> dict[str, Any]:
    """Write a backup of ``site``, which may be running. The ledger says that it was made."""
    with Parts(site) as parts:
        made_at = host_time()
        body: dict[str, Json] = {"file": file.name, "recipient": recipient}
        record = parts.ledger.append(Event.SITE_BACKED_UP, actor=_ACTOR, body=body)
        facts = {"site": site.settings.site, "made_at": made_at.isoformat(), "records": record.sequence + 1}
        files = pack(_members(parts, facts), file, recipient=recipient)
    _note(site.root, facts)
    return {"file": str(file), **facts, "files": files, "size_bytes": file.stat().st_size}


def _note(root: Path, facts: Mapping[str, Any]) -> None:
    """Leave the mark of a backup that is whole."""
    write_file(root / _MADE, json.dumps({"made_at": facts["made_at"]}).encode())


def last_backup(root: Path) -> datetime | None:
    """Return when the newest backup of a site was made, None if there is none."""
    try:
        return datetime.fromisoformat(json.loads((root / _MADE).read_bytes())["made_at"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def most_backup_age(site: Site) -> timedelta:
    """Return how old the newest backup may be."""
    return site.settings.backup.max_age or _MOST_AGE


def show_backups(site: Site) -> None:
    """Have the metrics tell the age of the newest backup, and what it may be: 0 where nobody asks for one."""

    def made_at() -> float:
        made = last_backup(site.root)
        return made.timestamp() if made else 0.0

    def may_be() -> float:
        wanted = site.settings.backup.max_age is not None or made_at()
        return most_backup_age(site).total_seconds() if wanted else 0.0

    telemetry.LAST_BACKUP.set_function(made_at)
    telemetry.BACKUP_MAX_AGE.set_function(may_be)


def _members(parts: Parts, facts: dict[str, Any]) -> Iterator[tuple[str, Content]]:
    site = parts.site
    yield _FACTS, json.dumps(facts).encode()
    yield _GAPS, b"".join(_gap_lines(parts))
    for name in _FILES:
        if (site.root / name).exists():
            yield name, site.root / name
    for folder in _FOLDERS:
        for path in sorted((site.root / folder).rglob("*"), key=lambda path: (path.stem == "records", path)):
            if path.is_file() and not path.name.startswith(".") and not _is_of_the_keyring(site, path):
                yield str(path.relative_to(site.root)), path


def _is_of_the_keyring(site: Site, path: Path) -> bool:
    settings = site.settings.keyring
    return path == site.path(settings.master_key) or site.path(settings.path) in path.parents


def _gap_lines(parts: Parts) -> Iterator[bytes]:
    cameras = [camera.id for camera in parts.site.cameras.all()]
    for gap in parts.catalogue.gaps(cameras, Span(EPOCH, host_time())):
        fields = [str(gap.camera_id), gap.span.start.isoformat(), gap.span.end.isoformat(), gap.reason.value]
        yield json.dumps(fields).encode() + b"\n"


def restore(file: Path, directory: Path, *, identity: str) -> dict[str, Any]:
    """Make a site in the new ``directory`` from a backup, whole or not at all. It has no hour key, and its
    ledger takes no record, until it is reconciled."""
    with NewDirectory(directory) as building:
        files = unpack(file, building, identity=identity)
        try:
            facts: dict[str, Any] = json.loads((building / _FACTS).read_bytes())
        except (OSError, ValueError) as error:
            raise BackupInvalid(f"{file} is no backup of a site", hint="Look for another file.") from error
        (building / _FACTS).replace(restored_mark(building))
        _note(building, facts)
        for folder in ("secrets", "staff"):
            (building / folder).mkdir(exist_ok=True)
            (building / folder).chmod(0o700)
        settings = Site.load(building).settings.keyring
        if not settings.master_key.startswith(ELSEWHERE) and not (building / settings.master_key).exists():
            MasterKeyFile(building / settings.master_key).renew()
    return {**facts, "files": files, "directory": str(directory)}


def reconcile(site: Site, checkpoint: Path | None, *, new_store: bool) -> dict[str, Any]:
    """Bring a restored site to what store and outsiders hold, and let its ledger take records again.

    ``checkpoint`` is the newest that anybody has: it tells how many records the backup lacks. ``new_store``
    begins an embedded store that was lost with its host. Raises LedgerBroken if the ledger does not verify.
    May be cut anywhere and run again.
    """
    mark = restored_mark(site.root)
    if not mark.exists():
        raise BackupInvalid("this site is not restored from a backup", hint="There is nothing to reconcile.")
    facts = json.loads(mark.read_bytes())
    report, problems = verify_ledger(site.root / "ledger", "")
    if problems:
        raise LedgerBroken(problems[0], hint="Restore an older backup, or ask who altered this one.")
    records = int(report["records"])
    if new_store and isinstance(site.settings.store, DirectoryStoreSettings):
        DirectoryStore.create(site.path(site.settings.store.path))
    from videostore.catalogue.rebuild import rebuild  # it loads the database's library

    with Parts(site) as parts:
        lost = _lost_since(parts, checkpoint, records)
        found = rebuild(parts.catalogue, parts.store)
        gaps = _put_back_gaps(parts)
        lost_keys: dict[str, list[Json]] = _lost_keys(parts)
        body: dict[str, Json] = {
            "backup_made_at": str(facts["made_at"]),
            "records": records,
            "records_lost": lost,
            "new_store": new_store,
            "segments_found": found.found,
            "keys_lost": lost_keys,
        }
        parts.ledger.append(Event.SITE_RECONCILED, actor=_ACTOR, body=body)
    remove_file(site.root / _GAPS)
    remove_file(mark)
    return {**body, "keys_lost": sum(map(len, lost_keys.values())), "gaps": gaps}


def _lost_keys(parts: Parts) -> dict[str, list[Json]]:
    """Return the keys that the ledger says were made, not that they ended, and that are not in the keyring.
    No backup holds them: they are gone, and on record so that nobody waits for their destruction."""
    told = KeysOnRecord.of(parts.ledger.find(*EVENTS))
    held = {(kind, key.key_id) for kind, ring in parts.keyrings.items() for key in ring.keys()}
    return {
        kind.value: [str(one) for its, one in sorted(told.living.keys() - held) if its is kind]
        for kind in Kind
    }


def _lost_since(parts: Parts, file: Path | None, records: int) -> int | None:
    """Return how many records the checkpoint in ``file`` counts that are not here, None if nobody can say."""
    if file is None:
        return None
    try:
        checkpoint = json.loads(file.read_bytes())
        signature, size, head = checkpoint.pop("signature"), int(checkpoint["size"]), checkpoint["head"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackupInvalid(
            f"{file} is no checkpoint: {error}",
            hint="It is what `videostore ledger checkpoint --json` prints.",
        ) from error
    if not verify(checkpoint, signature, public=parts.ledger.public_key, context=CHECKPOINT_CONTEXT):
        raise SignatureInvalid(f"{file} is not signed by this ledger's key", hint="Is it of this site?")
    last = next((one for one in parts.ledger.records(after=size - 2) if one.sequence == size - 1), None)
    if last is not None and last.hash != head:
        raise LedgerBroken(f"the ledger of the backup is not the one that {file} is of", hint="Keep both.")
    return max(0, size - records)


def _put_back_gaps(parts: Parts) -> int:
    path = parts.site.root / _GAPS
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for line in lines:
        camera, start, end, reason = json.loads(line)
        span = Span(datetime.fromisoformat(start), datetime.fromisoformat(end))
        parts.catalogue.add_gap(Gap(span, UUID(camera), GapReason(reason)))
    return len(lines)
