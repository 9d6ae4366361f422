"""The segment being recorded: one sealed file that grows by groups, and where it may end.

::

    open/CAMERA/NAME.grows   the age file so far: its header and the chunks that are full
    open/CAMERA/NAME.ends    for each group after which the file may end: the name that it would have, how
                             much of it comes before its last chunk, and that chunk

NAME is that of a segment that has begun: of no length, and of no hash. A recorder can add nothing to a file
that an earlier process began, for it has no key to it: what ends the file is written down beforehand. Both
are only added to, and the hash in a name tells whether what it names has reached the disk.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

from videostore.age import CHUNK, AgeStream
from videostore.domain.camera import CameraId
from videostore.domain.segment import MICROSECOND, KeyId, Segment, Sha256Hex, Span
from videostore.durable import disk_errors, make_directory, sync_directory

GROWS, ENDS = ".grows", ".ends"
SMALLEST = CHUNK
"""The file may end after a group of so many bytes: they fill the chunk that was the last one before. After a
smaller group it may not (see ``age``), so that group is kept in a file of its own."""
_HEAD = struct.Struct(">HQI")  # bytes of the name, of the file before its last chunk, and of that chunk
_NO_HASH = Sha256Hex("0" * 64)

Room: TypeAlias = Callable[[int, Callable[[], None]], None]
"""Has so many bytes written, room for them made. Raises DiskError."""


def begin(camera_id: CameraId, start: datetime, *, sequence: int, key_id: KeyId) -> Segment:
    """Return what is known of a segment that begins. ``key_id`` must be the key of ``start``."""
    moment = Span(start, start + MICROSECOND)
    return Segment(camera_id, moment, sequence, key_id.period, 0, _NO_HASH, key_id.keep)


class Growth:
    """A segment that is sealed as it comes, and handed to ``write`` bit by bit."""

    def __init__(
        self, begun: Segment, *, recipient: str, write: Callable[[bytes | memoryview], None]
    ) -> None:
        """Raises KeyUnavailable, and what ``write`` raises."""
        self._begun = begun
        self._digest = hashlib.sha256()
        self._size = 0  # bytes
        self._write = write
        self._stream = AgeStream(recipient, self._append)

    def add(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Seal what follows."""
        for piece in pieces:
            self._stream.add(piece)

    def note_end(self, span: Span) -> None:
        """Make what was added so far survive: the segment may end here, having ``span``. To be called only
        after SMALLEST bytes were added."""

    def finish(self, span: Span) -> Segment:
        """End the file."""
        if not self._stream.may_end:
            size = self._stream.room + 8  # fills the chunk, with a box that nobody reads (14496-12, 8.1.2)
            self._stream.add(struct.pack(">I4s", size, b"free") + bytes(size - 8))
        end = self._stream.end()
        segment = self._facts(span, end)
        self._append(end)
        return segment

    def close(self) -> None:
        """Hold nothing any more. Idempotent."""

    def _append(self, sealed: bytes | memoryview) -> None:
        self._digest.update(sealed)
        self._write(sealed)
        self._size += len(sealed)

    def _facts(self, span: Span, end: bytes) -> Segment:
        digest = self._digest.copy()
        digest.update(end)
        sha256 = Sha256Hex(digest.hexdigest())
        return replace(self._begun, span=span, size_bytes=self._size + len(end), sha256=sha256)


class GrowingFile(Growth):
    """A segment that survives a crash up to its last end. All methods raise DiskError; then it is of no use,
    and its files are to be dealt with by ``end_again``."""

    def __init__(self, directory: Path, begun: Segment, *, recipient: str, room: Room) -> None:
        self.path = directory / f"{begun.name}{GROWS}"
        self.ends = directory / f"{begun.name}{ENDS}"
        self.noted_bytes = 0
        self._room = room
        self._files: list[int] = []
        try:
            with disk_errors(self.path):
                make_directory(directory)
                for path in (self.path, self.ends):
                    self._files.append(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640))
                sync_directory(directory)
            super().__init__(begun, recipient=recipient, write=self._write_on)
        except BaseException:
            made = (self.path, self.ends)[: len(self._files)]
            self.close()
            for path in made:  # no footage is in them yet: a full disk shall not be strewn with them
                with suppress(OSError):
                    path.unlink()
            raise

    def note_end(self, span: Span) -> None:
        end = self._stream.end()
        name = self._facts(span, end).name.encode()
        record = b"".join([_HEAD.pack(len(name), self._size, len(end)), name, end])
        with disk_errors(self.path):
            self._room(len(record), lambda: _write(self._files[1], record, self.noted_bytes))
            try:
                for file in self._files:
                    os.fsync(file)
            except OSError:
                os.truncate(self.ends, self.noted_bytes)  # what a disk refused can be read until it is lost
                raise
            self.noted_bytes += len(record)

    def finish(self, span: Span) -> Segment:
        segment = super().finish(span)
        with disk_errors(self.path):
            os.fsync(self._files[0])
        self.close()
        return segment

    def close(self) -> None:
        while self._files:
            os.close(self._files.pop())

    def _write_on(self, sealed: bytes | memoryview) -> None:
        self._room(len(sealed), lambda: _write(self._files[0], sealed, self._size))


def _write(file: int, data: bytes | memoryview, at: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, at)
        rest, at = rest[written:], at + written


def last_end(path: Path) -> Segment | None:
    """Return what a growing file would be if it ended where it last may. Changes nothing."""
    found = _find(path)
    return found and found[0]


def end_again(path: Path) -> Segment | None:
    """End a growing file where it last may, synced, whatever else is in it; return what it is now. None if
    there is no such place. May be asked again after a crash. Raises DiskError."""
    found = _find(path)
    if found is None:
        return None
    segment, before, end = found
    with disk_errors(path):
        file = os.open(path, os.O_WRONLY)
        try:
            os.truncate(file, before)
            _write(file, end, before)
            os.fsync(file)
        finally:
            os.close(file)
    return segment


def _find(path: Path) -> tuple[Segment, int, bytes] | None:
    with suppress(OSError):
        data, camera = memoryview(path.read_bytes()), path.parent.name
        for name, before, end in reversed(list(_noted(path.with_suffix(ENDS)))):
            digest = hashlib.sha256(data[:before])
            digest.update(end)
            with suppress(ValueError):
                segment = Segment.from_name(camera, name, size_bytes=before + len(end))
                if before <= len(data) and digest.hexdigest() == segment.sha256:
                    return segment, before, end
    return None


def _noted(path: Path) -> Iterator[tuple[str, int, bytes]]:
    """Yield name, size before the last chunk, and the last chunk, of all that is whole."""
    data, at = path.read_bytes(), 0
    while at + _HEAD.size <= len(data):
        name, before, end = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if not name or at + name + end > len(data):
            return
        yield data[at : at + name].decode("ascii", "replace"), before, data[at + name : at + name + end]
        at += name + end
