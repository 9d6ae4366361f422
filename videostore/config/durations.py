"""Spans of time and addresses as people write them in configuration files."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds", "ms": "milliseconds"}
_PART = re.compile(r"(\d+)(ms|[dhms])")
PATTERN = r"^(\d+(ms|[dhms]))+$"


def parse_duration(text: Any) -> timedelta:
    """Return the length that ``30d``, ``24h``, ``1h30m``, ``10s`` or ``250ms`` names."""
    if isinstance(text, timedelta):
        return text
    if not isinstance(text, str) or not re.fullmatch(PATTERN, text):
        raise ValueError("not a duration; write it like 30d, 24h, 1h30m, 10s or 250ms")
    return sum((timedelta(**{_UNITS[unit]: int(count)}) for count, unit in _PART.findall(text)), timedelta())


def show_duration(length: timedelta) -> str:
    """Return ``length`` in the form that ``parse_duration`` reads."""
    left, parts = length // timedelta(milliseconds=1), []
    for unit, size_ms in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, left = divmod(left, size_ms)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(show_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": PATTERN, "examples": ["30d", "24h", "1h30m", "10s"]}),
]

_AT_MOST_30_DAYS = (
    r"^(30d|[12]?\d(d((\d|1\d|2[0-3])h)?([0-5]?\dm)?([0-5]?\ds)?)|(\d{1,2}|[1-6]\d\d|7[01]\d|720)h"
    r"|(\d{1,4}|[1-3]\d{4}|4[0-2]\d{3}|43[01]\d\d|43200)m"
    r"|(\d{1,6}|1\d{6}|2[0-4]\d{5}|25[0-8]\d{4}|259[01]\d{3}|2592000)s)$"
)
VideoKeep = Annotated[
    Duration, WithJsonSchema({"type": "string", "pattern": _AT_MOST_30_DAYS, "examples": ["30d", "72h"]})
]
"""At most 30 days. The schema says so to an editor; ``domain.retention`` refuses what it lets through."""

_AT_MOST_24_HOURS = (
    r"^(1d|(1?\d|2[0-3])h([0-5]?\dm)?([0-5]?\ds)?|24h|(\d{1,3}|1[0-3]\d\d|14[0-3]\d|1440)m"
    r"|(\d{1,4}|[1-7]\d{4}|8[0-5]\d{3}|86[0-3]\d\d|86400)s)$"
)
EntryExitKeep = Annotated[
    Duration, WithJsonSchema({"type": "string", "pattern": _AT_MOST_24_HOURS, "examples": ["24h", "90m"]})
]
"""At most 24 hours, likewise."""


def _check_address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise ValueError("not an address; write HOST:PORT, such as 127.0.0.1:8470 or [::1]:8470")
    return text


Address = Annotated[
    str, BeforeValidator(_check_address), WithJsonSchema({"type": "string", "pattern": r"^.+:\d{1,5}$"})
]


def split_address(address: str) -> tuple[str, int]:
    """Return host (without brackets) and port."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
