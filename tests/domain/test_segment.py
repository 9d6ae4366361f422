"""A segment's key says everything; spans touch and never overlap."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videostore.domain.segment import (
    EPOCH,
    MICROSECOND,
    SECOND,
    SITE_KEEP,
    KeyId,
    Segment,
    Sha256Hex,
    Span,
    capture_time,
    day_prefix,
    read_day_prefix,
    uncovered,
)

MOMENT = datetime(2026, 11, 24, 2, 28, 29, 123456, tzinfo=UTC)
moments = st.integers(365 * 86_400 * 10**6, 7 * 10**15).map(lambda count: EPOCH + count * MICROSECOND)
lengths = st.integers(1, 120_000_000).map(lambda count: count * MICROSECOND)
periods = st.sampled_from([1, 5, 60, 3600, 7200, 86_400]).map(lambda seconds: timedelta(seconds=seconds))
keeps = st.one_of(st.just(SITE_KEEP), st.integers(1, 30 * 86_400).map(lambda seconds: seconds * SECOND))
spans = st.builds(lambda start, length: Span(start, start + length), moments, lengths)
segments = st.builds(
    Segment,
    camera_id=st.uuids(),
    span=spans,
    sequence=st.integers(0, 9_999_999_999),
    key_period=periods,
    size_bytes=st.integers(1, 2**40),
    sha256=st.binary(min_size=32, max_size=32).map(lambda raw: Sha256Hex(raw.hex())),
    keep=keeps,
)


@given(segments)
def test_an_object_key_alone_gives_back_every_fact(segment):
    assert Segment.from_object_key(segment.object_key, size_bytes=segment.size_bytes) == segment


@given(segments)
def test_an_object_stands_under_its_capture_day_and_camera(segment):
    day = day_prefix(segment.span.start.date(), segment.keep)
    assert segment.object_key == f"{day}{segment.camera_id}/{segment.name}"
    start, keep = read_day_prefix(day)
    assert (start.date(), keep) == (segment.span.start.date(), segment.keep)


def test_the_object_keys_of_before_shorter_keeps_are_those_of_the_site():
    key = (
        "segments/2026-11-24/00000000-0000-0000-0000-000000000007/"
        f"20261124T022829.123456Z_000010000000_0000000042_03600_{'a' * 64}.mp4.age"
    )
    segment = Segment.from_object_key(key, size_bytes=9)
    assert (segment.object_key, segment.keep) == (key, SITE_KEEP)
    assert str(segment.key_id) == "20261124T020000Z-3600"


@given(moments, periods, keeps)
def test_a_key_id_is_read_as_it_was_written(moment, period, keep):
    key_id = KeyId.covering(moment, period, keep)
    assert KeyId.parse(str(key_id)) == key_id


@pytest.mark.parametrize(
    "text", ["20261124T020000Z", "20261124T020000Z-3600-0", "20261124T020000Z-3600-7-7", "x"]
)
def test_what_is_no_key_id_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        KeyId.parse(text)


@pytest.mark.parametrize("tail", ["00000", "03600-0000000", "03600-2592001", "99999"])
def test_no_object_names_a_key_that_cannot_be(tail):
    key = (
        "segments/2026-11-24/00000000-0000-0000-0000-000000000007/"
        f"20261124T022829.123456Z_000010000000_0000000042_{tail}_{'a' * 64}.mp4.age"
    )
    with pytest.raises(ValueError, match=r"key period|kept|contradicts"):
        Segment.from_object_key(key, size_bytes=9)


@given(segments, segments)
def test_keys_of_one_camera_and_day_sort_by_start(one, other):
    other = Segment(
        one.camera_id, other.span, other.sequence, other.key_period, other.size_bytes, other.sha256, one.keep
    )
    if one.span.start < other.span.start:
        assert one.object_key < other.object_key


@given(segments)
def test_the_hour_key_of_a_segment_covers_its_first_frame(segment):
    span = segment.key_id.span
    assert span.start <= segment.span.start < span.end


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda key: key.replace("segments/", "segment/"), id="another prefix"),
        pytest.param(lambda key: key.replace("2026-11-24/", "2026-12-24/"), id="a day later than its start"),
        pytest.param(lambda key: key.upper(), id="upper case"),
        pytest.param(lambda key: key + ".tmp", id="a suffix"),
        pytest.param(lambda key: "../" + key, id="a way out"),
        pytest.param(lambda key: key.replace("T02", "T25"), id="no such hour"),
    ],
)
def test_a_key_that_contradicts_itself_is_no_segment(change):
    segment = Segment(
        UUID(int=7),
        Span(MOMENT, MOMENT + timedelta(seconds=10)),
        42,
        timedelta(hours=1),
        9,
        Sha256Hex("ab" * 32),
    )
    with pytest.raises(ValueError, match=r"key|hour must|contradicts"):
        Segment.from_object_key(change(segment.object_key), size_bytes=9)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        pytest.param(MOMENT, MOMENT, id="empty"),
        pytest.param(MOMENT, MOMENT - MICROSECOND, id="backwards"),
        pytest.param(MOMENT.replace(tzinfo=None), MOMENT, id="naive"),
        pytest.param(
            MOMENT.astimezone(timezone(timedelta(hours=1))), MOMENT + timedelta(days=1), id="not UTC"
        ),
    ],
)
def test_no_span_is_empty_naive_or_local(start, end):
    with pytest.raises((ValueError, TypeError)):
        Span(start, end)


@given(spans, lengths)
def test_spans_that_touch_do_not_overlap(span, length):
    after = Span(span.end, span.end + length)
    assert not span.overlaps(after)
    assert span.intersection(after) is None


@given(spans, st.lists(spans, max_size=8))
def test_covered_and_uncovered_parts_make_the_whole(whole, pieces):
    holes = uncovered(whole, pieces)
    assert all(whole.contains(hole) for hole in holes)
    assert not any(hole.overlaps(piece) for hole in holes for piece in pieces)
    inside = [cut for piece in pieces if (cut := whole.intersection(piece))]
    assert not uncovered(whole, [*holes, *inside])


@given(moments, periods)
def test_every_moment_has_one_hour_key_and_its_name_reads_back(moment, period):
    key_id = KeyId.covering(moment, period)
    assert key_id.span.start <= moment < key_id.span.end
    assert key_id.next.start == key_id.span.end
    assert KeyId.parse(str(key_id)) == key_id


@pytest.mark.parametrize(
    "text", ["", "20261124T020000Z", "20261124T023000Z-3600", "20261124T020000Z-03600", "x-1"]
)
def test_what_is_not_the_name_of_an_hour_key_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        KeyId.parse(text)


@given(moments, st.integers(-(10**9), 10**9), st.integers(0, 10**8))
def test_a_camera_clock_never_extends_life_and_is_believed_only_near_the_receipt(received, offset, bound):
    claimed, limit = received + offset * MICROSECOND, bound * MICROSECOND
    counted = capture_time(claimed, received, max_offset=limit)
    assert counted <= received
    assert counted in {claimed, received}
    assert received - counted <= limit
    assert capture_time(None, received, max_offset=limit) == received
