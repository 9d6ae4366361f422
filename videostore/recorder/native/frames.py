"""RTP payloads put together to frames: H.264 (RFC 6184), H.265 (RFC 7798). Pure.

A frame is a byte stream with start codes (annex B), its units as the camera sent them. What packet loss
left of a frame is kept. What these rules do not foresee raises Doubt: another receiver is to try.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from videostore.recorder.native.rtp import Depacketizer

_START = b"\x00\x00\x00\x01"
_LONGEST_FRAME = 16 * 1024 * 1024  # bytes
LONGEST_WAIT = 10 * 90_000
"""Ticks in which a keyframe is to come."""


class Doubt(Exception):
    """The camera does something that is not understood here. ``reason`` is one of a fixed list."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Frame:
    """One access unit. ``timestamp`` in ticks; ``lost`` packets before or inside it; ``units`` are where in
    ``data`` those of a picture begin, start codes and all."""

    data: bytes
    timestamp: int
    keyframe: bool
    lost: int
    units: tuple[int, ...] = ()


class VideoFrames(Depacketizer):
    """Collects units into frames; what differs between the codecs is in its subclasses.

    A frame ends with the marker, or where the time stamp changes if the camera forgets the marker or it is
    lost. A marker after parameter sets alone ends nothing.
    """

    def __init__(self, emit: Callable[[Frame], None]) -> None:
        self._emit = emit
        self._pieces: list[bytes | memoryview] = []  # of the frame; from ``_fresh`` on they are not ours
        self._fresh = self._size = 0
        self._units: list[int] = []
        self._timestamp = 0
        self._ended: int | None = None  # time stamp of the frame before
        self._picture = self._key = False
        self.middle = b""  # of the unit in fragments that has begun
        self._lost = 0
        self._first: int | None = None
        self._waits = True  # for the first keyframe

    def payload(self, data: memoryview, timestamp: int, marker: bool, lost: int) -> None:
        if timestamp != self._timestamp:
            if self._picture:
                self._end()
            self._timestamp = timestamp
            self.middle = b""
        self._lost += lost
        if data:
            self._take(data)
        if marker and self._picture:
            self._end()
        elif self._size > _LONGEST_FRAME:
            raise Doubt("endless-frame")

    def fragments(self, contents: list[memoryview]) -> None:
        self._pieces += contents
        self._size += len(contents) * len(contents[0])
        if self._size > _LONGEST_FRAME:
            raise Doubt("endless-frame")

    def keep(self) -> None:
        if self._fresh < len(self._pieces):
            self._pieces[self._fresh :] = [b"".join(self._pieces[self._fresh :])]
            self._fresh = len(self._pieces)

    def _take(self, data: memoryview) -> None:
        raise NotImplementedError

    def _begin_unit(self, picture: bool, key: bool) -> None:
        if picture:
            if self._ended == self._timestamp:
                raise Doubt("marker-inside-frame")
            self._picture = True
            self._key = self._key or key
        self._units.append(self._size)
        self._add(_START)

    def _add(self, data: bytes | memoryview) -> None:
        self._pieces.append(data)
        self._size += len(data)

    def _aggregate(self, data: memoryview, at: int, unit: Callable[[memoryview], None]) -> None:
        """STAP-A and AP: units one after the other, each after its size."""
        end = len(data)
        while end - at >= 2:
            size = data[at] << 8 | data[at + 1]
            if not size or at + 2 + size > end:
                self._lost += 1
                return
            unit(data[at + 2 : at + 2 + size])
            at += 2 + size

    def _end(self) -> None:
        if self._waits:
            self._first = self._timestamp if self._first is None else self._first
            self._waits = not self._key
            if self._timestamp - self._first > LONGEST_WAIT:
                raise Doubt("no-keyframe")
        frame = Frame(b"".join(self._pieces), self._timestamp, self._key, self._lost, tuple(self._units))
        self._pieces, self._units = [], []
        self._fresh = self._size = 0
        self._ended, self._lost = self._timestamp, 0
        self._picture = self._key = False
        self.middle = b""
        self._emit(frame)


class H264Frames(VideoFrames):
    """Single units, STAP-A and FU-A: packetization modes 0 and 1."""

    def _take(self, data: memoryview) -> None:
        kind = data[0] & 0x1F
        if kind == 28:  # FU-A
            if len(data) < 3:
                self._lost += 1
                return
            header = data[1]
            if header & 0x80 or not self.middle:
                if not header & 0x80:
                    self._lost = self._lost or 1
                unit = header & 0x1F
                self._begin_unit(0 < unit < 6, unit == 5)
                self._add(bytes((data[0] & 0xE0 | unit,)))
            self._add(data[2:])
            self.middle = b"" if header & 0x40 else bytes((data[0], header & 0x1F))
        elif 0 < kind < 24:
            self._unit(data)
        elif kind == 24:  # STAP-A
            self._aggregate(data, 1, self._unit)
        else:
            raise Doubt("packetization-mode")

    def _unit(self, data: memoryview) -> None:
        kind = data[0] & 0x1F
        self._begin_unit(0 < kind < 6, kind == 5)
        self._add(data)
        self.middle = b""


class H265Frames(VideoFrames):
    """Single units, aggregation packets and fragmentation units, without decoding order numbers."""

    def _take(self, data: memoryview) -> None:
        if len(data) < 3:
            self._lost += 1
            return
        kind = data[0] >> 1 & 0x3F
        if kind == 49:  # FU
            header = data[2]
            if header & 0x80 or not self.middle:
                if not header & 0x80:
                    self._lost = self._lost or 1
                unit = header & 0x3F
                self._begin_unit(unit < 32, 16 <= unit < 24)
                self._add(bytes((data[0] & 0x81 | unit << 1, data[1])))
            self._add(data[3:])
            self.middle = b"" if header & 0x40 else bytes((data[0], data[1], header & 0x3F))
        elif kind < 48:
            self._unit(data)
        elif kind == 48:  # AP
            self._aggregate(data, 2, self._unit)
        else:
            raise Doubt("packetization-mode")

    def _unit(self, data: memoryview) -> None:
        if len(data) < 2:
            self._lost += 1
            return
        kind = data[0] >> 1 & 0x3F
        self._begin_unit(kind < 32, 16 <= kind < 24)
        self._add(data)
        self.middle = b""
