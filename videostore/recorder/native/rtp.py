"""Packets of one stream (RFC 3550, section 5): what is missing is counted, time does not wrap. Pure."""

from __future__ import annotations

from struct import pack

_DOLLAR = 0x24
_FAR = 3000
"""A sequence number this far from the one expected is a stream that began anew (RFC 3550, A.1)."""


class Depacketizer:
    """Puts frames together."""

    middle = b""
    """What payloads begin with that go on with a unit in fragments without an end; empty if there is none."""

    def payload(self, data: memoryview, timestamp: int, marker: bool, lost: int) -> None:
        """``timestamp`` counts ticks of the stream, ``marker`` ends a frame, ``lost`` packets came before."""
        raise NotImplementedError

    def fragments(self, contents: list[memoryview]) -> None:
        """Take what is behind ``middle`` in payloads that go on, all as long: same time stamp, no
        marker, none lost."""
        raise NotImplementedError

    def keep(self) -> None:
        """Copy what is still needed of ``data``: its bytes are about to be written over."""


class Receiver:
    """Hands the payloads of one payload type to a depacketizer.

    ``received``, ``lost`` and ``highest`` (sequence number, extended by its wraps) are what a receiver
    report says; ``malformed`` counts packets that were none.
    """

    def __init__(self, payload_type: int, depacketizer: Depacketizer) -> None:
        self._payload_type = payload_type
        self._depacketizer = depacketizer
        self._first = -1
        self._expected = -1
        self._time = self._stamp = 0
        self.ssrc = 0
        self.received = self.lost = self.malformed = 0

    @property
    def highest(self) -> int:
        return max(0, self._expected - 1) & 0xFFFFFFFF

    def packets(self, data: memoryview, start: int, end: int) -> int:
        """Take the packet between the two, each after four bytes that say so (RFC 2326, 10.12), and those
        behind it that go on with the same unit and are as long: most of a stream, told by their headers
        alone. Return where reading goes on.
        """
        self.packet(data[start:end])
        middle = self._depacketizer.middle
        size, content = end - start + 4, 16 + len(middle)
        if not middle or size <= content:
            return end
        fields = 0x80, self._payload_type, 0, self._stamp, self.ssrc
        header = bytearray(bytes(data[start - 4 : start]) + pack(">BBHII", *fields) + middle)
        contents, at, number = [], end, self._expected
        while at <= len(data) - size:
            header[6], header[7] = number >> 8 & 0xFF, number & 0xFF
            if data[at : at + content] != header:
                break
            contents.append(data[at + content : at + size])
            at, number = at + size, number + 1
        if contents and at < len(data) and data[at] != _DOLLAR:  # its length may be wrong
            contents.pop()
            at -= size
        if contents:
            self._expected += len(contents)
            self.received += len(contents)
            self._depacketizer.fragments(contents)
        return at

    def packet(self, data: memoryview) -> None:
        """Take a packet, header and all."""
        size = len(data)
        if size < 12 or data[0] & 0xC0 != 0x80:
            self.malformed += 1
            return
        flags, kind = data[0], data[1]
        if kind & 0x7F != self._payload_type:
            return
        start = 12
        if flags & 0x3F:
            start, size = _bounds(data)
            if start > size:
                self.malformed += 1
                return
        lost = 0
        if self._expected < 0:
            self._begin(data)
        else:
            ahead = ((data[2] << 8 | data[3]) - self._expected) & 0xFFFF
            if ahead:
                other = int.from_bytes(data[8:12], "big") != self.ssrc  # whose numbers are its own (8.2)
                if other or _FAR <= ahead < 0x10000 - _FAR:
                    lost = 1
                    self._begin(data)
                elif ahead >= 0x10000 - _FAR:
                    return  # it came already, or too late
                else:
                    lost = ahead
                    self._expected += ahead
                self.lost += lost
        self._expected += 1
        self.received += 1
        stamp = data[4] << 24 | data[5] << 16 | data[6] << 8 | data[7]
        if stamp != self._stamp:
            self._time += (stamp - self._stamp + 0x80000000 & 0xFFFFFFFF) - 0x80000000
            self._stamp = stamp
        self._depacketizer.payload(data[start:size], self._time, kind >= 0x80, lost)

    def ticks(self, stamp: int) -> int:
        """Return a time stamp of the camera on the time line that ``payload`` is given."""
        return self._time + (stamp - self._stamp + 0x80000000 & 0xFFFFFFFF) - 0x80000000

    def _begin(self, data: memoryview) -> None:
        self.ssrc = int.from_bytes(data[8:12], "big")
        if self._expected < 0:
            self._stamp = int.from_bytes(data[4:8], "big")
        self._expected = data[2] << 8 | data[3]


def _bounds(data: memoryview) -> tuple[int, int]:
    """Return where the payload begins and ends: after sources and an extension, before padding."""
    start, end = 12 + 4 * (data[0] & 0x0F), len(data)
    if data[0] & 0x10:
        if start + 4 > end:
            return 1, 0
        start += 4 + 4 * (data[start + 2] << 8 | data[start + 3])
    if data[0] & 0x20:
        end -= data[end - 1] or end
    return start, end
