"""Frames into fragmented MP4 (CMAF): a header, and a fragment for each group. Pure.

Sources: ISO/IEC 14496-12 (boxes), 14496-15 (H.264 and H.265 in them), 14496-14 and 14496-1 (AAC), 23000-19
(CMAF). Frames are copied, never encoded again; only start codes become lengths. When a frame is shown is an
offset from when it is decoded, and may be negative, so that a segment begins at zero without an edit list.
Players disagree about negative ones where there is sound to keep step with: beside it all is shown, and
heard, later by as much as the earliest frame has to be decoded before.

A segment is ``ftyp moov (sidx prft moof mdat)…``, with a ``traf`` for each track that the fragment has:
``sidx`` says how far its fragment reaches, and so where the next one begins; ``prft`` has the camera's own
wall clock for the first frame, if the camera told one.
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
from videostore.ports import Packet, SoundInfo, StreamInfo
from videostore.recorder.aac import UNIT_SAMPLES
from videostore.recorder.cutter import Group, Unit
from videostore.recorder.native import parameters

CODECS = frozenset({"h264", "hevc"})
_PICTURE, _SOUND = 1, 2
_KEYFRAME, _OTHER = 0x02000000, 0x01010000
"""Sample flags: depends on no other; depends on others and is no sync sample."""
_NTP_TO_UNIX = 2_208_988_800
_UNITY = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_START = b"\x00\x00\x00\x01"
_BEGINNING = 512  # bytes of a unit, in which another that it hides would begin

Piece: TypeAlias = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Sample:
    """One frame, or one unit of sound. Ticks of its track: how long it lasts in order of decoding, and how
    much later it is shown."""

    duration: int
    size_bytes: int
    flags: int
    offset: int


@dataclass(frozen=True, slots=True)
class Run:
    """What a fragment has of a track. ``begins`` in ticks of the track, since the fragment begins; ``rate``
    is how many of them one of the picture lasts."""

    track: int
    begins: int
    rate: Fraction
    samples: Sequence[Sample]

    @property
    def size_bytes(self) -> int:
        return sum(one.size_bytes for one in self.samples)

    @property
    def box_bytes(self) -> int:
        return 64 + 16 * len(self.samples)

    def box(self, start: int, offset: int) -> bytes:
        """Return ``traf``. ``start`` in ticks of the picture; the samples lie ``offset`` bytes after ``moof``
        begins."""
        table = [
            struct.pack(">IIIi", one.duration, one.size_bytes, one.flags, one.offset) for one in self.samples
        ]
        return _box(
            b"traf",
            _full(b"tfhd", 0, 0x020000, struct.pack(">I", self.track)),
            _full(b"tfdt", 1, 0, struct.pack(">Q", self.begins + int(start * self.rate))),
            _full(b"trun", 1, 0xF01, struct.pack(">II", len(self.samples), offset) + b"".join(table)),
        )


@dataclass(frozen=True, slots=True)
class Fragment:
    """One group, packed: the run of the picture, that of the sound if there is any, and ``media``, the bytes
    of one after the other, in pieces. ``duration`` in ticks of ``timescale``; ``claimed_at`` is the camera's
    clock at its first frame."""

    runs: Sequence[Run]
    media: Sequence[Piece]
    duration: int
    timescale: int
    claimed_at: datetime | None

    def boxes(self, *, start: int, number: int) -> list[Piece]:
        """Return ``sidx prft moof mdat`` in pieces, beginning at ``start`` ticks."""
        parts = [_full(b"mfhd", 0, 0, struct.pack(">I", number))]
        at = 8 + len(parts[0]) + sum(run.box_bytes for run in self.runs) + 8
        for run in self.runs:
            parts.append(run.box(start, at))
            at += run.size_bytes
        size = sum(run.size_bytes for run in self.runs)
        mdat = struct.pack(">I4s", 8 + size, b"mdat")
        shown = start + self.runs[0].samples[0].offset
        head = b"".join([self._reference(shown), _box(b"moof", *parts), mdat])
        return [self._index(shown, len(head) + size), head, *self.media]

    def _reference(self, shown: int) -> bytes:
        """Producer reference time (14496-12, 8.16.5): by the camera's clock."""
        if self.claimed_at is None:
            return b""
        since = (self.claimed_at - EPOCH) // MICROSECOND
        ntp = (since // 1_000_000 + _NTP_TO_UNIX) << 32 | (since % 1_000_000 << 32) // 1_000_000
        return _full(b"prft", 1, 24, struct.pack(">IQQ", _PICTURE, ntp & 2**64 - 1, shown))

    def _index(self, shown: int, size: int) -> bytes:
        """Size and duration of the fragment, which begins with a keyframe (14496-12, 8.16.3)."""
        body = struct.pack(">IIQQHH", _PICTURE, self.timescale, shown, 0, 0, 1)
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
        tracks = [_picture_track(info.codec, self._picture, self.timescale, record)]
        self._heard: Fraction | None = None  # ticks of the sound in one of the picture
        if info.sound:
            self._heard = info.time_base / info.sound.time_base
            tracks.append(_sound_track(info.sound))
        self.header = _header(self.timescale, tracks)
        self._searched = self._hides = False  # for units that hide in others; there are some

    def pack(self, group: Group) -> Fragment:
        start = group.packets[0].pts
        shown = [packet.pts - start for packet in group.packets]
        decoded = [one - min(shown) for one in sorted(shown)]
        durations = [
            after - before for before, after in pairwise([*decoded, max(group.duration, decoded[-1] + 1)])
        ]
        early = 0
        if self._heard is not None:
            early = max(dts - pts for pts, dts in zip(shown, decoded, strict=True))
        media: list[Piece] = []
        samples = []
        for packet, duration, pts, dts in zip(group.packets, durations, shown, decoded, strict=True):
            units = self._split(packet)
            for unit in units:
                media += [struct.pack(">I", len(unit)), unit]
            size = sum(map(len, units)) + 4 * len(units)
            flags = _KEYFRAME if packet.keyframe else _OTHER
            samples.append(Sample(duration, size, flags, pts - dts + early))
        self._searched = True
        runs = [Run(_PICTURE, 0, Fraction(1), samples)]
        if self._heard is not None and group.sound:
            begins = group.sound[0].at + int(early * self._heard)
            runs.append(Run(_SOUND, begins, self._heard, _units(group.sound)))
            media += [unit.data for unit in group.sound]
        return Fragment(runs, media, sum(durations), self.timescale, group.packets[0].claimed_at)

    def _split(self, packet: Packet) -> Sequence[Piece]:
        """Return the units of a frame, without start codes.

        Where they begin, the camera's packets told; but some cameras send several as one, with start codes
        between. Of one that did not in its first group, only keyframes are still searched to the end.
        """
        data, told = packet.data, packet.units
        known = bool(told) and self._searched and not self._hides and not packet.keyframe
        bounds = list(pairwise([*(told or (0,)), len(data)]))
        if data.startswith(_START) and not any(
            parameters.START.search(data, at + 4, min(end, at + _BEGINNING) if known else end)
            for at, end in bounds
        ):
            view = memoryview(data)
            return [view[at + 4 : end] for at, end in bounds]
        self._hides = True
        return parameters.units(data)

    def movie(self, fragments: Sequence[Fragment]) -> bytes:
        """Return a whole segment, its first frame at zero."""
        parts: list[Piece] = [self.header]
        at = 0
        for number, fragment in enumerate(fragments, start=1):
            parts += fragment.boxes(start=at, number=number)
            at += fragment.duration
        return b"".join(parts)


def _units(sound: Sequence[Unit]) -> list[Sample]:
    ends = [*(unit.at for unit in sound[1:]), sound[-1].at + UNIT_SAMPLES]
    return [
        Sample(end - unit.at, len(unit.data), _KEYFRAME, 0) for unit, end in zip(sound, ends, strict=True)
    ]


def _timescale(time_base: Fraction) -> int:
    if time_base.numerator != 1:
        raise parameters.Unreadable(f"ticks of {time_base} s")
    return time_base.denominator


def _box(name: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), name) + body


