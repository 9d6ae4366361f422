"""The ledger as two files that anybody can verify with a SHA-256 and an Ed25519 at hand.

``records.jsonl``: one line for each record, the canonical JSON of ``{"record": …, "signature": …}``;
each record names the hash of the one before it (``domain.ledger``). ``checkpoints.jsonl``: signed heads,
each ``{"at", "head", "size", "signature"}``. Appends from several processes are serialised by a lock
file; a record is synced before ``append`` returns. A line without its end is what a power cut left of a
record that nobody was told of: the next append cuts it off and says so in a record of its own. Nothing
else is ever repaired.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import RLock

from videostore import telemetry
from videostore.domain.errors import DiskError, LedgerBroken, LedgerUnavailable
from videostore.domain.ledger import GENESIS, Event, Json, Record, canonical, check_link
from videostore.domain.segment import Sha256Hex
from videostore.durable import disk_errors, locked, make_directory, sync_directory
from videostore.ports import Clock
from videostore.signing import SigningKey, verify

RECORDS = "records.jsonl"
CHECKPOINTS = "checkpoints.jsonl"
RECORD_CONTEXT = "ledger record"
CHECKPOINT_CONTEXT = "ledger checkpoint"
log = telemetry.logger("ledger")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The signed head: after ``size`` records the last one hashes to ``head``."""

    size: int
    head: Sha256Hex
    at: str
    signature: str

    def to_json(self) -> dict[str, Json]:
        return {"size": self.size, "head": self.head, "at": self.at, "signature": self.signature}


@dataclass(frozen=True, slots=True)
class Line:
    """One signed record as it stands in the file; ``end`` is the offset after it, in bytes."""

    record: Record
    signature: str
    end: int


@dataclass(slots=True)
class _Head:
    """How far this process has read and believed the file."""

    size: int = 0
    hash: Sha256Hex = GENESIS
    end: int = 0


