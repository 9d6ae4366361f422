"""A connection taken apart: packets on channels, and RTSP messages between them (RFC 2326, 10.12). Pure.

A camera that writes a wrong length, or bytes of nobody's between two packets, loses what lies there and no
more: the next place that looks like a packet of a known channel is where reading goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from videostore.recorder.native import rtsp

Receive: TypeAlias = Callable[[memoryview, int, int], int]
"""Takes the packet between two places, and what follows if it likes; returns where reading goes on."""

_DOLLAR = 0x24
_BEGINNINGS = frozenset(b"$\r\nABCDEFGHIJKLMNOPQRSTUVWXYZ")
"""What may follow a packet: another, or a message."""
_LONGEST_MESSAGE = rtsp.LONGEST_HEAD + rtsp.LONGEST_BODY


class Interleaved:
    """``channels`` says who gets the packets of each; a packet is valid only until its receiver returns.

    ``skipped`` counts bytes that belonged to nothing, ``unknown`` packets of a channel that nobody set up.
    """

    def __init__(self, channels: Mapping[int, Receive], *, message: Callable[[rtsp.Message], None]) -> None:
        self._channels = channels
        self._message = message
        self.skipped = self.unknown = 0

    def feed(self, data: memoryview) -> int:
        """Hand out all that is whole in ``data``; return how many bytes are done with."""
        at, end = 0, len(data)
        channels = self._channels
        while end - at >= 4:
            if data[at] == _DOLLAR:
                following = at + 4 + (data[at + 2] << 8 | data[at + 3])
                if following > end:
                    break
                if following == end or data[following] in _BEGINNINGS:
                    receive = channels.get(data[at + 1])
                    if receive is None:
                        self.unknown += 1
                        at = following
                    else:
                        at = receive(data, at + 4, following)
                    continue
            elif (length := self._take_message(data[at:])) is not None:
                if not length:
                    break
                at += length
                continue
            found = self._next(data, at + 1)
            self.skipped += found - at
            at = found
        return at

    def _take_message(self, data: memoryview) -> int | None:
        """Hand out the message in front; return its length, 0 if it is not whole, None if there is none."""
        try:
            found = rtsp.take(bytes(data[:_LONGEST_MESSAGE]))
        except rtsp.Malformed:
            return 1 if data[0] in b"\r\n" else None  # some end a message with a line too many
        if found is None:
            return 0
        message, length = found
        self._message(message)
        return length

    def _next(self, data: memoryview, at: int) -> int:
        """Return where reading goes on: at a packet of a known channel that is RTP or RTCP (version 2) and,
        as far as can be seen, is followed by another; at a message; else near the end."""
        text = bytes(data)
        end = len(text)
        word = text.find(b"RTSP/1.", at)
        while at < end:
            dollar = text.find(b"$", at)
            if 0 <= word < dollar or (word >= 0 and dollar < 0):
                return word
            if dollar < 0:
                break
            if end - dollar < 6:
                return dollar
            following = dollar + 4 + (text[dollar + 2] << 8 | text[dollar + 3])
            known = text[dollar + 1] in self._channels and text[dollar + 4] & 0xC0 == 0x80
            if known and following >= dollar + 12 and (following >= end or text[following] in _BEGINNINGS):
                return dollar
            at = dollar + 1
        return max(at, end - 6) if end - at > 6 else max(at, end)