def _full(name: bytes, version: int, flags: int, body: bytes) -> bytes:
    return _box(name, struct.pack(">I", version << 24 | flags), body)


def _header(timescale: int, tracks: Sequence[bytes]) -> bytes:
    """Sound beside a picture is no CMAF track, which stands alone."""
    brands = b"iso6" + struct.pack(">I", 0) + b"iso6" + (b"cmfc" if len(tracks) == 1 else b"") + b"mp41"
    movie = struct.pack(">IIIIIH", 0, 0, timescale, 0, 0x10000, 0x100) + bytes(10) + _UNITY + bytes(24)
    extends = [
        _full(b"trex", 0, 0, struct.pack(">IIIII", number, 1, 0, 0, 0))
        for number in range(_PICTURE, _PICTURE + len(tracks))
    ]
    return _box(b"ftyp", brands) + _box(
        b"moov",
        _full(b"mvhd", 0, 0, movie + struct.pack(">I", _PICTURE + len(tracks))),
        *tracks,
        _box(b"mvex", *extends),
    )


def _picture_track(codec: str, picture: parameters.Picture, timescale: int, record: bytes) -> bytes:
    entry, configuration = (b"avc1", b"avcC") if codec == "h264" else (b"hev1", b"hvcC")
    sample = bytes(16) + struct.pack(">HHIIIH", picture.width, picture.height, 0x480000, 0x480000, 0, 1)
    sample += bytes(32) + struct.pack(">Hh", 24, -1) + _box(configuration, record)
    shape = struct.pack(">HHII", 0, 0, picture.width << 16, picture.height << 16)
    return _track(_PICTURE, shape, timescale, b"vide", _full(b"vmhd", 0, 1, bytes(8)), entry, sample)


