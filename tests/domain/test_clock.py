"""A clock that jumps neither destroys a month of footage nor lets it live longer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.domain.test_segment import moments
from videostore.domain.clock import BACKWARDS_TOLERANCE, Doubt, read

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
STEP = timedelta(minutes=5)


@pytest.mark.parametrize(
    ("host", "mark", "witnesses", "doubt"),
    [
        pytest.param(NOW, None, [], None, id="first start"),
        pytest.param(NOW, NOW - STEP, [], None, id="as far as allowed"),
        pytest.param(NOW, NOW - STEP - timedelta(seconds=1), [], Doubt.JUMPED_AHEAD, id="too far ahead"),
        pytest.param(NOW, NOW - timedelta(days=9), [NOW], None, id="long off, but a witness agrees"),
        pytest.param(NOW, NOW + BACKWARDS_TOLERANCE, [], None, id="a small step back"),
        pytest.param(NOW, NOW + STEP, [], Doubt.WENT_BACK, id="back"),
        pytest.param(NOW, NOW, [NOW - timedelta(hours=1)], Doubt.WITNESS_DISAGREES, id="witness behind"),
        pytest.param(NOW, NOW, [NOW + timedelta(hours=1)], Doubt.WITNESS_DISAGREES, id="witness ahead"),
    ],
)
def test_the_clock_is_doubted_when_it_moved_as_time_does_not(host, mark, witnesses, doubt):
    assert read(host, mark=mark, witnesses=witnesses, max_step=STEP).doubt is doubt


@given(moments, st.none() | moments, st.lists(moments, max_size=2))
def test_destruction_never_goes_beyond_any_reading_and_opening_never_below(host, mark, witnesses):
    reading = read(host, mark=mark, witnesses=witnesses, max_step=STEP)
    assert reading.earliest <= reading.latest
    assert reading.latest >= host
    if reading.doubt is None:
        assert reading.earliest == reading.latest == host
    else:
        assert reading.earliest < reading.latest
