"""Thirty days to the microsecond: deadlines only shorten, and no policy can ask for more."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.domain.test_segment import moments, segments
from videostore.domain.errors import ConfigInvalid, KeepTooLong
from videostore.domain.retention import CEILING, Kind, Reason, RetentionPolicy, hash_of_segments
from videostore.domain.segment import MICROSECOND, SITE_KEEP, KeyId

HOUR = timedelta(hours=1)
POLICY = RetentionPolicy(Kind.VIDEO, timedelta(days=30), timedelta(minutes=15), HOUR)
NOON = KeyId(datetime(2026, 11, 24, 12, tzinfo=UTC), HOUR)


@pytest.mark.parametrize(
    ("age", "reason"),
    [
        pytest.param(timedelta(0), Reason.WITHIN_RETENTION, id="just captured"),
        pytest.param(
            timedelta(days=30) - POLICY.lead - MICROSECOND, Reason.WITHIN_RETENTION, id="a tick early"
        ),
        pytest.param(timedelta(days=30) - POLICY.lead, Reason.PAST_RETENTION, id="exactly due"),
        pytest.param(timedelta(days=30), Reason.PAST_RETENTION, id="at the deadline"),
    ],
)
def test_an_hour_is_due_when_its_first_frame_could_be_thirty_days_old_less_the_lead(age, reason):
    verdict = POLICY.judge(NOON, now=NOON.start + age)
    assert verdict.reason is reason
    assert verdict.deadline == NOON.start + timedelta(days=30)


@pytest.mark.parametrize("kind", list(Kind))
def test_no_policy_may_keep_longer_than_paragraph_27_allows(kind):
    RetentionPolicy(kind, CEILING[kind], timedelta(0), HOUR)
    with pytest.raises(KeepTooLong, match="A/RES/61/263, paragraph 27"):
        RetentionPolicy(kind, CEILING[kind] + MICROSECOND, timedelta(0), HOUR)


def test_the_ceilings_are_those_of_the_resolution():
    assert {Kind.VIDEO: timedelta(days=30), Kind.ENTRY_EXIT: timedelta(hours=24)} == CEILING


@pytest.mark.parametrize(
    ("keep", "lead", "period"),
    [
        pytest.param(timedelta(0), timedelta(0), HOUR, id="keep nothing"),
        pytest.param(timedelta(days=1), -MICROSECOND, HOUR, id="negative lead"),
        pytest.param(timedelta(days=1), timedelta(0), timedelta(0), id="no period"),
        pytest.param(timedelta(hours=2), HOUR, HOUR, id="due before the hour is over"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(keep, lead, period):
    with pytest.raises(ConfigInvalid):
        RetentionPolicy(Kind.VIDEO, keep, lead, period)


LOBBY, ENTRANCE = UUID(int=1), UUID(int=2)
WEEK = timedelta(days=7)
SHORTER = replace(POLICY, shorter={ENTRANCE: WEEK})


def test_a_camera_that_is_kept_for_less_has_keys_that_say_so():
    assert SHORTER.series == [SITE_KEEP, WEEK]
    assert SHORTER.key_id(LOBBY, NOON.start) == NOON
    assert SHORTER.deadline(NOON) == NOON.start + timedelta(days=30)
    short = SHORTER.key_id(ENTRANCE, NOON.start)
    assert str(short) == "20261124T120000Z-3600-604800"
    assert SHORTER.deadline(short) == NOON.start + WEEK
    assert POLICY.deadline(short) == NOON.start + WEEK, "also when the policy names the camera no more"


def test_footage_from_before_a_camera_was_kept_for_less_goes_by_the_shorter_keep():
    assert SHORTER.deadline(NOON, camera_id=ENTRANCE) == NOON.start + WEEK
    assert SHORTER.judge(NOON, now=NOON.start + WEEK, camera_id=ENTRANCE).due
    assert not SHORTER.judge(NOON, now=NOON.start + WEEK, camera_id=LOBBY).due
    assert not SHORTER.judge(NOON, now=NOON.start + WEEK).due, "the key is that of other cameras too"


@pytest.mark.parametrize(
    "keep",
    [
        pytest.param(timedelta(days=30), id="not shorter"),
        pytest.param(timedelta(hours=1), id="due before its hour is over"),
        pytest.param(timedelta(days=2, milliseconds=1), id="no whole second"),
    ],
)
def test_a_shorter_keep_that_makes_no_sense_is_refused(keep):
    with pytest.raises(ConfigInvalid):
        replace(POLICY, shorter={ENTRANCE: keep})


keeps = st.integers(3, 30 * 24).map(lambda hours: timedelta(hours=hours))


@given(segments, keeps, st.integers(0, 10**13))
def test_no_frame_is_ever_older_than_keep_at_its_deadline(segment, keep, later):
    policy = RetentionPolicy(Kind.VIDEO, keep, timedelta(0), timedelta(hours=1))
    deadline = policy.deadline(segment.key_id)
    assert deadline <= segment.span.start + min(keep, segment.keep or keep)
    assert policy.judge(segment.key_id, now=deadline + later * MICROSECOND).due


@given(moments, keeps, keeps, st.integers(0, 31 * 24 * 3600))
def test_tightening_reaches_existing_footage_and_loosening_never_does(moment, before, after, age):
    key_id = KeyId.covering(moment, HOUR)
    old, new = (RetentionPolicy(Kind.VIDEO, keep, timedelta(0), HOUR) for keep in (before, after))
    verdict = new.judge(key_id, now=moment + timedelta(seconds=age), promised=old.deadline(key_id))
    assert verdict.deadline == min(old.deadline(key_id), new.deadline(key_id))


@given(moments, st.integers(0, 10**12), st.integers(0, 10**12))
def test_what_is_due_stays_due(moment, first, second):
    key_id = KeyId.covering(moment, HOUR)
    early, late = (moment + count * MICROSECOND for count in sorted((first, second)))
    assert POLICY.judge(key_id, now=late).due >= POLICY.judge(key_id, now=early).due


@given(st.lists(segments, min_size=1, max_size=6))
def test_the_hash_of_segments_does_not_depend_on_their_order(group):
    assert hash_of_segments(group) == hash_of_segments(reversed(group))
    assert hash_of_segments(group) != hash_of_segments(group[1:])
