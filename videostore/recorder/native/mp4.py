"""Frames into fragmented MP4 (CMAF): a header, and a fragment for each group. Pure.

Sources: ISO/IEC 14496-12 (boxes), 14496-15 (H.264 and H.265 in them), 23000-19 (CMAF). Frames are copied,
never encoded again; only start codes become lengths. When a frame is shown is an offset from when it is
decoded, and may be negative, so that a segment begins at zero without an edit list.

A segment is ``ftyp moov (sidx prft moof mdat)…``: ``sidx`` says how far its fragment reaches, and so where
the next one begins; ``prft`` has the camera's own wall clock for the first frame, if the camera told one.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from itertools import pairwise
from typing import TypeAlias

from videostore.domain.segment import EPOCH, MICROSECOND
from videostore.ports import Packet, StreamInfo
from videostore.recorder.cutter import Group
from videostore.recorder.native import parameters

CODECS = frozenset({"h264", "hevc"})
_TRACK = 1
_KEYFRAME, _OTHER = 0x02000000, 0x01010000
"""Sample flags: depends on no other; depends on others and is no sync sample."""
_NTP_TO_UNIX = 2_208_988_800
_UNITY = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_START = b"\x00\x00\x00\x01"

Piece: TypeAlias = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Sample:
    """One frame. Ticks: how long it lasts in order of decoding, and how much later it is shown."""

    duration: int
    size_bytes: int
    flags: int
    offset: int


@dataclass(frozen=True, slots=True)
class Fragment:
    """One group, packed; ``media`` in pieces. ``duration`` in ticks of ``timescale``; ``claimed_at`` is the
    camera's clock at its first frame."""

    samples: Sequence[Sample]
    media: Sequence[Piece]
    duration: int
    timescale: int
    claimed_at: datetime | None

    def boxes(self, *, start: int, number: int) -> list[Piece]:
        """Return ``sidx prft moof mdat`` in pieces, beginning at ``start`` ticks."""
        table = b"".join(
            struct.pack(">IIIi", one.duration, one.size_bytes, one.flags, one.offset) for one in self.samples
        )
        head = _full(b"mfhd", 0, 0, struct.pack(">I", number))
        track = _full(b"tfhd", 0, 0x020000, struct.pack(">I", _TRACK))
        track += _full(b"tfdt", 1, 0, struct.pack(">Q", start))
        size = 8 + len(head) + 8 + len(track) + 20 + len(table)
        run = struct.pack(">II", len(self.samples), size + 8)
        moof = _box(b"moof", head, _box(b"traf", track, _full(b"trun", 1, 0xF01, run + table)))
        mdat = struct.pack(">I4s", 8 + sum(one.size_bytes for one in self.samples), b"mdat")
        head = b"".join([self._reference(start), moof, mdat])
        return [self._index(start, len(head)), head, *self.media]

    def _reference(self, start: int) -> bytes:
        """Producer reference time (14496-12, 8.16.5): by the camera's clock."""
        if self.claimed_at is None:
            return b""
        since = (self.claimed_at - EPOCH) // MICROSECOND
        ntp = (since // 1_000_000 + _NTP_TO_UNIX) << 32 | (since % 1_000_000 << 32) // 1_000_000
        return _full(b"prft", 1, 24, struct.pack(">IQQ", _TRACK, ntp & 2**64 - 1, start))

    def _index(self, start: int, head: int) -> bytes:
        """Size and duration of the fragment, which begins with a keyframe (14496-12, 8.16.3)."""
        size = head + sum(one.size_bytes for one in self.samples)
        body = struct.pack(">IIQQHH", _TRACK, self.timescale, start, 0, 0, 1)
        return _full(b"sidx", 1, 0, body + struct.pack(">III", size, self.duration, 0x90000000))


class Packer:
    """Packs the groups of one format of a stream. Raises parameters.Unreadable if nothing says which."""

    def __init__(self, info: StreamInfo, keyframe: Packet) -> None:
        self._codec = info.codec
        wanted = parameters.SETS[info.codec]
        sets = parameters.sets(info.codec, keyframe.data)
        if len({parameters.kind(info.codec, one) for one in sets}) < len(wanted):
            sets = parameters.sets(info.codec, info.extradata)
        sps = next((one for one in sets if parameters.kind(info.codec, one) == wanted[-2]), b"")
        self._picture = parameters.picture(info.codec, sps)
        self.timescale = _timescale(info.time_base)
        record = parameters.avcc(sets) if info.codec == "h264" else parameters.hvcc(sets)
        self.header = _header(info.codec, self._picture, self.timescale, record)

    def pack(self, group: Group) -> Fragment:
        start = group.packets[0].pts
        shown = [packet.pts - start for packet in group.packets]
        decoded = [one - min(shown) for one in sorted(shown)]
        durations = [
            after - before for before, after in pairwise([*decoded, max(group.duration, decoded[-1] + 1)])
        ]
        media: list[Piece] = []
        samples = []
        for packet, duration, pts, dts in zip(group.packets, durations, shown, decoded, strict=True):
            size = _add_units(packet.data, media)
            flags = _KEYFRAME if packet.keyframe else _OTHER
            samples.append(Sample(duration, size, flags, pts - dts))
        length = sum(durations)
        return Fragment(samples, media, length, self.timescale, group.packets[0].claimed_at)

    def movie(self, fragments: Sequence[Fragment]) -> bytes:
        """Return a whole segment, its first frame at zero."""
        parts: list[Piece] = [self.header]
        at = 0
        for number, fragment in enumerate(fragments, start=1):
            parts += fragment.boxes(start=at, number=number)
            at += fragment.duration
        return b"".join(parts)


def _add_units(data: bytes, media: list[Piece]) -> int:
    """Add the units of a frame, lengths before them; return the bytes that they take."""
    if data[:4] == _START and parameters.START.search(data, 4) is None:
        media += [struct.pack(">I", len(data) - 4), memoryview(data)[4:]]
        return len(data)
    size = 0
    for unit in parameters.units(data):
        media += [struct.pack(">I", len(unit)), unit]
        size += 4 + len(unit)
    return size


def _timescale(time_base: Fraction) -> int:
    if time_base.numerator != 1:
        raise parameters.Unreadable(f"ticks of {time_base} s")
    return time_base.denominator


def _box(name: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), name) + body