class FileLedger:
    """Port Ledger. Only ``append`` and ``checkpoint`` need ``key``; every record read is checked against
    its public half."""

    def __init__(self, directory: Path, *, key: SigningKey, clock: Clock) -> None:
        self._directory = directory
        self._path = directory / RECORDS
        self._key = key
        self._clock = clock
        self._head = _Head()
        self._offsets: list[int] = [0]  # offset at which record number i begins, as far as read
        self._lock = RLock()

    def append(self, event: Event, *, actor: str, body: Mapping[str, Json]) -> Record:
        try:
            with self._lock, locked(self._directory / ".lock"):
                self._catch_up()
                self._cut_torn_tail()
                return self._write(event, actor, body)
        except (DiskError, OSError) as error:
            raise LedgerUnavailable(
                f"the ledger cannot be written: {error}",
                hint="Free the disk of the ledger; until then no footage is served.",
            ) from error

    def records(self, *, after: int = -1) -> Iterator[Record]:
        with self._lock:
            known = min(after + 1, len(self._offsets) - 1)
            start = self._offsets[known]
            head = _Head(known, self._hash_before(known), start)
        for line in read_lines(self._path, start=start):
            self._believe(line, head)
            if line.record.sequence > after:
                yield line.record

    def checkpoint(self) -> Checkpoint:
        """Sign the head as it stands now, and keep the signature beside the records."""
        try:
            with self._lock, locked(self._directory / ".lock"):
                self._catch_up()
                document: dict[str, Json] = {
                    "size": self._head.size,
                    "head": self._head.hash,
                    "at": self._clock.now().isoformat(),
                }
                signature = self._key.sign(document, context=CHECKPOINT_CONTEXT)
                checkpoint = Checkpoint(self._head.size, self._head.hash, str(document["at"]), signature)
                path = self._directory / CHECKPOINTS
                _append(path, canonical(checkpoint.to_json()) + b"\n", at=_whole_lines(path))
                return checkpoint
        except (DiskError, OSError) as error:
            raise LedgerUnavailable(f"the ledger cannot be written: {error}") from error

    @property
    def public_key(self) -> str:
        return self._key.public

    # --- reading ---

    def _catch_up(self) -> None:
        """Read what others appended since, and remember where each record begins."""
        for line in read_lines(self._path, start=self._head.end):
            self._believe(line, self._head)
            self._offsets.append(line.end)

    def _believe(self, line: Line, head: _Head) -> None:
        check_link(line.record, previous=head.hash, sequence=head.size)
        if not verify(line.record.to_json(), line.signature, public=self._key.public, context=RECORD_CONTEXT):
            raise LedgerBroken(f"record {line.record.sequence} is not signed by this ledger's key")
        head.size, head.hash, head.end = line.record.sequence + 1, line.record.hash, line.end

    def _hash_before(self, number: int) -> Sha256Hex:
        """Return the hash of the record before ``number``, from the file."""
        if number == 0:
            return GENESIS
        line = next(read_lines(self._path, start=self._offsets[number - 1]), None)
        if line is None:
            raise LedgerBroken(f"record {number - 1} was in the ledger and is gone")
        return line.record.hash

    # --- writing, under both locks ---

    def _write(self, event: Event, actor: str, body: Mapping[str, Json]) -> Record:
        record = Record(self._head.size, self._clock.now(), event, actor, dict(body), self._head.hash)
        fields = record.to_json()
        signature = self._key.sign(fields, context=RECORD_CONTEXT)
        data = canonical({"record": fields, "signature": signature}) + b"\n"
        end = _append(self._path, data, at=self._head.end)
        self._head = _Head(record.sequence + 1, record.hash, end)
        self._offsets.append(end)
        telemetry.LEDGER_RECORDS.set(self._head.size)
        return record

    def _cut_torn_tail(self) -> None:
        """Remove the beginning of a record whose writer died, and say so."""
        torn = (self._path.stat().st_size if self._path.exists() else 0) - self._head.end
        if torn < 0:
            raise LedgerBroken(
                f"{self._path} is shorter than it was",
                hint="Records were taken away: keep the files as they are.",
            )
        if torn:
            os.truncate(self._path, self._head.end)
            log.warning("ledger.tail-repaired", torn_bytes=torn)
            self._write(Event.TAIL_REPAIRED, "ledger", {"torn_bytes": torn})


def read_lines(path: Path, *, start: int = 0) -> Iterator[Line]:
    """Yield the whole lines of a records file from the offset ``start``; a line without its end is left out.

    Raises LedgerBroken at the first line that is not a record, LedgerUnavailable if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            file.seek(start)
            for raw in file:
                if not raw.endswith(b"\n"):
                    return
                start += len(raw)
                yield _parse(raw[:-1], start)
    except FileNotFoundError:
        if start:
            raise LedgerBroken(f"{path} is gone") from None
    except OSError as error:
        raise LedgerUnavailable(f"cannot read {path}: {error.strerror}") from error


def _parse(raw: bytes, end: int) -> Line:
    try:
        fields = json.loads(raw)
        record, signature = Record.from_json(fields["record"]), fields["signature"]
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerBroken(f"the line that ends at byte {end} is not a ledger record: {error}") from error
    if canonical({"record": record.to_json(), "signature": signature}) != raw:
        raise LedgerBroken(f"record {record.sequence} is not in canonical form: it was altered")
    return Line(record, signature, end)


def _append(path: Path, data: bytes, *, at: int) -> int:
    """Write ``data`` at the end of ``path``, which is ``at``, and sync it; on failure take it back."""
    with disk_errors(path):
        make_directory(path.parent)
        new = not path.exists()
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o640), "r+b", buffering=0) as file:
            try:
                file.seek(at)
                left = memoryview(data)
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(at)
                raise
        if new:
            sync_directory(path.parent)
    return at + len(data)


def _whole_lines(path: Path) -> int:
    """Return the length of ``path`` without a line that was cut."""
    try:
        return path.read_bytes().rfind(b"\n") + 1
    except FileNotFoundError:
        return 0
