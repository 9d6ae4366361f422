"""Films for export: plain MP4, cut to the frame by an edit list, no sample touched.

A film grows a segment at a time and is never held whole: ``ftyp``, then an ``mdat`` for each segment, then
``moov`` with everything about the samples. It begins with the keyframe before the first frame that was asked
for, since nothing can be decoded without it; the edit list hides what stands before. Frames after the end are
left out. Time has no holes within a film: where footage is missing or the format changes, the next begins.
Source: ISO/IEC 14496-12, sections 4.2, 8.2 to 8.8.

Pure. Bytes that are not what a segment must be raise SealBroken: they came out of a seal.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby

from videostore.domain.errors import SealBroken
from videostore.domain.segment import MICROSECOND, Span

EPOCH_1904 = datetime(1904, 1, 1, tzinfo=UTC)
"""Zero of the times in an MP4 file."""
_NOT_SYNC = 0x10000


def box(name: bytes, *content: bytes) -> bytes:
    """Return a box. Raises SealBroken if 32 bits do not hold its size."""
    size = 8 + sum(map(len, content))
    if size >= 2**32:
        raise SealBroken(f"box {name!r} of {size} bytes is too large")
    return b"".join((struct.pack(">I4s", size, name), *content))


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield ``(name, content)`` of the boxes that ``data`` is made of."""
    at = 0
    while at < len(data):
        size, name = struct.unpack_from(">I4s", data, at) if len(data) - at >= 8 else (0, b"")
        if not 8 <= size <= len(data) - at:
            raise SealBroken(f"box {name!r} of {size} bytes does not fit where it stands")
        yield name, data[at + 8 : at + size]
        at += size


@dataclass(frozen=True, slots=True)
class Sample:
    """One frame, or one packet of sound. Times count ticks of its track; ``shown`` counts from when it is
    decoded."""

    size: int
    duration: int
    shown: int
    sync: bool


@dataclass(slots=True)
class Track:
    """What a film knows of a track: its box, its samples, and where they lie (offset, how many).

    ``first`` and ``end`` are where its samples begin and end, in ticks since the origin of the film."""

    content: bytes
    timescale: int
    handler: bytes
    defaults: tuple[int, int, int]
    samples: list[Sample] = field(default_factory=list)
    chunks: list[tuple[int, int]] = field(default_factory=list)
    first: int = 0
    end: int = 0

    def take(self, at: int, tick: int, samples: Sequence[Sample]) -> None:
        """Add samples that begin at ``tick`` and lie at ``at``. A hole of less than a gap is none: the sample
        before it lasts longer."""
        if not self.samples:
            self.first = self.end = tick
        elif tick > self.end:
            self.samples[-1] = replace(self.samples[-1], duration=self.samples[-1].duration + tick - self.end)
            self.end = tick
        self.chunks.append((at, len(samples)))
        self.samples += samples
        self.end += sum(one.duration for one in samples)

    def times(self) -> list[tuple[int, int]]:
        """Return from when to when each sample is shown, in ticks since the first was decoded."""
        decoded, found = 0, []
        for one in self.samples:
            found.append((decoded + one.shown, decoded + one.shown + one.duration))
            decoded += one.duration
        return found


@dataclass(frozen=True, slots=True)
class Run:
    """The samples of one track in one fragment, and their bytes one after the other. ``begins`` is in ticks
    since the first frame of the segment."""

    track_id: int
    begins: int
    samples: Sequence[Sample]
    data: bytes


