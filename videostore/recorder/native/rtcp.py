"""Reports beside a stream (RFC 3550, section 6): the camera's clock, and how well it is heard. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from videostore.domain.segment import EPOCH

_SENDER_REPORT, _RECEIVER_REPORT, _DESCRIPTION, _BYE = 200, 201, 202, 203
_NTP_TO_UNIX = 2_208_988_800
"""Seconds from 1900 to 1970."""
_NTP_ERA = 2**32
_NAME = b"videostore"


@dataclass(frozen=True, slots=True)
class SenderReport:
    """``ntp`` is the camera's wall clock in 2**-32 s since 1900, at the moment that ``timestamp`` means."""

    ssrc: int
    ntp: int
    timestamp: int


@dataclass(frozen=True, slots=True)
class Bye:
    ssrc: int


def parse(data: bytes) -> Iterator[SenderReport | Bye]:
    """Yield what a compound packet says that matters; what is broken ends it."""
    at = 0
    while len(data) - at >= 8 and data[at] & 0xC0 == 0x80:
        kind, length = data[at + 1], 4 * (1 + (data[at + 2] << 8 | data[at + 3]))
        if at + length > len(data):
            return
        if kind == _SENDER_REPORT and length >= 28:
            yield SenderReport(*struct.unpack_from(">IQI", data, at + 4))
        elif kind == _BYE and data[at] & 0x1F:
            yield Bye(int.from_bytes(data[at + 4 : at + 8], "big"))
        at += length


def wall_clock(report: SenderReport) -> datetime | None:
    """Return what the camera's clock said, None if it is not set: zero, or before 1970.

    Seconds wrap in 2036 (RFC 5905, section 6): small ones are of the next era.
    """
    seconds, fraction = report.ntp >> 32, report.ntp & 0xFFFFFFFF
    if report.ntp == 0:
        return None
    if seconds < _NTP_TO_UNIX:
        if seconds >= _NTP_ERA // 4:
            return None
        seconds += _NTP_ERA
    return EPOCH + timedelta(seconds=seconds - _NTP_TO_UNIX, microseconds=fraction * 1_000_000 >> 32)


def receiver_report(
    ours: int, theirs: int, *, fraction_lost: int, lost: int, highest: int, last: int, delay: int
) -> bytes:
    """Return a report about one stream, and who we are. ``last`` is the middle of the newest sender report's
    clock, ``delay`` how long ago it came, in 2**-16 s. Jitter is given as none: reads are gathered, so the
    moment of a single packet is not known."""
    block = struct.pack(
        ">IIIIII",
        theirs,
        fraction_lost << 24 | min(lost, 0x7FFFFF),
        highest,
        0,
        last,
        min(delay, 0xFFFFFFFF),
    )
    item = bytes([1, len(_NAME)]) + _NAME
    item += bytes(4 - len(item) % 4)
    described = struct.pack(">BBHI", 0x81, _DESCRIPTION, 1 + len(item) // 4, ours) + item
    return struct.pack(">BBHI", 0x81, _RECEIVER_REPORT, 7, ours) + block + described
