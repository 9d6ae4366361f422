"""Hash arithmetic of the ledger.

A record is a JSON object in canonical form (sorted keys, no white space, UTF-8; the subset of
RFC 8785 that strings, integers, booleans, null, lists and objects need). Its hash is that of a
Merkle tree leaf in RFC 9162, section 2.1: SHA-256 over a zero byte and the canonical bytes. Each
record names the hash of the one before it, so an edit, a reordering or a hole breaks the chain;
a signed checkpoint pins head, length and the root of the tree over all records (``domain.merkle``).

Pure: signing and storing are done by the ledger room.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeAlias

from videostore.domain.errors import LedgerBroken
from videostore.domain.merkle import includes, leaf_hash
from videostore.domain.segment import Sha256Hex

Json: TypeAlias = "str | int | bool | list[Json] | Mapping[str, Json] | None"

GENESIS = Sha256Hex("0" * 64)
"""What the first record names as the one before it."""

RECORD_CONTEXT = "ledger record"
CHECKPOINT_CONTEXT = "ledger checkpoint"
"""What a signature is for (``videostore.signing``)."""


class Event(StrEnum):
    """Every kind of record. Stable: names are never reused for something else."""

    SITE_CREATED = "site.created"
    SITE_BACKED_UP = "site.backed-up"
    SITE_RECONCILED = "site.reconciled"
    POLICY_LOADED = "policy.loaded"
    APPROVERS_LOADED = "policy.approvers"
    ACCESS_LOADED = "policy.access"
    CAMERA_ADDED = "camera.added"
    CAMERA_CHANGED = "camera.changed"
    CAMERA_REMOVED = "camera.removed"
    CAMERA_PICTURE = "camera.picture"
    CAMERA_IDENTITY = "camera.identity"
    STAFF_ADDED = "staff.added"
    STAFF_APPROVED = "staff.approved"
    STAFF_ACKNOWLEDGED = "staff.acknowledged"
    STAFF_REVOKED = "staff.revoked"
    STAFF_RECOVERED = "staff.recovered"
    STAFF_SUSPENDED = "staff.suspended"
    LOGIN = "access.login"
    LOGIN_REFUSED = "access.login-refused"
    INCIDENT_OPENED = "incident.opened"
    INCIDENT_CLOSED = "incident.closed"
    REFUSED = "access.refused"
    SEARCHED = "access.searched"
    REQUESTED = "access.requested"
    GRANTED = "access.granted"
    GRANT_REVOKED = "access.grant-revoked"
    BREAK_GLASS = "access.break-glass"
    REVIEWED = "access.reviewed"
    VIEWING = "access.viewing"
    EXPORT = "access.export"
    SERVED = "access.served"
    PRESENCE_READ = "access.presence-read"
    LEDGER_READ = "access.ledger-read"
    KEY_CREATED = "key.created"
    KEY_DESTROYED = "key.destroyed"
    MASTER_KEY_ROTATED = "key.master-rotated"
    CERTIFICATE = "retention.certificate"
    LOSS = "retention.loss"
    SEGMENTS_CHAINED = "recorder.segments-chained"
    SEGMENT_GIVEN_UP = "recorder.segment-given-up"
    CLOCK_IN_DOUBT = "clock.in-doubt"
    CLOCK_CONFIRMED = "clock.confirmed"
    REPORT_MADE = "ledger.report-made"
    TAIL_REPAIRED = "ledger.tail-repaired"


@dataclass(frozen=True, slots=True)
class Record:
    """One entry. ``actor`` is a staff identifier or a role (``retention``, ``gate``, ``operator``)."""

    sequence: int
    at: datetime
    event: Event
    actor: str
    body: Mapping[str, Json]
    previous: Sha256Hex

    def to_json(self) -> dict[str, Json]:
        return {
            "sequence": self.sequence,
            "at": self.at.astimezone(UTC).isoformat(timespec="microseconds"),
            "event": self.event.value,
            "actor": self.actor,
            "body": self.body,
            "previous": self.previous,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Record:
        """Read a record. Raises LedgerBroken if a field is missing, unknown or of the wrong type."""
        try:
            record = cls(
                sequence=fields["sequence"],
                at=datetime.fromisoformat(fields["at"]),
                event=Event(fields["event"]),
                actor=fields["actor"],
                body=fields["body"],
                previous=Sha256Hex(fields["previous"]),
            )
            same = record.to_json() == dict(fields)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LedgerBroken(f"not a ledger record: {error}") from error
        if not same:
            raise LedgerBroken(f"record {record.sequence} has unexpected fields")
        return record

    @property
    def leaf(self) -> bytes:
        return leaf_hash(canonical(self.to_json()))

    @property
    def hash(self) -> Sha256Hex:
        return Sha256Hex(self.leaf.hex())


def records_named(file_name: str) -> int:
    """Return how many records a checkpoint pins by its file's name, -1 if it is none of ours."""
    number = file_name.removesuffix(".json").rpartition("-")[2]
    return int(number) if number.isascii() and number.isdecimal() else -1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head at a moment: after ``size`` records the last one hashes to ``head``, the tree over all of
    them to ``root``. Signed, it commits the ledger to everything before it."""

    size: int
    head: Sha256Hex
    root: Sha256Hex
    at: datetime
    signature: str = ""

    def signed_fields(self) -> dict[str, Json]:
        at = self.at.astimezone(UTC).isoformat(timespec="microseconds")
        return {"size": self.size, "head": self.head, "root": self.root, "at": at}

    @property
    def file_name(self) -> str:
        """What it is kept as elsewhere, a name for each."""
        return f"{self.at:%Y%m%dT%H%M%S.%fZ}-{self.size}.json"

    def with_signature(self, signature: str) -> Checkpoint:
        return replace(self, signature=signature)

    def to_json(self) -> dict[str, Json]:
        return {**self.signed_fields(), "signature": self.signature}

    @classmethod
    def from_json(cls, fields: Any) -> Checkpoint:
        """Read a checkpoint, its signature not checked. Raises LedgerBroken if it is none."""
        try:
            checkpoint = cls(
                size=fields["size"],
                head=Sha256Hex(fields["head"]),
                root=Sha256Hex(fields["root"]),
                at=datetime.fromisoformat(fields["at"]),
                signature=fields["signature"],
            )
            same = checkpoint.to_json() == fields and type(checkpoint.size) is int and checkpoint.size >= 0
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LedgerBroken(f"not a checkpoint: {error}") from error
        if not same:
            raise LedgerBroken("not a checkpoint: it has unexpected fields")
        return checkpoint


@dataclass(frozen=True, slots=True)
class Proof:
    """That a record stands in the ledger: its way (hex) to the root of a checkpoint."""

    record: Record
    signature: str
    checkpoint: Checkpoint
    path: Sequence[str]

    @property
    def holds(self) -> bool:
        """Whether the way leads there; the two signatures are checked apart."""
        return includes(
            bytes.fromhex(self.checkpoint.root),
            size=self.checkpoint.size,
            index=self.record.sequence,
            leaf=self.record.leaf,
            path=[bytes.fromhex(step) for step in self.path],
        )

    def to_json(self) -> dict[str, Json]:
        return {
            "record": self.record.to_json(),
            "signature": self.signature,
            "checkpoint": self.checkpoint.to_json(),
            "path": list(self.path),
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Proof:
        """Read a proof. Raises LedgerBroken if it is none."""
        try:
            checkpoint = Checkpoint.from_json(fields["checkpoint"])
            proof = cls(Record.from_json(fields["record"]), fields["signature"], checkpoint, fields["path"])
            bytes.fromhex("".join([*proof.path, checkpoint.root]))
        except (KeyError, TypeError, ValueError) as error:
            raise LedgerBroken(f"not a proof: {error}") from error
        return proof


def canonical(value: Json) -> bytes:
    """Return the one byte form of a JSON value that is hashed and signed. Floats are refused."""
    return json.dumps(
        _plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def check_link(record: Record, *, previous: Sha256Hex, sequence: int) -> None:
    """Raise LedgerBroken unless ``record`` is number ``sequence`` and follows ``previous``."""
    if record.sequence != sequence:
        raise LedgerBroken(
            f"record {record.sequence} stands where {sequence} belongs: records are missing or reordered"
        )
    if record.previous != previous:
        raise not_following(sequence)


def not_following(sequence: int) -> LedgerBroken:
    return LedgerBroken(f"record {sequence} does not follow the record before it: one of them was altered")


def _plain(value: Json) -> object:
    if isinstance(value, bool) or value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no canonical form")