class Film:
    """One film. ``asked`` is what shall be seen; ``init`` and fragments come from segments of one format."""

    def __init__(self, init: bytes, *, asked: Span) -> None:
        self.init, self.asked = init, asked
        self.tracks = _tracks(init)
        self.picture = next(number for number, one in self.tracks.items() if one.handler == b"vide")
        self.origin: datetime | None = None
        self.head = box(b"ftyp", b"isom", bytes(4), b"isomiso2avc1mp41")
        self.size_bytes = len(self.head)

    @property
    def frames(self) -> int:
        """How many frames there are, hidden ones included."""
        return len(self.tracks[self.picture].samples)

    @property
    def shown(self) -> Span:
        """What is seen: from the first frame that was asked for to the end of the last."""
        track = self.tracks[self.picture]
        start, end = (self._moment(track, track.first + tick) for tick in self._edit(track))
        return Span(start, max(end, start + MICROSECOND))

    def add(self, start: datetime, fragments: Iterable[bytes]) -> bytes:
        """Return the ``mdat`` of a segment whose first frame is of ``start``; empty if it is not asked for.

        ``fragments`` are its ``moof mdat`` pairs. Whole fragments are taken from the one in which ``asked``
        begins, and frames up to its end.
        """
        kept: list[tuple[Track, int, Run]] = []
        for fragment in fragments:
            runs = list(_runs(fragment, self.tracks))
            picture = next(run for run in runs if run.track_id == self.picture)
            scale = self.tracks[self.picture].timescale
            first = start + _length(picture.begins, scale)
            last = first + _length(sum(one.duration for one in picture.samples), scale)
            if last <= self.asked.start or first >= self.asked.end:
                continue
            self.origin = self.origin or first
            for run in runs:
                track = self.tracks[run.track_id]
                tick = _ticks(start - self.origin, track.timescale) + run.begins
                cut = self._cut(track, tick, run)
                if cut.samples:
                    kept.append((track, tick, cut))
        if not kept:
            return b""
        at = self.size_bytes + 8
        for track, tick, run in kept:
            track.take(at, tick, run.samples)
            at += len(run.data)
        data = box(b"mdat", *(run.data for _, _, run in kept))
        self.size_bytes += len(data)
        return data

    def tail(self) -> bytes:
        """Return the ``moov``: how everything is decoded, where it lies and what of it is shown."""
        assert self.origin is not None
        content = dict(boxes(self.init))[b"moov"]
        scale = self.tracks[self.picture].timescale
        created = (self.origin - EPOCH_1904) // timedelta(seconds=1)
        length = max(self._shown_for(track, scale) for track in self.tracks.values())
        out, tracks = [], iter(self.tracks.items())
        for name, inner in boxes(content):
            if name == b"mvhd":
                rest = inner[96:] if inner[0] else inner[20:]
                times = struct.pack(">IQQIQ", 1 << 24, created, created, scale, length)
                out.append(box(name, times, rest[-80:]))
            elif name == b"trak":
                number, track = next(tracks)
                if track.samples:
                    out.append(self._trak(number, track, created, scale))
            elif name != b"mvex":
                out.append(box(name, inner))
        return box(b"moov", *out)

    # --- pieces ---

    def _moment(self, track: Track, tick: int) -> datetime:
        assert self.origin is not None
        return self.origin + _length(tick, track.timescale)

    def _cut(self, track: Track, tick: int, run: Run) -> Run:
        """Leave out what comes after the end of what was asked for, in the order of decoding."""
        decoded, keep = tick, 0
        for number, one in enumerate(run.samples, start=1):
            if self._moment(track, decoded + one.shown) < self.asked.end:
                keep = number
            decoded += one.duration
        samples = run.samples[:keep]
        return replace(run, samples=samples, data=run.data[: sum(one.size for one in samples)])

    def _edit(self, track: Track) -> tuple[int, int]:
        """Return from when to when a track is shown, in ticks since its first sample was decoded."""
        times = track.times()
        seen = [
            one for one in times if self._moment(track, track.first + one[0]) >= self.asked.start
        ] or times
        return min(start for start, _ in seen), max(end for _, end in seen)

    def _shown_for(self, track: Track, scale: int) -> int:
        if not track.samples:
            return 0
        first, last = self._edit(track)
        return (last - first) * scale // track.timescale

    def _trak(self, number: int, track: Track, created: int, scale: int) -> bytes:
        first, length = self._edit(track)[0], self._shown_for(track, scale)
        edit = box(b"edts", box(b"elst", struct.pack(">IIQqI", 1 << 24, 1, length, first, 0x10000)))
        out: list[bytes] = []
        for name, inner in boxes(track.content):
            if name == b"tkhd":
                flags = int.from_bytes(inner[1:4], "big")
                times = struct.pack(">IQQIIQ", 1 << 24 | flags, created, created, number, 0, length)
                out += [box(name, times, inner[-60:]), edit]
            elif name == b"mdia":
                out.append(box(name, *_mdia(inner, track, created)))
            elif name != b"edts":
                out.append(box(name, inner))
        return box(b"trak", *out)


def _mdia(content: bytes, track: Track, created: int) -> Iterator[bytes]:
    for name, inner in boxes(content):
        if name == b"mdhd":
            times = struct.pack(">IQQIQ", 1 << 24, created, created, track.timescale, track.end - track.first)
            yield box(name, times, inner[-4:])
        elif name == b"minf":
            parts = (
                box(kind, *(_table(part, track) if kind == b"stbl" else (part,)))
                for kind, part in boxes(inner)
            )
            yield box(name, *parts)
        else:
            yield box(name, inner)


def _table(content: bytes, track: Track) -> list[bytes]:
    """Return the sample table: the description as it was, the rest as the samples are."""
    durations = [(len(list(group)), one) for one, group in groupby(one.duration for one in track.samples)]
    shown = [(len(list(group)), one) for one, group in groupby(one.shown for one in track.samples)]
    counts = [(number, count) for number, (_, count) in enumerate(track.chunks, start=1)]
    changes = [one for place, one in enumerate(counts) if not place or one[1] != counts[place - 1][1]]
    sync = [number for number, one in enumerate(track.samples, start=1) if one.sync]
    out = [box(b"stsd", dict(boxes(content))[b"stsd"])]
    out.append(_list(b"stts", ">II", durations))
    if any(one for _, one in shown):
        out.append(_list(b"ctts", ">Ii", shown, version=1))
    if len(sync) < len(track.samples):
        out.append(_list(b"stss", ">I", [(one,) for one in sync]))
    out.append(_list(b"stsc", ">III", [(number, count, 1) for number, count in changes]))
    sizes = struct.pack(f">{len(track.samples)}I", *(one.size for one in track.samples))
    out.append(box(b"stsz", struct.pack(">III", 0, 0, len(track.samples)), sizes))
    out.append(_list(b"co64", ">Q", [(at,) for at, _ in track.chunks]))
    return out


