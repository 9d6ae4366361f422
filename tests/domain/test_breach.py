"""Suspected breaches: what a person should look at, from the ledger alone."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videostore.domain.access import Reason
from videostore.domain.breach import BEYOND_PURPOSE, Hours, Suspicion, WatchPolicy, loosened, suspected
from videostore.domain.ledger import GENESIS, Event, Record

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR = (timedelta(seconds=count) for count in (1, 60, 3600))
POLICY = WatchPolicy(window=HOUR, refusals=5, out_of_purpose=3, footage=2 * HOUR, failed_logins=4)


def records(*entries):
    """Return records of (time, event, actor, body)."""
    return [
        Record(number, at, event, actor, body, GENESIS)
        for number, (at, event, actor, body) in enumerate(entries)
    ]


def refused(at, reason=Reason.NO_APPROVAL, actor="alice"):
    return at, Event.REFUSED, actor, {"action": "view", "reason": reason.value}


def served(at, length, actor="alice"):
    return at, Event.SERVED, actor, {"spans": [[at.isoformat(), (at + length).isoformat()]]}


def failed(at, name="alice"):
    return at, Event.LOGIN_REFUSED, "gate", {"staff_id": name}


KINDS = {
    Suspicion.REFUSALS: (5, refused),
    Suspicion.OUT_OF_PURPOSE: (3, lambda at: refused(at, Reason.CAMERA_NOT_GRANTED)),
    Suspicion.BULK: (4, lambda at: served(at, HOUR / 2)),
    Suspicion.GUESSING: (4, failed),
}


def found(entries, policy=POLICY):
    return [breach.suspicion for breach in suspected(records(*entries), policy)]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_too_much_in_one_window_is_a_suspicion(kind):
    count, one = KINDS[kind]
    entries = [one(NOON + number * MINUTE) for number in range(count)]
    assert found(entries[:-1]) == []
    (breach,) = suspected(records(*entries), POLICY)
    assert (breach.suspicion, breach.actor, breach.at) == (kind, "alice", entries[-1][0])
    assert breach.records == tuple(range(count))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_over_a_longer_time_is_none(kind):
    count, one = KINDS[kind]
    apart = HOUR / (count - 1) + SECOND
    assert found([one(NOON + number * apart) for number in range(3 * count)]) == []


def test_what_several_people_do_is_not_what_one_does():
    entries = [refused(NOON + number * SECOND, actor=f"officer{number}") for number in range(20)]
    assert found(entries) == []


def test_a_suspicion_is_told_once_and_the_next_begins_from_nothing():
    entries = [refused(NOON + number * SECOND) for number in range(14)]
    assert found(entries) == [Suspicion.REFUSALS] * 2


@pytest.mark.parametrize("reason", Reason)
def test_reasons_that_lie_beyond_incident_and_grant(reason):
    """What an officer may run into honestly (an expired approval, a long span) is not among them."""
    entries = [refused(NOON + number * SECOND, reason) for number in range(3)]
    assert (Suspicion.OUT_OF_PURPOSE in found(entries)) == (reason in BEYOND_PURPOSE)


@pytest.mark.parametrize(
    ("hours", "moment", "off"),
    [
        (("07:00", "19:00", "UTC"), "12:00", False),
        (("07:00", "19:00", "UTC"), "06:59", True),
        (("07:00", "19:00", "UTC"), "19:00", True),
        (("07:00", "19:00", "Europe/Zurich"), "18:30", True),
        (("22:00", "06:00", "UTC"), "23:00", False),
        (("22:00", "06:00", "UTC"), "12:00", True),
    ],
)
def test_looking_outside_working_hours(hours, moment, off):
    start, end, zone = hours
    policy = WatchPolicy(hours=Hours(time.fromisoformat(start), time.fromisoformat(end), ZoneInfo(zone)))
    at = datetime.combine(NOON.date(), time.fromisoformat(moment), tzinfo=UTC)
    entries = [(at, Event.SEARCHED, "alice", {}), (at, Event.LOGIN, "alice", {})]
    assert found(entries, policy) == ([Suspicion.OFF_HOURS] if off else [])


WATCHED = {"window_s": 3600, "refusals": 10, "hours": "07:00:00-19:00:00 UTC"}
ACCESS = {"second_person": ["export"], "break_glass": False, "max_span_s": 3600, "watch": WATCHED}


@pytest.mark.parametrize(
    ("changed", "loose"),
    [
        ({}, False),
        ({"second_person": []}, True),
        ({"second_person": ["export", "view"]}, False),
        ({"break_glass": True}, True),
        ({"max_span_s": 3601}, True),
        ({"max_span_s": 60}, False),
        ({"watch": {**WATCHED, "refusals": 11}}, True),
        ({"watch": {**WATCHED, "window_s": 60}}, True),
        ({"watch": {**WATCHED, "hours": ""}}, True),
        ({"watch": {**WATCHED, "refusals": 1, "window_s": 7200}}, False),
    ],
)
def test_a_policy_that_allows_more_or_watches_less_is_listed(changed, loose):
    then, now = ACCESS, {**ACCESS, **changed}
    entries = [(NOON, Event.ACCESS_LOADED, "gate", body) for body in (then, now)]
    assert found(entries) == [Suspicion.LOOSENED] * loose
    before_it_was_watched = {name: value for name, value in then.items() if name != "watch"}
    assert not loosened(before_it_was_watched, then)


def camera(number, name, source="a", state="enabled"):
    return {"camera_id": str(number), "name": name, "source_sha256": source, "state": state}


@pytest.mark.parametrize(
    ("bodies", "times"),
    [
        pytest.param([camera(1, "lobby"), camera(1, "lobby", state="disabled")], 0, id="disabled"),
        pytest.param([camera(1, "lobby"), camera(1, "hall")], 0, id="a name of its own"),
        pytest.param([camera(1, "lobby"), camera(1, "lobby", "b")], 1, id="comes from elsewhere"),
        pytest.param(
            [camera(1, "lobby"), camera(2, "office"), camera(1, "office"), camera(2, "lobby")],
            2,
            id="swapped",
        ),
        pytest.param([camera(1, "lobby"), camera(1, "x"), camera(2, "lobby")], 1, id="by a step between"),
        pytest.param([camera(1, "lobby", state="removed"), camera(2, "lobby")], 0, id="of a removed one"),
        pytest.param(
            [camera(1, "lobby"), camera(1, "lobby", state="removed"), camera(2, "lobby")], 0, id="replaced"
        ),
        pytest.param(
            [camera(1, "lobby"), camera(1, "lobby", state="unlisted"), camera(2, "lobby")], 1, id="new UUID"
        ),
    ],
)
def test_a_camera_that_goes_by_anothers_name_or_comes_from_elsewhere_is_listed(bodies, times):
    entries = [(NOON, Event.CAMERA_IDENTITY, "gate", body) for body in bodies]
    assert found(entries) == [Suspicion.REASSIGNED] * times


MOMENTS = st.integers(0, 7200).map(lambda seconds: NOON + seconds * SECOND)
BODIES = st.dictionaries(st.sampled_from(["reason", "staff_id"]), st.text(max_size=3), max_size=2)


@given(st.lists(st.tuples(MOMENTS, st.sampled_from(Event), st.sampled_from("ab"), BODIES)))
def test_any_ledger_can_be_watched(entries):
    ordered = sorted(entries, key=lambda entry: entry[0])
    for breach in suspected(records(*ordered), POLICY):
        assert breach.records
