"""Entry/exit records: written by doors, read by nobody but the gate, gone within 24 hours."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.premises import DAY, HOUR, MINUTE, SECOND, START, Premises
from videostore.domain.errors import KeyDestroyed, KeyUnavailable, RequestInvalid
from videostore.domain.presence import Direction, Passage, Unread, counted_from, on_premises
from videostore.domain.retention import Kind
from videostore.domain.segment import KeyId, Span
from videostore.presence.register import PresenceHolding, parse_passage
from videostore.sealing import seal


@pytest.fixture
def site(tmp_path):
    premises = Premises(tmp_path)
    premises.sweep().run()
    return premises


def passage(badge="4711", direction=Direction.ENTRY, at=START):
    return Passage(badge, "north", direction, at)


passages = st.builds(
    Passage,
    st.sampled_from(["1", "2", "3"]),
    st.sampled_from(["north", "south"]),
    st.sampled_from(Direction),
    st.datetimes().map(lambda at: at.replace(tzinfo=START.tzinfo)),
)


@given(st.lists(passages, unique_by=lambda one: (one.badge, one.read_at)))
def test_inside_is_whose_last_passage_was_an_entry(found):
    inside = {one.badge for one in on_premises(found)}
    for badge in {one.badge for one in found}:
        last = max((one for one in found if one.badge == badge), key=lambda one: one.read_at)
        assert (badge in inside) == (last.direction is Direction.ENTRY)


def test_what_was_written_is_read_in_order_and_says_who_is_inside(site):
    for one in (
        passage("2", at=START + SECOND),
        passage("1"),
        passage("1", Direction.EXIT, START + 2 * SECOND),
    ):
        site.register().record(one)
    reader = site.reader()
    found = reader.passages(Span(START, START + MINUTE))
    assert [one.badge for one in found] == ["1", "2", "1"]
    assert [one.badge for one in reader.on_premises(START + MINUTE).inside] == ["2"]
    assert [one.badge for one in reader.on_premises(START + SECOND).inside] == ["1", "2"]


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        pytest.param(lambda site, key: put(site, key, b"x"), "SealBroken", id="altered"),
        pytest.param(lambda site, key: put(site, key, sealed(site, b"[]")), "SealBroken", id="foreign"),
        pytest.param(lambda site, _: header(site).write_text("{"), "KeyUnavailable", id="header unreadable"),
    ],
)
def test_who_is_inside_is_answered_by_what_can_be_read_and_the_rest_is_said(site, harm, why):
    """People are searched for by it: one record that is damaged must not hide the others."""
    before = START - HOUR
    site.register().record(passage("1", at=before))
    (key,) = site.store.bodies
    site.register().record(passage("2"))
    harm(site, key)
    site.open()
    roll = site.reader().on_premises(START)
    assert [one.badge for one in roll.inside] == ["2"]
    assert roll.unread == [Unread(KeyId.covering(before, HOUR).start, 1, why)]


def put(site, key, body):
    site.store.bodies[key] = body, START


def sealed(site, data):
    hour = KeyId.covering(START - HOUR, HOUR)
    return seal(data, recipient=site.published(Kind.ENTRY_EXIT).recipient(hour))


def header(site):
    return site.root / Kind.ENTRY_EXIT.value / "public" / f"{KeyId.covering(START - HOUR, HOUR)}.json"


def test_nobody_inside_is_not_said_where_a_clock_in_doubt_keeps_the_records_shut(site):
    site.register().record(passage())
    site.clock.doubt_until = START + 40 * DAY
    roll = site.reader().on_premises(START)
    assert (roll.inside, [one.why for one in roll.unread]) == ([], ["KeyDestroyed"])


def test_nothing_personal_is_readable_in_the_store(site):
    site.register().record(passage("badge-of-somebody"))
    for key, (body, _) in site.store.bodies.items():
        assert "badge-of-somebody" not in key
        assert b"badge-of-somebody" not in body
        assert b"north" not in body


def test_the_register_holds_public_keys_only(site):
    register = site.register()
    assert not hasattr(register._keys, "open")


def test_no_record_is_readable_24_hours_after_it_was_read(site):
    site.register().record(passage())
    site.clock.at = START + DAY - HOUR
    assert site.reader().on_premises(START).inside != []
    site.clock.at = KeyId.covering(START, HOUR).start + DAY
    assert site.reader().on_premises(START).inside == []


@pytest.mark.parametrize("ahead", [SECOND, DAY, 400 * DAY])
def test_the_clock_of_a_door_extends_no_life(site, ahead):
    site.register().record(passage(at=START + ahead))
    (key_id,) = PresenceHolding(site.store).key_ids()
    assert key_id == KeyId.covering(START, HOUR)
    assert counted_from(START + ahead, START) == START


@pytest.mark.parametrize("late", [25 * HOUR, 400 * DAY])
def test_a_record_that_comes_after_its_deadline_is_refused_and_not_stored(site, late):
    with pytest.raises((KeyDestroyed, KeyUnavailable)):
        site.register().record(passage(at=START - late))
    assert site.store.bodies == {}


def test_entry_and_exit_has_keys_of_its_own(site):
    hour = KeyId.covering(START, HOUR)
    assert site.published(Kind.ENTRY_EXIT).recipient(hour) != site.published(Kind.VIDEO).recipient(hour)


GOOD = {"badge": "1", "door": "north", "direction": "entry", "read_at": "2026-11-24T14:00:00+01:00"}


def test_a_line_from_a_door_is_read():
    one = parse_passage(json.dumps(GOOD))
    assert (one.badge, one.direction) == ("1", Direction.ENTRY)
    assert one.read_at.isoformat() == GOOD["read_at"]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "entry",
        "[]",
        json.dumps({**GOOD, "direction": "sideways"}),
        json.dumps({**GOOD, "read_at": "2026-11-24T14:00:00"}),
        json.dumps({**GOOD, "badge": ""}),
        json.dumps({**GOOD, "badge": 1}),
        json.dumps({**GOOD, "name": "somebody"}),
        json.dumps({key: value for key, value in GOOD.items() if key != "door"}),
    ],
)
def test_a_line_that_is_no_record_is_refused(line):
    with pytest.raises(RequestInvalid, match="not an entry/exit record"):
        parse_passage(line)