def _list(name: bytes, form: str, entries: Sequence[tuple[int, ...]], *, version: int = 0) -> bytes:
    head = struct.pack(">II", version << 24, len(entries))
    return box(name, head, b"".join(struct.pack(form, *one) for one in entries))


# --- reading ---


def _tracks(init: bytes) -> dict[int, Track]:
    try:
        moov = dict(boxes(init))[b"moov"]
        found = dict(_track(content) for name, content in boxes(moov) if name == b"trak")
        for name, content in boxes(dict(boxes(moov))[b"mvex"]):
            if name == b"trex":
                number, _, *defaults = struct.unpack_from(">IIIII", content, 4)
                found[number].defaults = (defaults[0], defaults[1], defaults[2])
    except (KeyError, struct.error, StopIteration) as error:
        raise SealBroken(f"the init of a segment lacks {error}") from error
    return found


def _track(content: bytes) -> tuple[int, Track]:
    trak = dict(boxes(content))
    mdia = dict(boxes(trak[b"mdia"]))
    tkhd, mdhd = trak[b"tkhd"], mdia[b"mdhd"]
    number = struct.unpack_from(">I", tkhd, 20 if tkhd[0] else 12)[0]
    scale = struct.unpack_from(">I", mdhd, 20 if mdhd[0] else 12)[0]
    return number, Track(content, scale, mdia[b"hdlr"][8:12], (0, 0, 0))


def _runs(fragment: bytes, tracks: Mapping[int, Track]) -> Iterator[Run]:
    """Yield the runs of a fragment. Offsets count from its first byte (``default-base-is-moof``)."""
    try:
        for name, content in boxes(dict(boxes(fragment))[b"moof"]):
            if name == b"traf":
                yield _run(list(boxes(content)), fragment, tracks)
    except (KeyError, struct.error, IndexError) as error:
        raise SealBroken(f"a fragment cannot be read: {error}") from error


def _run(parts: Sequence[tuple[bytes, bytes]], fragment: bytes, tracks: Mapping[int, Track]) -> Run:
    named = dict(parts)
    number, duration, size, flags = _defaults(named[b"tfhd"], tracks)
    tfdt = named[b"tfdt"]
    begins = struct.unpack_from(">Q" if tfdt[0] else ">I", tfdt, 4)[0]
    samples: list[Sample] = []
    data: list[bytes] = []
    for name, trun in parts:
        if name == b"trun":
            at, found = _samples(trun, duration, size, flags)
            samples += found
            data.append(fragment[at : at + sum(one.size for one in found)])
    if sum(map(len, data)) != sum(one.size for one in samples):
        raise SealBroken("a fragment is shorter than its samples")
    return Run(number, begins, samples, b"".join(data))


def _defaults(tfhd: bytes, tracks: Mapping[int, Track]) -> tuple[int, int, int, int]:
    flags, number = int.from_bytes(tfhd[1:4], "big"), struct.unpack_from(">I", tfhd, 4)[0]
    values, at = list(tracks[number].defaults), 8 + (8 if flags & 1 else 0) + (4 if flags & 2 else 0)
    for place, bit in enumerate((0x8, 0x10, 0x20)):
        if flags & bit:
            values[place] = struct.unpack_from(">I", tfhd, at)[0]
            at += 4
    return number, values[0], values[1], values[2]


def _samples(trun: bytes, duration: int, size: int, flags: int) -> tuple[int, list[Sample]]:
    """Return where the samples lie, and the samples."""
    has, count = int.from_bytes(trun[1:4], "big"), struct.unpack_from(">I", trun, 4)[0]
    at, offset = 8, 0
    if has & 0x1:
        offset, at = struct.unpack_from(">i", trun, at)[0], at + 4
    first = flags
    if has & 0x4:
        first, at = struct.unpack_from(">I", trun, at)[0], at + 4
    columns = [bit for bit in (0x100, 0x200, 0x400, 0x800) if has & bit]
    form = ">" + "".join("i" if bit == 0x800 and trun[0] else "I" for bit in columns)
    found = []
    for number, row in enumerate(struct.iter_unpack(form, trun[at:]) if columns else [()] * count):
        one = dict(zip(columns, row, strict=True))
        marks = one.get(0x400, first if number == 0 else flags)
        found.append(
            Sample(one.get(0x200, size), one.get(0x100, duration), one.get(0x800, 0), not marks & _NOT_SYNC)
        )
    return offset, found


def _length(ticks: int, timescale: int) -> timedelta:
    return ticks * 1_000_000 // timescale * MICROSECOND


def _ticks(length: timedelta, timescale: int) -> int:
    """Round to the nearest tick: a microsecond is less than one."""
    return (length // MICROSECOND * timescale + 500_000) // 1_000_000
