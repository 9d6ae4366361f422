"""Which objects contradict a certificate of deletion."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from videostore.check.certificate import is_covered
from videostore.domain.segment import KeyId, Segment, Sha256Hex, Span

HOUR = timedelta(hours=1)
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
KEY = KeyId(NOON, HOUR)
GONE = Span(NOON + timedelta(seconds=5), NOON + HOUR + timedelta(milliseconds=60))


def begun(at, *, period=HOUR, keep=timedelta(0)):
    return Segment(
        camera_id=UUID(int=1),
        span=Span(at, at + timedelta(seconds=10)),
        sequence=0,
        key_period=period,
        size_bytes=1,
        sha256=Sha256Hex("0" * 64),
        keep=keep,
    ).object_key


@pytest.mark.parametrize(
    ("key", "covered"),
    [
        pytest.param(begun(NOON + timedelta(minutes=5)), True, id="sealed to its key"),
        pytest.param(begun(NOON), True, id="sealed to its key, before its span"),
        pytest.param(begun(NOON + timedelta(minutes=5), period=HOUR / 2), True, id="another period"),
        pytest.param(begun(NOON + timedelta(minutes=5), keep=24 * HOUR), True, id="another keep"),
        pytest.param(begun(NOON + HOUR), False, id="the next key, overlapping by a late first frame"),
        pytest.param(begun(NOON - HOUR), False, id="the key before"),
        pytest.param(begun(NOON, period=HOUR / 2), False, id="another key, before its span"),
        pytest.param("segments/2026-11-24/stranger", False, id="no segment"),
    ],
)
def test_what_was_begun_under_the_key_or_in_its_span_contradicts_a_certificate(key, covered):
    assert is_covered(key, KEY, GONE) is covered
