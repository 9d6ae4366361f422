"""Port Clock: says when it is, and when not to believe it. Every adapter runs this."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from videostore.domain.clock import Doubt
from videostore.domain.errors import ConfigInvalid, StoreUnavailable
from videostore.retention.clock import GuardedClock

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
JUMP, OFF = timedelta(minutes=5), timedelta(hours=24)


class Host:
    """A host whose wall clock and running time can be moved apart."""

    def __init__(self) -> None:
        self.wall = NOON
        self.running = 1000.0

    def passes(self, length: timedelta) -> None:
        self.wall += length
        self.running += length.total_seconds()


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def started(host, tmp_path):
    """Return a function that starts a process of the site: a clock over the same mark."""

    def start(witness=lambda: None):
        return GuardedClock(
            tmp_path / "clock.json",
            max_jump=JUMP,
            max_off=OFF,
            witness=witness,
            host=lambda: host.wall,
            elapsed=lambda: host.running,
        )

    return start


def test_an_ordinary_clock_is_believed_for_as_long_as_it_runs(host, started):
    clock = started()
    for _ in range(50):
        host.passes(timedelta(days=1))
        reading = clock.advance()
        assert reading.doubt is None
        assert reading.earliest == reading.latest == clock.now() == host.wall


@pytest.mark.parametrize(
    ("jump", "doubt"),
    [
        pytest.param(timedelta(days=31), Doubt.JUMPED_AHEAD, id="a month ahead"),
        pytest.param(-timedelta(days=31), Doubt.WENT_BACK, id="a month back"),
    ],
)
def test_a_jump_while_running_is_doubted_and_the_true_pace_goes_on(host, started, jump, doubt):
    clock = started()
    clock.advance()
    host.wall += jump
    assert clock.advance().doubt is doubt
    host.passes(timedelta(hours=1))
    reading = clock.advance()
    assert reading.doubt is doubt
    true_time = NOON + timedelta(hours=1)
    assert reading.earliest <= true_time <= reading.latest
    assert true_time in {reading.earliest, reading.latest}


def test_a_clock_put_right_again_is_believed_again(host, started):
    clock = started()
    clock.advance()
    host.wall += timedelta(days=31)
    clock.advance()
    host.wall -= timedelta(days=31)
    assert clock.advance().doubt is None


def test_a_jump_while_the_site_was_off_is_found_at_the_next_start(host, started):
    started().advance()
    host.wall += OFF + timedelta(seconds=1)
    assert started().read().doubt is Doubt.JUMPED_AHEAD
    host.wall = NOON - timedelta(days=1)
    assert started().read().doubt is Doubt.WENT_BACK


def test_a_witness_tells_a_long_holiday_from_a_jump(host, started):
    started().advance()
    host.wall += timedelta(days=20)
    assert started(lambda: host.wall).read().doubt is None
    assert started(lambda: NOON).read().doubt is Doubt.WITNESS_DISAGREES


def test_a_clock_set_ahead_while_the_site_was_off_is_found_by_a_witness(host, started):
    started().advance()
    true_time = NOON + timedelta(hours=1)
    host.wall += timedelta(hours=4)
    reading = started(lambda: true_time).read()
    assert reading.doubt is Doubt.WITNESS_DISAGREES
    assert reading.earliest <= true_time


def test_the_earliest_time_never_goes_back_while_the_clock_is_in_doubt(host, started):
    started().advance()
    host.passes(timedelta(hours=1))
    true_time = host.wall
    host.wall += timedelta(days=40)
    clock = started(lambda: true_time)
    assert clock.read().earliest == clock.read().earliest == true_time


def test_many_small_steps_are_found_by_a_witness(host, started):
    """Each alone would be believed."""
    clock, apart = started(lambda: host.wall - ahead), timedelta(0)
    for minutes in range(0, 60, 4):
        ahead = timedelta(minutes=minutes)
        host.passes(timedelta(minutes=11))
        host.wall += timedelta(minutes=4) if minutes else timedelta(0)
        reading = clock.advance()
        apart = max(apart, reading.earliest - (host.wall - ahead))
    assert reading.doubt is not None
    assert apart <= JUMP


def test_a_witness_that_cannot_be_asked_is_no_witness(host, started):
    def down():
        raise StoreUnavailable("down")

    started().advance()
    host.passes(timedelta(hours=1))
    assert started(down).read().doubt is None


def test_a_doubted_reading_never_moves_the_mark(host, started, tmp_path):
    clock = started()
    clock.advance()
    before = (tmp_path / "clock.json").read_bytes()
    host.wall += timedelta(days=31)
    clock.advance()
    assert (tmp_path / "clock.json").read_bytes() == before


def test_an_operator_who_vouches_ends_the_doubt_in_every_process(host, started):
    running, other = started(), started()
    running.advance()
    other.read()
    host.wall += timedelta(days=2)
    assert running.read().doubt is other.read().doubt is Doubt.JUMPED_AHEAD
    started().confirm()
    assert running.read().doubt is other.read().doubt is None


@pytest.mark.parametrize("off", [timedelta(days=-40), timedelta(days=40)], ids=["behind", "ahead"])
def test_an_operator_overrules_a_witness_and_it_still_shuts_what_it_calls_due(host, started, off):
    """It would stop destruction for ever; and who overrules wrongly opens nothing by it."""
    started().advance()
    running = started(lambda: host.wall + off)
    assert running.read().earliest == min(host.wall, host.wall + off)
    started(lambda: host.wall + off).confirm()
    assert running.read().earliest == min(host.wall, host.wall + off), "not without being told to"
    started(lambda: host.wall + off).confirm(overrule=True)
    for clock in (running, started(lambda: host.wall + off)):
        for _ in range(3):
            host.passes(timedelta(hours=20))
            reading = clock.advance()
            assert (reading.earliest, reading.latest) == (host.wall, max(host.wall, host.wall + off))
            assert reading.doubt is Doubt.WITNESS_DISAGREES, "it is said for as long as it is so"


def test_a_jump_of_the_host_is_not_covered_by_what_was_overruled(host, started):
    off = timedelta(days=-40)
    clock = started(lambda: NOON + timedelta(seconds=host.running - 1000) + off)
    clock.confirm(overrule=True)
    assert clock.advance().earliest == host.wall
    host.wall += timedelta(days=2)
    for one in (clock, started(lambda: NOON + off)):
        assert one.read().earliest <= NOON


def test_a_witness_that_agrees_again_is_overruled_no_more(host, started):
    off = timedelta(days=-40)
    started(lambda: host.wall + off).confirm(overrule=True)
    host.passes(timedelta(hours=1))
    assert started(lambda: host.wall).advance().doubt is None
    true_time = host.wall
    host.wall -= off
    assert started(lambda: true_time).read().earliest == true_time


def test_a_witness_that_cannot_be_asked_stays_overruled(host, started):
    off = timedelta(days=-40)
    started(lambda: host.wall + off).confirm(overrule=True)
    host.passes(timedelta(hours=1))
    assert started().advance().doubt is None
    assert started(lambda: host.wall + off).advance().earliest == host.wall


@pytest.mark.parametrize("jump", [timedelta(hours=3), -timedelta(hours=3)], ids=["ahead", "back"])
def test_what_arrives_while_the_host_is_wrong_never_counts_as_received_later_than_it_was(host, started, jump):
    """Footage stamped by a clock set ahead would live so much longer."""
    clock = started()
    clock.read()
    host.wall += jump
    for _ in range(3):
        host.passes(timedelta(minutes=10))
        assert clock.received() == host.wall - max(timedelta(0), jump)
        clock.read()


def test_a_witness_says_when_things_arrive_at_a_host_that_started_with_a_wrong_clock(host, started):
    host.wall += timedelta(hours=3)
    assert started(lambda: NOON).received() == NOON


def test_an_ordinary_step_of_the_host_is_followed_once_the_clock_was_read(host, started):
    clock = started()
    clock.read()
    host.wall += timedelta(seconds=5)
    assert clock.received() == NOON
    clock.read()
    assert clock.received() == host.wall


def test_a_mark_that_cannot_be_read_is_an_error_and_not_a_first_start(started, tmp_path):
    (tmp_path / "clock.json").write_text(json.dumps({"trusted": "yesterday"}))
    with pytest.raises(ConfigInvalid, match=r"mark"):
        started().read()
    assert started().confirm().doubt is None
