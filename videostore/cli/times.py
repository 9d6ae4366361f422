"""Times as people type them. Always an aware UTC time comes out; a zone may be named going in."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from difflib import get_close_matches
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from videostore.config.durations import parse_duration
from videostore.domain.errors import RequestInvalid

_HINT = (
    "Write 2026-11-24T14:00Z, '2026-11-24 14:00 Europe/Zurich', 'yesterday 14:00', 14:00, now or 10m (ago)."
)
_SPAN_HINT = (
    "Write 'yesterday 14:00-14:20 Europe/Zurich', '2026-11-24 23:50-00:10', "
    "2026-11-24T14:00Z/2026-11-24T14:20Z, or 10m for the last ten minutes."
)
_RANGE = re.compile(
    r"(?:(?P<day>\S+)\s+)?(?P<start>\d{1,2}:\d{2}(?::\d{2})?)\s*(?:-|to)\s*"
    r"(?P<end>\d{1,2}:\d{2}(?::\d{2})?|now)(?P<zone>\s+\S+)?"
)
_DUTY_STATIONS = {
    "Europe/Geneva": "Europe/Zurich",
    "Europe/Bonn": "Europe/Berlin",
    "Europe/The_Hague": "Europe/Amsterdam",
    "Europe/Turin": "Europe/Rome",
    "America/Washington": "America/New_York",
}
"""Cities of the United Nations that have no time zone of their own in the IANA database."""
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


def parse_span(text: str, *, now: datetime) -> tuple[datetime, datetime]:
    """Return begin and end of the span that ``text`` names, in UTC. An end before the begin lies on
    the next day. Raises RequestInvalid as ``parse_time`` does.
    """
    words = text.strip()
    if re.fullmatch(r"(\d+(ms|[dhms]))+", words):
        return parse_time(words, now=now), now
    first, slash, last = words.partition("/")
    if slash and re.match(r"\d{4}-", first) and re.match(r"\d{4}-", last):
        return parse_time(first, now=now), parse_time(last, now=now)
    found = _RANGE.fullmatch(words)
    if found is None:
        raise RequestInvalid(f"{text!r} is not a span of time", hint=_SPAN_HINT)
    day, zone = found["day"] or "today", found["zone"] or ""
    start = parse_time(f"{day} {found['start']}{zone}", now=now)
    if found["end"] == "now":
        return start, now
    end = parse_time(f"{day} {found['end']}{zone}", now=now)
    if end <= start:
        local = start.astimezone(_split_zone(f"x{zone}")[1])
        end = parse_time(f"{local.date() + timedelta(days=1)} {found['end']}{zone}", now=now)
    return start, end


def _zone_hint(name: str) -> str:
    """Say which zone may have been meant."""
    near = (
        [_DUTY_STATIONS[name]]
        if name in _DUTY_STATIONS
        else get_close_matches(name, available_timezones(), 3)
    )
    meant = f"You may mean {' or '.join(near)}. " if near else ""
    return f"{meant}Zones are those of the IANA database, such as Europe/Zurich, or UTC."


def _split_zone(words: str) -> tuple[str, ZoneInfo]:
    head, _, last = words.rpartition(" ")
    if head and re.fullmatch(r"UTC|[A-Z][A-Za-z_]+/[A-Za-z_/+-]+", last):
        try:
            return head, ZoneInfo(last)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise RequestInvalid(f"{last!r} is not a time zone", hint=_zone_hint(last)) from error
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
