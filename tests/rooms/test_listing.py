"""What an auditor derives from a listing agrees with the rule, and needs nothing but the listing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.domain.test_segment import segments
from tests.premises import DAY, HOUR, MINUTE, START, Premises
from videostore.check.invariants import check_listing, keeps_of
from videostore.check.listing import Keeps, look
from videostore.domain.presence import Direction, Passage
from videostore.domain.retention import Kind, RetentionPolicy
from videostore.domain.segment import MICROSECOND, ObjectKey
from videostore.ports import StoredObject

POLICY = RetentionPolicy(Kind.VIDEO, 30 * DAY, timedelta(0), HOUR)


def stored(key, at=START):
    return StoredObject(ObjectKey(key), 1, at)


@given(segments, st.integers(-2, 2), st.integers(3, 29))
def test_two_ways_to_the_deadline_give_the_same(segment, seconds, days):
    """The rule of the sweep, and arithmetic that shares no line with it."""
    policy = replace(POLICY, shorter={segment.camera_id: days * DAY})
    entry_exit = RetentionPolicy(Kind.ENTRY_EXIT, DAY, timedelta(0), HOUR)
    deadline = policy.deadline(segment.key_id, camera_id=segment.camera_id)
    now = deadline + timedelta(seconds=seconds)
    keeps = keeps_of({Kind.VIDEO: policy, Kind.ENTRY_EXIT: entry_exit})
    found = look([stored(segment.object_key)], keeps=keeps, now=now)
    assert bool(found.overdue) == (now >= deadline)
    assert found.boastful_count == found.strangers == 0


def test_a_live_store_is_judged_by_its_listing_alone(tmp_path):
    site = Premises(tmp_path)
    site.sweep().run()
    site.record()
    short = site.record(camera=uuid4())
    site.register().record(Passage("4711", "north", Direction.ENTRY, START))
    keeps = Keeps(cameras_s={str(short.camera_id): 7 * 86_400})

    def overdue(age):
        (younger, honest) = check_listing(site.store, keeps, START.replace(minute=0) + age)
        assert honest.holds
        return len(younger.evidence)

    assert overdue(DAY - MICROSECOND) == 0
    assert overdue(DAY) == 1, "the entry record"
    assert overdue(7 * DAY) == 2, "the camera that is kept for a week"
    assert overdue(30 * DAY - MICROSECOND) == 2
    assert overdue(30 * DAY) == 3


@pytest.mark.parametrize(
    ("key", "count"),
    [
        pytest.param("face.jpg", "strangers", id="a name that says nothing"),
        pytest.param("presence/2026-11-24/today/x.age", "strangers", id="a record without an hour"),
        pytest.param("DAY-2592001/CAMERA/START_03600-2592001_HASH.mp4.age", "boastful_count", id="too long"),
        pytest.param("DAY/CAMERA/START_03600-0604800_HASH.mp4.age", "boastful_count", id="two keeps"),
        pytest.param("DAY/CAMERA/START_00000_HASH.mp4.age", "boastful_count", id="no period"),
    ],
)
def test_what_a_name_may_not_say(key, count):
    words = {
        "DAY": "segments/2026-11-24", "CAMERA": str(UUID(int=7)), "HASH": "a" * 64,
        "START": "20261124T123000.000000Z_000010000000_0000000001",
    }  # fmt: skip
    for word, text in words.items():
        key = key.replace(word, text)
    found = look([stored(key)], keeps=Keeps(), now=START + MINUTE)
    assert (getattr(found, count), found.overdue) == (1, [])
    assert look([stored(key)], keeps=Keeps(), now=START + 30 * DAY).overdue == [key]
