"""Where every 128th record of a ledger ends, so that nobody reads ten million to append one.

``records.index`` has 72 bytes for each 128 records: the offset after them (8, big-endian), the hash of the
last of them (32), their Merkle root (32). It is made from the records alone and proves nothing: whoever
begins to read by it checks what it finds there. The beginning of an entry, or zeros, is what a power cut
left.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from videostore.durable import disk_errors

LEVEL = 7
STRIDE = 1 << LEVEL
_ENTRY = struct.Struct(">Q32s32s")


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands after ``STRIDE`` records: ``end`` in bytes, the ``head`` of the chain, their ``root``."""

    end: int
    head: bytes
    root: bytes


class Index:
    """The file. Entries are only ever appended; ``count`` is asked anew each time, for others append too."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def count(self) -> int:
        """Return how many whole entries there are, zeros at the end left out."""
        with disk_errors(self._path):
            count = self._path.stat().st_size // _ENTRY.size if self._path.exists() else 0
        while count and self[count - 1].end == 0:
            count -= 1
        return count

    def __getitem__(self, number: int) -> Entry:
        return next(self.entries(number, number + 1))

    def entries(self, start: int, end: int) -> Iterator[Entry]:
        """Yield the entries ``start`` to ``end``; fewer if there are fewer."""
        if start >= end:
            return
        with disk_errors(self._path), self._path.open("rb") as file:
            file.seek(start * _ENTRY.size)
            for _ in range(start, end):
                data = file.read(_ENTRY.size)
                if len(data) < _ENTRY.size:
                    return
                yield Entry(*_ENTRY.unpack(data))

    def write(self, number: int, entry: Entry) -> None:
        """Write entry ``number``, which is the next, and sync it."""
        with disk_errors(self._path):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o640)
            try:
                os.pwrite(descriptor, _ENTRY.pack(entry.end, entry.head, entry.root), number * _ENTRY.size)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
