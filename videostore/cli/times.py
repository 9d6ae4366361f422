"""Times as people type them. Always an aware UTC time comes out; a zone may be named going in."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from videostore.config.durations import parse_duration
from videostore.domain.errors import RequestInvalid

_HINT = (
    "Write 2026-11-24T14:00Z, '2026-11-24 14:00 Europe/Geneva', 'yesterday 14:00', 14:00, now or 10m (ago)."
)
_DAYS = {"today": 0, "yesterday": -1}


def parse_time(text: str, *, now: datetime) -> datetime:
    """Return the time ``text`` names, in UTC. Without a zone it means UTC; a duration means that long ago.

    Raises RequestInvalid for what cannot be read, and for a local time that a change of clocks skipped
    or made ambiguous.
    """
    words = text.strip()
    if words == "now":
        return now
    if re.fullmatch(r"(\d+(ms|[dhms]))+", words):
        return now - parse_duration(words)
    words, zone = _split_zone(words)
    local_now = now.astimezone(zone)
    day, _, rest = words.partition(" ")
    if day in _DAYS:
        moment = _at(local_now.date() + timedelta(days=_DAYS[day]), rest or "00:00", text)
    elif re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", words):
        moment = _at(local_now.date(), words, text)
    else:
        try:
            moment = datetime.fromisoformat(words)
        except ValueError as error:
            raise RequestInvalid(f"{text!r} is not a time", hint=_HINT) from error
    if moment.tzinfo is not None:
        return moment.astimezone(UTC)
    return _unambiguous(moment, zone, text)


def _split_zone(words: str) -> tuple[str, ZoneInfo]:
    head, _, last = words.rpartition(" ")
    if head and re.fullmatch(r"UTC|[A-Z][A-Za-z_]+/[A-Za-z_/+-]+", last):
        try:
            return head, ZoneInfo(last)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise RequestInvalid(f"{last!r} is not a time zone", hint=_HINT) from error
    return words, ZoneInfo("UTC")


def _at(day: date, clock: str, text: str) -> datetime:
    try:
        return datetime.combine(day, time.fromisoformat(clock.zfill(5)))
    except ValueError as error:
        raise RequestInvalid(f"{text!r} is not a time", hint=_HINT) from error


def _unambiguous(moment: datetime, zone: ZoneInfo, text: str) -> datetime:
    readings = {moment.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    real = {reading for reading in readings if reading.astimezone(zone).replace(tzinfo=None) == moment}
    if len(real) == 1:
        return real.pop()
    what = "happened twice" if real else "did not happen"
    raise RequestInvalid(
        f"{text!r} {what}: the clocks were changed then",
        hint="Give the time in UTC, such as 2026-10-25T00:30Z.",
    )