def _full(name: bytes, version: int, flags: int, body: bytes) -> bytes:
    return _box(name, struct.pack(">I", version << 24 | flags), body)


def _header(codec: str, picture: parameters.Picture, timescale: int, record: bytes) -> bytes:
    brands = b"iso6" + struct.pack(">I", 0) + b"iso6cmfcmp41"
    entry, configuration = (b"avc1", b"avcC") if codec == "h264" else (b"hev1", b"hvcC")
    sample = bytes(6) + struct.pack(">H", 1) + bytes(16)
    sample += struct.pack(">HHIIIH", picture.width, picture.height, 0x480000, 0x480000, 0, 1)
    sample += bytes(32) + struct.pack(">Hh", 24, -1) + _box(configuration, record)
    tables = _full(b"stsd", 0, 0, struct.pack(">I", 1) + _box(entry, sample))
    tables += _full(b"stts", 0, 0, bytes(4)) + _full(b"stsc", 0, 0, bytes(4))
    tables += _full(b"stsz", 0, 0, bytes(8)) + _full(b"stco", 0, 0, bytes(4))
    here = _box(b"dinf", _full(b"dref", 0, 0, struct.pack(">I", 1) + _full(b"url ", 0, 1, b"")))
    information = _box(b"minf", _full(b"vmhd", 0, 1, bytes(8)), here, _box(b"stbl", tables))
    media = _box(
        b"mdia",
        _full(b"mdhd", 0, 0, struct.pack(">IIIIHH", 0, 0, timescale, 0, 0x55C4, 0)),
        _full(b"hdlr", 0, 0, bytes(4) + b"vide" + bytes(12) + b"videostore\x00"),
        information,
    )
    shape = struct.pack(">II", picture.width << 16, picture.height << 16)
    track = struct.pack(">IIIII", 0, 0, _TRACK, 0, 0) + bytes(16) + _UNITY + shape
    movie = struct.pack(">IIIIIH", 0, 0, timescale, 0, 0x10000, 0x100) + bytes(10) + _UNITY + bytes(24)
    moov = _box(
        b"moov",
        _full(b"mvhd", 0, 0, movie + struct.pack(">I", _TRACK + 1)),
        _box(b"trak", _full(b"tkhd", 0, 3, track), media),
        _box(b"mvex", _full(b"trex", 0, 0, struct.pack(">IIIII", _TRACK, 1, 0, 0, 0))),
    )
    return _box(b"ftyp", brands) + moov
