"""What retention has already proven, folded from the ledger, so that nothing is recorded twice.

A pass may die between a deed and its record. The deed leaves a trace (a destroyed key's header, an
absent row); the next pass compares the traces with the ledger and writes what is missing. A bookmark
saves it from reading years of ledger again: up to there every trace has its record. Without the file
all of the ledger is read, to the same end.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from videostore.domain.ledger import Event, Json, Record
from videostore.domain.retention import Certificate, Kind
from videostore.durable import write_file
from videostore.ports import HourKey, Ledger
from videostore.retention.report import ACTOR, log


class Journal:
    """Appends records of keys made and destroyed, certificates and losses, each exactly once."""

    def __init__(self, ledger: Ledger, *, bookmark: Path | None = None) -> None:
        self._ledger = ledger
        self._bookmark = bookmark
        self._read_to = self._written = -1
        self._created: set[str] = set()  # and not destroyed
        self._destroyed: set[str] = set()
        self._lost: dict[str, int] = {}
        self._certified: set[str] = set()
        self._current = False
        if bookmark is not None:
            self._open(bookmark)

    def record_destroyed(self, kind: Kind, key: HourKey) -> bool:
        """Write that ``key`` was destroyed, unless the ledger says so already. Returns whether it wrote."""
        name = f"{kind} {key.key_id}"
        if key.destroyed_at is None or name in self._destroyed:
            return False
        self._catch_up()
        if name in self._destroyed:
            return False
        body: dict[str, Json] = {
            "kind": kind.value,
            "key_id": str(key.key_id),
            "recipient": key.recipient,
            "deadline": key.deadline.isoformat(),
            "destroyed_at": key.destroyed_at.isoformat(),
        }
        self._append(Event.KEY_DESTROYED, body)
        return True

    def record_created(self, kind: Kind, keys: Iterable[HourKey]) -> None:
        """Write which of ``keys`` were made, unless the ledger says so already or they are gone."""
        living = [key for key in keys if key.destroyed_at is None and key.recipient]
        if all(f"{kind} {key.key_id}" in self._created for key in living):
            return
        self._catch_up()
        if new := [key for key in living if f"{kind} {key.key_id}" not in self._created]:
            made: list[Json] = [{"key_id": str(key.key_id), "recipient": key.recipient} for key in new]
            self._append(Event.KEY_CREATED, {"kind": kind.value, "keys": made})

    def begin(self) -> None:
        """A pass begins: what others wrote since the one before is read once in it, when it is asked for."""
        self._current = False

    def certify(self, certificate: Certificate) -> bool:
        """Write ``certificate``, unless the ledger has it already. Returns whether it wrote."""
        if not self._current:
            self._catch_up()
        if certificate.id in self._certified:
            return False
        self._append(Event.CERTIFICATE, certificate_body(certificate))
        return True

    def record_loss(self, camera_id: str, key_id: str, segments: int) -> int:
        """Write how many ``segments`` of a camera and an hour are missing, if more are than on record.

        Returns how many more."""
        self._catch_up()
        more = segments - self._lost.get(f"{camera_id} {key_id}", 0)
        if more > 0:
            body: dict[str, Json] = {"camera_id": camera_id, "key_id": key_id, "segments": segments}
            self._append(Event.LOSS, body)
        return max(0, more)

    def settle(self) -> None:
        """Note that no row is absent without a certificate: those on record are not asked for again."""
        self._certified.clear()
        if self._bookmark is not None and self._written != self._read_to:
            content = {
                "after": self._read_to,
                "created": sorted(self._created),
                "destroyed": sorted(self._destroyed),
                "lost": self._lost,
            }
            write_file(self._bookmark, json.dumps(content).encode())
            self._written = self._read_to

    def _open(self, bookmark: Path) -> None:
        try:
            content: Mapping[str, Any] = json.loads(bookmark.read_bytes())
            after, lost = int(content["after"]), dict(content["lost"])
            created, destroyed = set(content["created"]), set(content["destroyed"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("journal.bookmark-unreadable", path=str(bookmark), error=str(error))
            return
        self._read_to = self._written = after
        self._created, self._destroyed, self._lost = created, destroyed, lost

    def _append(self, event: Event, body: Mapping[str, Json]) -> None:
        record = self._ledger.append(event, actor=ACTOR, body=body)
        if record.sequence == self._read_to + 1:  # nobody else wrote in between
            self._fold(record)

    def _catch_up(self) -> None:
        self._current = True
        for record in self._ledger.records(after=self._read_to):
            self._fold(record)

    def _fold(self, record: Record) -> None:
        self._read_to = record.sequence
        body: Mapping[str, Any] = record.body
        if record.event is Event.KEY_CREATED:
            self._created.update(f"{body['kind']} {key['key_id']}" for key in body["keys"])
        elif record.event is Event.SITE_RECONCILED:
            for kind, keys in body.get("keys_lost", {}).items():
                self._created.difference_update(f"{kind} {key_id}" for key_id in keys)
        elif record.event is Event.KEY_DESTROYED:
            self._destroyed.add(f"{body['kind']} {body['key_id']}")
            self._created.discard(f"{body['kind']} {body['key_id']}")
        elif record.event is Event.CERTIFICATE:
            self._certified.add(str(record.body["id"]))
        elif record.event is Event.LOSS:
            where = f"{record.body['camera_id']} {record.body['key_id']}"
            self._lost[where] = int(str(record.body["segments"]))


def certificate_body(certificate: Certificate) -> dict[str, Json]:
    """Return the certificate as it stands in the ledger (docs/reference/proofs.md)."""
    destroyed_at = certificate.key_destroyed_at
    return {
        "id": certificate.id,
        "camera_id": str(certificate.camera_id),
        "key_id": str(certificate.key_id),
        "recipient": certificate.recipient,
        "key_destroyed_at": destroyed_at.isoformat() if destroyed_at else None,
        "span": [certificate.span.start.isoformat(), certificate.span.end.isoformat()],
        "segments": certificate.segments,
        "size_bytes": certificate.size_bytes,
        "segments_sha256": certificate.segments_sha256,
        "confirmed_at": certificate.confirmed_at.isoformat(),
        "absence": certificate.absence,
        "deadline": certificate.deadline.isoformat(),
        "policy": certificate.policy,
    }