def _sound_track(sound: SoundInfo) -> bytes:
    """AAC (14496-14, 5.6; 14496-1, 7.2.6). A rate that 16 bits do not hold stands in its configuration."""
    rate = sound.sample_rate_hz
    config = _descriptor(4, bytes([0x40, 0x15]) + bytes(11) + _descriptor(5, sound.extradata))
    stream = _descriptor(3, bytes(3) + config + _descriptor(6, b"\x02"))
    sample = bytes(8) + struct.pack(">HHIHH", sound.channels, 16, 0, rate if rate < 1 << 16 else 0, 0)
    sample += _full(b"esds", 0, 0, stream)
    shape = struct.pack(">HHII", 0x100, 0, 0, 0)
    return _track(_SOUND, shape, rate, b"soun", _full(b"smhd", 0, 0, bytes(4)), b"mp4a", sample)


def _descriptor(tag: int, body: bytes) -> bytes:
    """14496-1, 8.3.3: seven bits of the length in each byte, another follows where the highest is set."""
    length = [len(body) >> shift & 0x7F | (0x80 if shift else 0) for shift in (21, 14, 7, 0)]
    return bytes([tag, *length]) + body


def _track(
    number: int, shape: bytes, timescale: int, kind: bytes, head: bytes, entry: bytes, sample: bytes
) -> bytes:
    """``shape``: volume, width and height of ``tkhd``; ``sample``: what ``entry`` says beyond what all do."""
    tables = [
        _full(b"stsd", 0, 0, struct.pack(">I", 1) + _box(entry, bytes(6), struct.pack(">H", 1), sample)),
        *(_full(name, 0, 0, bytes(4)) for name in (b"stts", b"stsc")),
        _full(b"stsz", 0, 0, bytes(8)),
        _full(b"stco", 0, 0, bytes(4)),
    ]
    here = _box(b"dinf", _full(b"dref", 0, 0, struct.pack(">I", 1) + _full(b"url ", 0, 1, b"")))
    media = _box(
        b"mdia",
        _full(b"mdhd", 0, 0, struct.pack(">IIIIHH", 0, 0, timescale, 0, 0x55C4, 0)),
        _full(b"hdlr", 0, 0, bytes(4) + kind + bytes(12) + b"videostore\x00"),
        _box(b"minf", head, here, _box(b"stbl", *tables)),
    )
    known = struct.pack(">IIIII", 0, 0, number, 0, 0) + bytes(12)
    return _box(b"trak", _full(b"tkhd", 0, 3, known + shape[:4] + _UNITY + shape[4:]), media)
