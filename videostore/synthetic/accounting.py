"""What became of every frame that a synthetic camera sent: stored, in a gap, or nobody knows.

A stored frame is recognised by its bytes, so nothing needs decoding: one that arrived damaged counts as not
stored, and has to be in a gap.
"""

from __future__ import annotations

import io
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import av

from videostore.domain.segment import Gap, Span
from videostore.synthetic.rtp import taken_apart
from videostore.synthetic.stream import FRAME_RATE, Stream

_TOLERANCE_SECONDS = 0.06
"""One frame, and what segments are moved by to follow the clock."""


@dataclass(frozen=True, slots=True)
class Account:
    """Frames of one camera. ``sent`` is the sum of ``stored``, ``in_gaps`` and ``unaccounted``.

    ``strange`` counts stored frames that the camera never sent as they are, or not then; ``lost`` are the
    Unix times of the frames unaccounted for.
    """

    sent: int
    stored: int
    in_gaps: int
    unaccounted: int
    strange: int
    lost: Sequence[float] = ()


def account(
    streams: Iterable[Stream],
    sent: Sequence[tuple[int, float]],
    stored: Iterable[tuple[Span, bytes]],
    gaps: Iterable[Gap],
) -> Account:
    """Compare what a camera sent with what was recorded of it.

    ``sent`` is as in SyntheticCamera; ``stored`` are opened segments with their spans. Frames of different
    loops are told apart by time: half the length of a loop is the most that clocks may disagree.
    """
    known: dict[bytes, int] = {}
    length = 0.0
    for one in streams:
        length = max(length, len(one.frames) / FRAME_RATE)
        known |= {_core(frame[-1], one.codec): n for frame, n in zip(one.frames, one.numbers, strict=True)}
    waiting: dict[int, list[float]] = defaultdict(list)
    once = sorted(set(sent))  # two connections may get the same frame
    for number, captured in once:
        waiting[number].append(captured)
    matched = strange = 0
    skews: list[tuple[float, float]] = []
    for span, movie in stored:
        for seconds, core in _frames(movie):
            shown = span.start.timestamp() + seconds
            candidates = waiting.get(known.get(core, -1), [])
            place = _nearest(candidates, shown)
            if place is None or abs(candidates[place] - shown) > length / 2:
                strange += 1
            else:
                captured = candidates.pop(place)
                matched += 1
                skews.append((captured, shown - captured))
    left = sorted(captured for candidates in waiting.values() for captured in candidates)
    lost = _outside(left, gaps, sorted(skews))
    return Account(len(once), matched, len(left) - len(lost), len(lost), strange, lost)


def _nearest(moments: Sequence[float], moment: float) -> int | None:
    at = bisect(moments, moment)
    near = [index for index in (at - 1, at) if 0 <= index < len(moments)]
    return min(near, key=lambda index: abs(moments[index] - moment), default=None)


def _frames(movie: bytes) -> Iterable[tuple[float, bytes]]:
    """Yield when each frame is shown, in seconds from the start, and its recognisable part."""
    with av.open(io.BytesIO(movie), "r") as container:
        video = container.streams.video[0]
        for packet in container.demux(video):
            if packet.size and packet.pts is not None and video.time_base is not None:
                data, name = bytes(packet), video.codec_context.name
                yield (
                    float(packet.pts * video.time_base),
                    _core(data if name == "mjpeg" else _last(data), name),
                )


def _core(unit: bytes, codec: str) -> bytes:
    return taken_apart(unit)[1] if codec == "mjpeg" else unit


def _last(sample: bytes) -> bytes:
    """Return the last NAL unit of a sample: each has its length before it, in 4 bytes (ISO/IEC 14496-15)."""
    at = 0
    while True:
        end = at + 4 + int.from_bytes(sample[at : at + 4], "big")
        if end >= len(sample):
            return sample[at + 4 : end]
        at = end


def _outside(
    moments: Sequence[float], gaps: Iterable[Gap], skews: Sequence[tuple[float, float]]
) -> list[float]:
    """Return the moments in no gap. ``skews`` says how late the frames captured then were placed: a camera
    without a usable clock is placed by receipt, and its gaps with it."""
    slack = timedelta(seconds=_TOLERANCE_SECONDS)
    spans = [((gap.span.start - slack).timestamp(), (gap.span.end + slack).timestamp()) for gap in gaps]
    lost = []
    for moment in moments:
        at = bisect(skews, (moment, 0.0))
        places = [moment, *(moment + skew for _, skew in skews[max(0, at - 1) : at + 1])]
        if not any(start <= place < end for start, end in spans for place in places):
            lost.append(moment)
    return lost
