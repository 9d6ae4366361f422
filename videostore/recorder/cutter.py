"""Where a stream is cut, and which moment its frames count as captured. Pure.

Frames of one group (a keyframe and what depends on it) stay together; a segment is whole groups, as
many as reach the target duration. All ticks are of the stream's time base.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from itertools import pairwise

from videostore.domain.errors import CameraStreamInvalid
from videostore.domain.segment import MICROSECOND, capture_time
from videostore.ports import Packet

LONGEST_GROUP = timedelta(seconds=60)
"""A camera that sends no keyframe for so long is not recorded: nothing could be cut."""
SHORTEST_GROUP = timedelta(milliseconds=500)
"""Where every frame is a keyframe (MJPEG), this many make a group: each group costs a write to disk."""
JUMP = timedelta(seconds=10)
"""A step of timestamps beyond this is a new stream."""
REORDER = timedelta(seconds=2)
"""No frame is shown so long before one that came earlier: B-frames reach back a few frames."""
SLEW = timedelta(milliseconds=20)
"""How far one segment may be moved against the end of the one before, to follow the clock."""
TOLERANCE = timedelta(milliseconds=500)
"""A disagreement beyond this is no jitter: the segment is placed anew, and what is between is a gap."""


@dataclass(frozen=True, slots=True)
class Unit:
    """An access unit of AAC. ``at`` is when it begins to be heard, in samples."""

    data: bytes
    at: int


@dataclass(frozen=True, slots=True)
class Group:
    """A keyframe and the frames after it, in order of decoding. ``duration`` in ticks reaches from the
    moment the keyframe is shown to that of the next keyframe. Packets were lost from ``damaged`` on, in ticks
    after the keyframe; None: nothing is known to be missing. ``sound`` is what begins in it, ``at`` counted
    from the moment the keyframe is shown."""

    packets: Sequence[Packet]
    duration: int
    damaged: int | None = None
    sound: Sequence[Unit] = ()


class Cutter:
    """Collects packets into groups. Packets before the first keyframe are left out."""

    def __init__(self, time_base: Fraction) -> None:
        self._shortest, self._longest, self._jump, self._reorder, self._typical = (
            int(one / timedelta(seconds=1) / time_base)
            for one in (SHORTEST_GROUP, LONGEST_GROUP, JUMP, REORDER, _TYPICAL_FRAME)
        )
        self._packets: list[Packet] = []
        self._shown: set[int] = set()
        self._last = 0  # the latest moment shown so far
        self._damaged: int | None = None
        self._first = True  # no group was completed yet
        self._frame: int | None = None  # how long a frame lasts, once frames came out of order

    def add(self, packet: Packet) -> Group | None:
        """Take a packet; return the group that it completes. Raises CameraStreamInvalid if time jumps."""
        if not self._packets:
            if packet.keyframe:
                self._begin(packet)
            return None
        self._check(packet)
        start = self._packets[0].pts
        if packet.lost and self._damaged is None:
            self._damaged = self._packets[-1].pts - start
        if packet.keyframe and packet.pts - start >= self._shortest:
            self._look_at_order()
            group = Group(self._packets, packet.pts - start, self._damaged)
            self._first = False
            self._begin(packet)
            return group
        self._packets.append(packet)
        self._shown.add(packet.pts)
        self._last = max(self._last, packet.pts)
        if packet.pts - start > self._longest:
            raise CameraStreamInvalid(
                f"no keyframe for {LONGEST_GROUP.seconds} s",
                hint="Set a keyframe interval of 1 to 4 seconds.",
            )
        return None

    def flush(self) -> Group | None:
        """Return what is left when the stream ends; its last frame counts as long as the one before."""
        if not self._packets:
            return None
        self._look_at_order()
        packets = self._without_frames_ahead()
        shown = sorted(packet.pts for packet in packets)
        before, last = shown[-2] if len(shown) > 1 else shown[-1] - self._typical, shown[-1]
        duration = last - packets[0].pts + max(1, last - before)
        self._packets = []
        return Group(packets, duration, self._damaged)

    def _look_at_order(self) -> None:
        shown = [packet.pts for packet in self._packets]
        if shown != sorted(shown):
            self._frame = min(after - before for before, after in pairwise(sorted(shown)))

    def _without_frames_ahead(self) -> Sequence[Packet]:
        """Leave out frames that came before others, shown earlier, that did not come any more (B-frames)."""
        if self._frame is None:
            # Whether frames were still to be shown between the first two of a connection nobody can tell.
            doubtful = self._first and len(self._packets) == 2 and not self._packets[1].keyframe
            return self._packets[:1] if doubtful else self._packets
        shown = [packet.pts for packet in self._packets]
        for count in range(len(shown), max(0, len(shown) - _REORDER_FRAMES), -1):
            last = sorted(shown[:count])[-_REORDER_FRAMES:]
            if all(after - before < 2 * self._frame for before, after in pairwise(last)):
                return self._packets[:count]
        return self._packets

    def _begin(self, keyframe: Packet) -> None:
        self._packets, self._shown = [keyframe], {keyframe.pts}
        self._last = max(self._last, keyframe.pts)
        self._damaged = 0 if keyframe.lost else None

    def _check(self, packet: Packet) -> None:
        jumps = packet.pts - self._last > self._jump or self._last - packet.pts > self._reorder
        stands = packet.pts in self._shown or (packet.keyframe and packet.pts < self._last)
        if jumps or stands:
            raise CameraStreamInvalid("the camera's timestamps jump", hint="The recorder connects again.")


_REORDER_FRAMES = 16  # ITU-T H.264, A.3.1: max_num_reorder_frames
_TYPICAL_FRAME = timedelta(seconds=1) / 25


class Timeline:
    """Places segments of one connection on the time line of the site.

    A segment begins where the one before ended, give or take SLEW, as long as the measured time agrees
    within TOLERANCE. No segment begins after its first frame was received: that would lengthen its life.
    Every frame tells when the first was there at the latest, so one that was stamped late on a busy host
    does not make segments overlap.
    """

    def __init__(self, *, max_offset: timedelta) -> None:
        self._max_offset = max_offset
        self._end: datetime | None = None

    def place(self, group: Group, time_base: Fraction) -> datetime:
        """Return the moment at which the segment that begins with ``group`` begins."""
        first = group.packets[0]
        received = _received(group, time_base)
        measured = capture_time(first.claimed_at, received, max_offset=self._max_offset)
        if self._end is None or abs(measured - self._end) > TOLERANCE:
            return measured
        slewed = self._end + min(SLEW, max(-SLEW, measured - self._end))
        return min(slewed, received)

    def ended(self, end: datetime) -> None:
        """Note where the segment ended."""
        self._end = end


def _received(group: Group, time_base: Fraction) -> datetime:
    """Return when the first frame was there at the latest: each of the group was shown to the camera so much
    later, and came. What is beyond TOLERANCE is no jitter: a camera that sends what it had kept, or jumps."""
    first = group.packets[0]
    told = (one.received_at - ticks_to_time(one.pts - first.pts, time_base) for one in group.packets)
    return min(one for one in told if first.received_at - one <= TOLERANCE)


def ticks_to_time(ticks: int, time_base: Fraction) -> timedelta:
    """Return a duration, rounded down to the microsecond."""
    return int(ticks * time_base * 1_000_000) * MICROSECOND
