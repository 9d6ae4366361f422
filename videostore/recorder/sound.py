"""Sound beside the picture: on its time line, and cut where it is cut. Pure but for ``aac``.

Both tracks of a camera count from zeros of their own. What relates them is the camera's wall clock, by the
sender reports of each (RFC 3550, 6.4.1), or the host's while a report is missing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction

from videostore.ports import Packet, SoundInfo, StreamInfo
from videostore.recorder.aac import UNIT_SAMPLES, Converter, silence
from videostore.recorder.cutter import Cutter, Group, Unit

CLOSE = timedelta(milliseconds=20)
"""Sound that is so far off goes on where it ended: reports are not exact, and no ear hears it."""
JITTER = timedelta(milliseconds=200)
"""Arrival tells no more than this."""
BELIEVED = timedelta(seconds=2)
"""Clocks of one camera that put its sound so far from where it arrives are not its clocks."""
LATEST = timedelta(seconds=1)
"""A group waits so long, in the time of its picture, for its sound. What comes later is left out."""


class Track:
    """The sound of one connection, as access units of AAC on the time line of its picture."""

    def __init__(self, sound: SoundInfo, picture_time_base: Fraction) -> None:
        self._rate = sound.sample_rate_hz
        self._heard = float(sound.time_base * self._rate)  # samples in a tick of the sound's own
        self._shown = float(picture_time_base * self._rate)  # and in one of the picture
        self._converter = None if sound.codec == "aac" else Converter(sound)
        self._picture: Packet | None = None
        self._frame: float | None = None  # how long a picture lasts at least, in samples
        self._offset: float | None = None  # of the picture's time line against the sound's own, in samples
        self._end: int | None = None
        self._taken = 0  # until where units were given out
        self._silence = silence(sound)
        self._units: deque[Unit] = deque()
        self.info = (
            self._converter.info if self._converter else replace(sound, time_base=Fraction(1, self._rate))
        )

    def see(self, picture: Packet) -> None:
        """Take a picture: sound that comes after it is of its time."""
        if self._picture is not None and picture.pts != self._picture.pts:
            step = abs(picture.pts - self._picture.pts) * self._shown
            self._frame = min(step, self._frame or step)
        self._picture = picture

    def add(self, packet: Packet) -> None:
        """Take a packet; what comes before the first picture is left out."""
        if self._picture is None:
            return
        at = self._place(packet, self._picture)
        close = self._apart(CLOSE)
        breaks = self._end is None or at - self._end > close
        if not breaks:
            assert self._end is not None
            if self._end - at > close:
                return  # it would sound while the one before does
            at = self._end
        if self._converter is None:
            self._units.append(Unit(packet.data, at))
        else:
            self._units += self._converter.add(packet.data, at, breaks=breaks)
        self._end = at + self._samples_of(packet.data)

    def reaches(self, ticks: int) -> bool:
        """Say whether all that is heard before ``ticks`` of the picture is here."""
        return bool(self._units) and self._units[-1].at >= self._samples(ticks)

    def take(self, start: int, end: int) -> list[Unit]:
        """Return the units that begin in ``[start, end)``, ticks of the picture, as samples from ``start``;
        those before are left out, and where there is none there is silence: a browser shows no picture while
        it has nothing to play beside it."""
        first, last, found = self._samples(start), self._samples(end), list[Unit]()
        at = max(first, self._taken)
        while at < last:
            while self._units and self._units[0].at < at:
                self._units.popleft()
            if not self._units or self._units[0].at - at >= UNIT_SAMPLES:
                found.append(Unit(self._silence, at))
            elif self._units[0].at < last:
                found.append(self._units.popleft())
            else:
                break
            at = found[-1].at + UNIT_SAMPLES
        self._taken = at
        return [replace(unit, at=unit.at - first) for unit in found]

    def finish(self) -> None:
        """Take in what is still being worked on."""
        if self._converter is not None:
            self._units += self._converter.finish()

    def _samples_of(self, data: bytes) -> int:
        return self._converter.samples(data) if self._converter else UNIT_SAMPLES

    def _samples(self, ticks: int) -> int:
        return int(ticks * self._shown)

    def _place(self, packet: Packet, picture: Packet) -> int:
        own, shown = packet.pts * self._heard, picture.pts * self._shown
        arrived = self._apart(packet.received_at - picture.received_at)
        if self._frame is not None:
            arrived = min(arrived, self._frame)  # or the next picture would have come: reads are gathered
        arrived -= self._samples_of(packet.data)  # it comes when its last sample was heard
        if packet.claimed_at and picture.claimed_at:
            claimed = self._apart(packet.claimed_at - picture.claimed_at)
            if abs(claimed - arrived) < self._apart(BELIEVED):
                self._offset = shown + claimed - own
                return round(own + self._offset)
        if self._offset is None or abs(shown + arrived - own - self._offset) > self._apart(JITTER):
            self._offset = shown + arrived - own
        return round(own + self._offset)

    def _apart(self, duration: timedelta) -> float:
        return duration.total_seconds() * self._rate


class Duet:
    """Cuts picture and sound: a Cutter whose groups wait for their sound. Without sound none waits."""

    def __init__(self, info: StreamInfo) -> None:
        self._cutter = Cutter(info.time_base)
        self._patience = int(LATEST / timedelta(seconds=1) / info.time_base)
        self._track = Track(info.sound, info.time_base) if info.sound else None
        self._picture: Packet | None = None
        self._waiting: list[Group] = []
        self.info = replace(info, sound=self._track.info) if self._track else info
        """What the groups hold: the sound is AAC."""

    def add(self, packet: Packet) -> Sequence[Group]:
        """Take a packet; return the groups that are complete. Raises CameraStreamInvalid if time jumps."""
        if packet.sound:
            if self._track:
                self._track.add(packet)
            return self._complete()
        self._picture = packet
        if self._track:
            self._track.see(packet)
        group = self._cutter.add(packet)
        if group is not None:
            self._waiting.append(group)
        return self._complete()

    def flush(self) -> Sequence[Group]:
        """Return what is left when the stream ends."""
        left, self._waiting = [*self._waiting], []
        rest = self._cutter.flush()
        if self._track is not None:
            self._track.finish()
        return self._with_sound([*left, rest] if rest else left)

    def _complete(self) -> Sequence[Group]:
        if not self._waiting:
            return ()
        ready = 0
        for group in self._waiting:
            end = group.packets[0].pts + group.duration
            late = self._picture is not None and self._picture.pts - end > self._patience
            if self._track is not None and not late and not self._track.reaches(end):
                break
            ready += 1
        complete, self._waiting = self._waiting[:ready], self._waiting[ready:]
        return self._with_sound(complete)

    def _with_sound(self, groups: Iterable[Group]) -> Sequence[Group]:
        if self._track is None:
            return list(groups)
        found = []
        for group in groups:
            start = group.packets[0].pts
            found.append(replace(group, sound=self._track.take(start, start + group.duration)))
        return found
