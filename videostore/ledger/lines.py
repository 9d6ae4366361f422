"""The lines of the ledger's files: one signed record, or one signed checkpoint, each in canonical form."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from videostore.domain.errors import LedgerBroken, LedgerUnavailable, RequestInvalid
from videostore.domain.ledger import Checkpoint, Event, Record, canonical
from videostore.domain.merkle import leaf_hash
from videostore.domain.segment import Sha256Hex
from videostore.durable import disk_errors, make_directory, sync_directory

RECORDS = "records.jsonl"
CHECKPOINTS = "checkpoints.jsonl"
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Line:
    """One signed record of the file. ``data``: its canonical bytes; ``end``: the offset after the line."""

    record: Record
    data: bytes
    signature: str
    end: int

    @property
    def leaf(self) -> bytes:
        return leaf_hash(self.data)

    @property
    def hash(self) -> Sha256Hex:
        return Sha256Hex(self.leaf.hex())


def read_lines(path: Path, *, start: int = 0) -> Iterator[Line]:
    """Yield the whole lines of a records file from the offset ``start``; a line without its end is left out.

    Raises LedgerBroken at the first line that is not a record, LedgerUnavailable if it cannot be read.
    """
    for raw, end in raw_lines(path, start):
        yield parse(raw, end)


def find_lines(path: Path, events: Collection[Event]) -> Iterator[Line]:
    """Yield the records of these kinds. In canonical form their names stand in a line in one way only."""
    wanted = [b'"event":' + canonical(event.value) for event in events]
    for raw, end in raw_lines(path, 0):
        if any(name in raw for name in wanted):
            line = parse(raw, end)
            if line.record.event in events:
                yield line


def read_checkpoints(path: Path) -> Iterator[Checkpoint | None]:
    """Yield the checkpoints of a file, a line each; None for a line that is none."""
    for raw, _ in raw_lines(path, 0):
        yield _checkpoint(raw)


def checkpoints_of(file: bytes) -> list[Checkpoint | None]:
    """Return the checkpoints of what was kept as one file, a line each; None for a line that is none."""
    return [_checkpoint(raw) for raw in file.splitlines()]


def _checkpoint(raw: bytes) -> Checkpoint | None:
    try:
        return Checkpoint.from_json(json.loads(raw))
    except (ValueError, LedgerBroken):
        return None


def append_line(path: Path, data: bytes, *, at: int) -> int:
    """Write ``data`` as a line, or several, at the end of ``path``, which is ``at``, and sync, or take all
    back."""
    with disk_errors(path):
        make_directory(path.parent)
        new = not path.exists()
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o640), "r+b", buffering=0) as file:
            try:
                file.seek(at)
                left = memoryview(data + b"\n")
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(at)
                raise
        if new:
            sync_directory(path.parent)
    return at + len(data) + 1


def whole_lines(path: Path) -> int:
    """Return the length of ``path`` without a line that was cut."""
    end = 0
    for _, end in raw_lines(path, 0):  # noqa: B007 - the last one counts
        pass
    return end


def raw_lines(path: Path, start: int) -> Iterator[tuple[bytes, int]]:
    """Yield the whole lines from the offset ``start``, each with the offset after it."""
    try:
        with path.open("rb", buffering=_BUFFER_BYTES) as file:
            file.seek(start)
            for raw in file:
                if not raw.endswith(b"\n"):
                    return
                start += len(raw)
                yield raw[:-1], start
    except FileNotFoundError:
        if start:
            raise LedgerBroken(f"{path} is gone") from None
    except OSError as error:
        raise LedgerUnavailable(f"cannot read {path}: {error.strerror}") from error


def parse(raw: bytes, end: int) -> Line:
    """Read one line, which ends at the offset ``end``. Raises LedgerBroken if it is no record."""
    try:
        fields = json.loads(raw)
        record, signature = Record.from_json(fields["record"]), fields["signature"]
        data = canonical(record.to_json())
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerBroken(f"the line that ends at byte {end} is not a ledger record: {error}") from error
    if raw != b'{"record":%s,"signature":%s}' % (data, canonical(signature)):
        raise LedgerBroken(f"record {record.sequence} is not in canonical form: it was altered")
    return Line(record, data, signature, end)


def read_outside(path: Path) -> list[Checkpoint]:
    """Return the checkpoints kept elsewhere in a file, or in the files of a directory, a line each.

    Raises LedgerBroken if one is none, RequestInvalid if there is nothing.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    found = [(file, one) for file in files for one in read_checkpoints(file)]
    if not found:
        raise RequestInvalid(f"{path} holds no checkpoint", hint="Give the line that was kept, as a file.")
    for file, one in found:
        if one is None:
            raise LedgerBroken(f"{file} has a line that is no checkpoint", hint="Copy the whole line.")
    return [one for _, one in found if one]
