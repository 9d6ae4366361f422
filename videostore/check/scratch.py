"""A file for a while, sealed to a key that this process alone has: no clear byte of it reaches a disk."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from videostore.durable import disk_errors
from videostore.sealing import new_identity, open_sealed, seal

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

_CHUNK = 1 << 20
"""Bytes sealed at a time."""


class Scratch(io.RawIOBase):
    """Written once from beginning to end, and read anywhere after ``written``. Gone when it is closed."""

    def __init__(self) -> None:
        self._identity, self._recipient = new_identity()
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._sealed: list[tuple[int, int]] = []
        self._ahead, self._size, self._at = bytearray(), 0, 0
        self._open: tuple[int, bytes] = (-1, b"")

    def write(self, data: ReadableBuffer, /) -> int:
        self._ahead += data
        while len(self._ahead) >= _CHUNK:
            self._put(bytes(self._ahead[:_CHUNK]))
            del self._ahead[:_CHUNK]
        return memoryview(data).nbytes

    def written(self) -> io.BufferedReader:
        """Return what was written, to be read."""
        self._put(bytes(self._ahead))
        self._ahead.clear()
        return io.BufferedReader(self, _CHUNK)

    def _put(self, chunk: bytes) -> None:
        sealed = seal(chunk, recipient=self._recipient)
        self._sealed.append((self._file.tell(), len(sealed)))
        with disk_errors(Path(tempfile.gettempdir())):
            self._file.write(sealed)
        self._size += len(chunk)

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        number, skip = divmod(self._at, _CHUNK)
        if self._at >= self._size:
            return 0
        if self._open[0] != number:
            at, length = self._sealed[number]
            self._file.seek(at)
            self._open = number, open_sealed(self._file.read(length), identity=self._identity)
        into = memoryview(buffer).cast("B")
        found = self._open[1][skip : skip + len(into)]
        into[: len(found)] = found
        self._at += len(found)
        return len(found)

    def close(self) -> None:
        self._file.close()
        super().close()
