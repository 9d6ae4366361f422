"""Box arithmetic of fragmented MP4 (CMAF): cut, count and move fragments without a codec.

A segment at rest is ``ftyp moov`` (the init) followed by fragments ``moof mdat``, its first frame
at time zero. Whoever serves it moves the fragments to the time line it needs by rewriting
``tfdt`` and ``mfhd``; sample data is never touched. One picture track, which everything is counted by, and
maybe sound beside it, which moves along; sizes up to 32 bits, as any segment of two minutes is. A ``uuid``
box of ours says of which camera it is, and when it begins (microseconds since 1970): whoever gives the
object another name cannot change that, for it is under the seal. Source: ISO/IEC 14496-12, sections 8.8
(movie fragments), 4.2 (boxes) and 11.1 (``uuid``).

Pure. Bytes that are not what a segment must be raise SealBroken: they came out of a seal.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from uuid import UUID

from videostore.domain.camera import CameraId
from videostore.domain.errors import SealBroken
from videostore.domain.segment import EPOCH, MICROSECOND

_CONTAINERS = {b"moov", b"trak", b"mdia", b"moof", b"traf", b"mvex"}
_ORIGIN = UUID("5ac3ce1e-96f1-4d0e-9b11-7d9f1f3f7a60").bytes


@dataclass(frozen=True, slots=True)
class Fragment:
    """One ``moof mdat``. ``start`` and ``duration`` count ticks of the picture's timescale; ``beside`` says,
    for every other track, how many of its ticks one of the picture lasts."""

    data: bytes
    start: int
    duration: int
    frames: int
    beside: Mapping[int, Fraction]

    def moved(self, *, start: int, number: int) -> Fragment:
        """Return this fragment beginning at ``start`` ticks, as fragment ``number`` of its time line.

        Sound stays beside its picture, to a tick of its own.
        """
        data, track = bytearray(self.data), 0
        for path, at, _ in _boxes(self.data, 0, len(self.data)):
            if path[-1] == b"mfhd":
                struct.pack_into(">I", data, at + 4, number)
            elif path[-1] == b"tfhd":
                track = _u32(self.data, at + 4)
            elif path[-1] == b"tfdt":
                if self.data[at] != 1:
                    raise SealBroken("a fragment has a 32-bit tfdt, which cannot carry a long time line")
                begins = start
                if track in self.beside:
                    begins = _u64(self.data, at + 4) + int((start - self.start) * self.beside[track])
                struct.pack_into(">Q", data, at + 4, max(0, begins))
        return Fragment(bytes(data), start, self.duration, self.frames, self.beside)

    def muted(self) -> Fragment:
        """Return this fragment with nothing but its picture: other tracks become free space, none moves."""
        return replace(self, data=_freed(self.data, {b"traf": (b"tfhd", 4)}, self.beside), beside={})


@dataclass(frozen=True, slots=True)
class Movie:
    """A fragmented MP4 taken apart. ``timescale`` is ticks per second. ``origin`` is the box that says
    of which camera it is, empty if none does."""

    init: bytes
    fragments: Sequence[Fragment]
    timescale: int
    origin: bytes = b""

    @property
    def frames(self) -> int:
        return sum(fragment.frames for fragment in self.fragments)

    def muted(self) -> Movie:
        """Return this movie with nothing but its picture."""
        others = {track for track in _tracks(self.init) if track != _picture(_tracks(self.init))}
        init = _freed(self.init, {b"trak": (b"tkhd", 12), b"trex": (b"trex", 4)}, others)
        return Movie(init, [fragment.muted() for fragment in self.fragments], self.timescale)

    @property
    def duration(self) -> int:
        """Ticks from the start of the first fragment to the end of the last."""
        if not self.fragments:
            return 0
        return self.fragments[-1].start + self.fragments[-1].duration - self.fragments[0].start


def parse(data: bytes) -> Movie:
    """Take a segment apart. Boxes that only index it (``sidx``, ``mfra``, ``styp``) are left out."""
    init: list[bytes] = []
    fragments: list[Fragment] = []
    moof, tracks = b"", dict[int, _Track]()
    origin = b""
    for path, at, end in _boxes(data, 0, len(data), deep=False):
        box = data[at - 8 : end]
        match path[-1]:
            case b"ftyp" | b"moov":
                init.append(box)
                tracks |= _tracks(box)
            case b"moof":
                moof = box
            case b"mdat" if moof:
                fragments.append(_fragment(moof, box, tracks))
                moof = b""
            case b"uuid" if data[at : at + 16] == _ORIGIN:
                origin = box
            case _:
                pass
    return Movie(b"".join(init), fragments, tracks[_picture(tracks)].timescale, origin)


def origin_of(camera_id: CameraId, start: datetime) -> bytes:
    """Return the box that says of which camera a segment is, and when it begins. Nobody else reads it."""
    return struct.pack(">I4s16s16sQ", 48, b"uuid", _ORIGIN, camera_id.bytes, (start - EPOCH) // MICROSECOND)


def join(init: bytes, fragments: Sequence[Fragment]) -> bytes:
    """Return one fragmented MP4: ``fragments`` back to back after ``init``, from time zero."""
    out, at = [init], 0
    for number, fragment in enumerate(fragments, start=1):
        out.append(fragment.moved(start=at, number=number).data)
        at += fragment.duration
    return b"".join(out)


@dataclass(slots=True)
class _Track:
    """What ``moov`` says of a track. ``default`` is the duration of samples whose fragment names none."""

    kind: bytes = b""
    timescale: int = 0
    default: int = 0


def _tracks(box: bytes) -> dict[int, _Track]:
    tracks: dict[int, _Track] = {}
    track = _Track()
    for path, at, _ in _boxes(box, 0, len(box)):
        match path[-1]:
            case b"tkhd":
                track = tracks.setdefault(_u32(box, at + (20 if box[at] == 1 else 12)), _Track())
            case b"mdhd":
                track.timescale = _u32(box, at + (20 if box[at] == 1 else 12))
            case b"hdlr":
                track.kind = box[at + 8 : at + 12]
            case b"trex":
                tracks.setdefault(_u32(box, at + 4), _Track()).default = _u32(box, at + 12)
            case _:
                pass
    return tracks


def _picture(tracks: Mapping[int, _Track]) -> int:
    for number, track in tracks.items():
        if track.kind == b"vide" and track.timescale:
            return number
    raise SealBroken("there is no picture track: this is no segment")


def _fragment(moof: bytes, mdat: bytes, tracks: Mapping[int, _Track]) -> Fragment:
    picture = _picture(tracks)
    start, duration, frames, number, default = 0, 0, 0, 0, 0
    for path, at, end in _boxes(moof, 0, len(moof)):
        match path[-1]:
            case b"tfhd":
                number = _u32(moof, at + 4)
                default = _default_duration(moof, at) or (tracks[number].default if number in tracks else 0)
            case b"tfdt" if number == picture:
                start = _u64(moof, at + 4) if moof[at] == 1 else _u32(moof, at + 4)
            case b"trun" if number == picture:
                count, ticks = _run(moof, at, end, default)
                frames += count
                duration += ticks
            case _:
                pass
    scale = tracks[picture].timescale
    beside = {other: Fraction(track.timescale, scale) for other, track in tracks.items() if other != picture}
    return Fragment(moof + mdat, start, duration, frames, beside)


def _freed(data: bytes, boxes: Mapping[bytes, tuple[bytes, int]], tracks: Collection[int]) -> bytes:
    """Return ``data`` with those of ``boxes`` called ``free`` (8.1.2) that are of ``tracks``. ``boxes`` says
    in which box the number of the track stands, and where in it."""
    out, box = bytearray(data), (b"", 0)
    for path, at, _ in _boxes(data, 0, len(data)):
        if path[-1] in boxes:
            box = path[-1], at
        if box[0] and path[-1] == boxes[box[0]][0]:
            where = at + boxes[box[0]][1] + (8 if path[-1] == b"tkhd" and data[at] == 1 else 0)
            if _u32(data, where) in tracks:
                out[box[1] - 4 : box[1]] = b"free"
    return bytes(out)


def _default_duration(data: bytes, at: int) -> int:
    """``tfhd``: flags say which optional fields stand before default_sample_duration."""
    flags = int.from_bytes(data[at + 1 : at + 4], "big")
    offset = at + 8 + (8 if flags & 0x1 else 0) + (4 if flags & 0x2 else 0)
    return _u32(data, offset) if flags & 0x8 else 0


def _run(data: bytes, at: int, end: int, default: int) -> tuple[int, int]:
    """``trun``: return the number of samples and the sum of their durations."""
    flags = int.from_bytes(data[at + 1 : at + 4], "big")
    count = _u32(data, at + 4)
    offset = at + 8 + (4 if flags & 0x1 else 0) + (4 if flags & 0x4 else 0)
    stride = 4 * sum(1 for bit in (0x100, 0x200, 0x400, 0x800) if flags & bit)
    if offset + count * stride > end:
        raise SealBroken("a trun box is shorter than its samples")
    if not flags & 0x100:
        return count, count * default
    return count, sum(_u32(data, offset + index * stride) for index in range(count))


def _u32(data: bytes, at: int) -> int:
    try:
        return int(struct.unpack_from(">I", data, at)[0])
    except struct.error as error:
        raise SealBroken("a box ends too early") from error


def _u64(data: bytes, at: int) -> int:
    return _u32(data, at) << 32 | _u32(data, at + 4)


def _boxes(
    data: bytes, at: int, end: int, path: tuple[bytes, ...] = (), *, deep: bool = True
) -> Iterator[tuple[tuple[bytes, ...], int, int]]:
    """Yield ``(path, start of the payload, end)`` of each box, containers entered if ``deep``."""
    while at < end:
        size = _u32(data, at)
        name = data[at + 4 : at + 8]
        if size < 8 or at + size > end:
            raise SealBroken(f"box {name!r} of {size} bytes does not fit where it stands")
        yield (*path, name), at + 8, at + size
        if deep and name in _CONTAINERS:
            yield from _boxes(data, at + 8, at + size, (*path, name))
        at += size
