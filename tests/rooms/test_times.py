"""Times as an officer types them in a hurry: understood, or refused with what to type instead."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from videostore.cli.times import parse_span
from videostore.domain.errors import RequestInvalid

NOW = datetime(2026, 11, 25, 1, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("yesterday 14:00-14:20 Europe/Zurich", "2026-11-24T13:00", "2026-11-24T13:20"),
        ("yesterday 14:00 - 14:20", "2026-11-24T14:00", "2026-11-24T14:20"),
        ("00:50 to 01:10:30", "2026-11-25T00:50", "2026-11-25T01:10:30"),
        ("01:00-now", "2026-11-25T01:00", "2026-11-25T01:30"),
        ("today 01:00-02:00 Asia/Bangkok", "2026-11-24T18:00", "2026-11-24T19:00"),
        ("yesterday 23:50-00:10 America/New_York", "2026-11-24T04:50", "2026-11-24T05:10"),
        ("2026-11-20 23:50-00:10", "2026-11-20T23:50", "2026-11-21T00:10"),
        ("2026-10-24 23:50-00:10 Europe/Zurich", "2026-10-24T21:50", "2026-10-24T22:10"),
        ("2026-11-20T14:00Z/2026-11-20T14:20+01:00", "2026-11-20T14:00", "2026-11-20T13:20"),
        ("1h30m", "2026-11-25T00:00", "2026-11-25T01:30"),
    ],
)
def test_a_span_is_what_a_person_means(text, start, end):
    assert parse_span(text, now=NOW) == tuple(
        datetime.fromisoformat(moment).replace(tzinfo=UTC) for moment in (start, end)
    )


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("yesterday 14:00-14:20 Europe/Geneva", "You may mean Europe/Zurich."),
        ("yesterday 14:00-14:20 Europe/Zuerich", "You may mean Europe/Zurich"),
        ("yesterday 14:00-25:20", "Write "),
        ("yesterday afternoon", "yesterday 14:00-14:20 Europe/Zurich"),
        ("2026-10-25 02:10-02:40 Europe/Zurich", "Give the time in UTC"),
        ("", "Write "),
    ],
)
def test_what_is_not_understood_says_what_to_type(text, hint):
    with pytest.raises(RequestInvalid) as caught:
        parse_span(text, now=NOW)
    assert hint in caught.value.hint
