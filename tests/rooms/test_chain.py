"""The recorder's chain: whoever takes, alters, exchanges or adds a segment is found out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.catalogue import MemoryCatalogue
from tests.fakes.segment_store import MemorySegmentStore
from tests.premises import ledger_in
from videostore.check.segments import Verdict, cameras_in, sample, verify
from videostore.domain.chain import BEGINNING, CONTEXT, Item, Run, belongs, extended, fold, problem
from videostore.domain.ledger import Event
from videostore.domain.segment import KeyId, Sha256Hex, Span
from videostore.recorder.record import Record
from videostore.recorder.spool import Spool, facts_of
from videostore.recorder.upload import Uploader
from videostore.signing import SigningKey

START = datetime(2026, 11, 24, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
CAMERA = uuid4()


def segment(number, *, start=None, body=None, camera=CAMERA):
    """Return segment ``number`` of ten minutes each, and its bytes."""
    start = START + number * 10 * MINUTE if start is None else start
    sealed = body or f"sealed {number}".encode()
    span = Span(start, start + 10 * SECOND)
    key_id = KeyId.covering(start, HOUR)
    return facts_of(sealed, camera_id=camera, span=span, sequence=number, key_id=key_id), sealed


def chained(segments):
    """Return the runs that ``segments`` make."""
    runs, run = [], None
    for one in segments:
        following = extended(run, one)
        if run is not None and following.key_id != run.key_id:
            runs.append(run)
        run = following
    return [*runs, run]


# --- pure ---


@given(st.integers(1, 20))
def test_runs_hold_every_segment_once_and_go_on_where_the_one_before_ended(count):
    segments = [segment(number)[0] for number in range(count)]
    runs = chained(segments)
    assert sum(run.segments for run in runs) == count
    assert [[belongs(one, run) for run in runs].count(True) for one in segments] == [1] * count
    digest = BEGINNING
    for run in runs:
        assert run.before == digest
        digest = run.after
    assert digest == fold(BEGINNING, map(Item.of, segments))
    assert all(Run.from_json(run.to_json()) == run for run in runs)


@given(st.data(), st.integers(2, 6))
def test_whatever_is_taken_added_or_exchanged_shows(data, count):
    segments = [segment(number)[0] for number in range(count)]
    (run,) = chained(segments)
    items = [Item.of(one) for one in segments]
    assert problem(run, items) == ""
    victim = data.draw(st.integers(0, count - 1))
    other = replace(segments[victim], sha256=Sha256Hex("0" * 64))
    assert "missing" in problem(run, [*items[:victim], *items[victim + 1 :]])
    assert "exchanged" in problem(run, [*items[:victim], Item.of(other), *items[victim + 1 :]])
    assert "did not make" in problem(run, [*items, Item.of(other)])


def test_the_order_of_a_listing_does_not_matter_and_that_of_the_recording_does():
    segments = [segment(number)[0] for number in range(3)]
    (run,) = chained(segments)
    assert problem(run, [Item.of(one) for one in reversed(segments)]) == ""
    swapped = [segments[0], replace(segments[1], sequence=2), replace(segments[2], sequence=1)]
    assert problem(run, [Item.of(one) for one in swapped])


def test_a_run_tells_how_far_the_cameras_clock_lay_behind():
    run = None
    for number, behind in enumerate([None, 40, -7_200_000, 90]):
        clock = None if behind is None else timedelta(milliseconds=behind)
        run = extended(run, segment(number)[0], clock)
    assert run.clock_ms == (-7_200_000, 90)
    assert Run.from_json(run.to_json()) == run
    assert extended(None, segment(0)[0]).clock_ms is None


# --- with a spool, a store and a ledger ---


class Archive:
    """Eight segments of one camera over two hours, recorded, uploaded and written down."""

    def __init__(self, root):
        self.root = root
        self.key = SigningKey.create(root / "recorder.key")
        self.store, self.catalogue, self.ledger = MemorySegmentStore(), MemoryCatalogue(), ledger_in(root)
        self.spool = self.open_spool()
        self.segments = [self.record(number) for number in range(8)]
        self.upload()

    def open_spool(self, **how):
        return Spool(self.root / "spool", sign=lambda run: self.key.sign(run, context=CONTEXT), **how)

    def record(self, number, **how):
        facts, sealed = segment(number, **how)
        self.spool.commit(facts, sealed, groups=[])
        return facts

    def upload(self):
        Uploader(self.spool, self.store, self.catalogue, self.ledger, now=lambda: START).upload_all()

    def stored_in(self, key_id):
        """Return the last object of an hour."""
        return max(key for key in self.store.bodies if f"{key_id.start:%Y%m%dT%H}" in key)

    def verify(self, **how):
        found = verify(
            store=self.store,
            **{"records": self.ledger.records(), "public": self.key.public, "cameras": {CAMERA},
               "open_runs": self.spool.open_runs(), "pending": self.spool.pending(), **how},
        )  # fmt: skip
        return [(one.key_id.start.hour, one.verdict, one.problem) for one in found]


WHOLE = [(12, Verdict.WHOLE, ""), (13, Verdict.WHOLE, "")]


@pytest.fixture
def archive(tmp_path):
    return Archive(tmp_path)


def test_what_was_recorded_is_whole_and_its_hours_are_in_the_ledger(archive):
    assert archive.verify() == WHOLE
    assert archive.verify(open_runs=[])[0] == WHOLE[0]
    assert cameras_in(archive.store) == {CAMERA}


def test_what_waits_in_the_spool_is_part_of_it(archive):
    archive.record(8)
    assert archive.verify() == WHOLE
    assert archive.verify(pending=[])[1][1] is Verdict.BROKEN


def test_a_run_that_ends_while_it_is_looked_for_is_whole(archive):
    """Its last segment still waits when the ledger has the run already."""

    def records():
        for number in (8, 12):  # the hour key changes
            archive.record(number)
        for _, run in archive.spool.runs():
            archive.ledger.append(Event.SEGMENTS_CHAINED, actor="recorder", body=run)
        yield from archive.ledger.records()

    def waiting():
        yield from archive.spool.pending()

    assert archive.verify(records=records(), open_runs=[], pending=waiting()) == WHOLE


def test_a_run_that_ends_while_a_sample_reads_the_ledger_is_whole(archive):
    """Such are the newest hours where an import goes on: it is of hours long past."""
    numbers = [8, 12]

    def records():
        while numbers:
            archive.record(numbers.pop(0))
        for path, run in [*archive.spool.runs()]:
            archive.ledger.append(Event.SEGMENTS_CHAINED, actor="recorder", body=run)
            path.unlink()
        yield from archive.ledger.records()

    found = sample(
        records,
        archive.store,
        public=archive.key.public,
        settled=lambda *_: True,
        open_runs=[*archive.spool.open_runs()],
        pending=archive.spool.pending,
    )
    assert [(one.key_id.start.hour, one.problem) for one in found] == [(12, ""), (13, "")]


@pytest.mark.parametrize("number", [0, 3, 7])
def test_a_segment_taken_away_is_missed(archive, number):
    del archive.store.bodies[archive.segments[number].object_key]
    (problem_,) = [text for _, _, text in archive.verify() if text]
    assert "missing" in problem_


def test_altered_bytes_are_found_by_reading_them(archive):
    key = archive.segments[2].object_key
    archive.store.bodies[key] = b"other bytes", START
    assert archive.verify(content=False) == WHOLE
    assert "bytes of 1 of 6" in archive.verify()[0][2]


def test_a_segment_with_a_hash_of_its_own_is_found_in_the_listing(archive):
    forged, body = segment(2, body=b"forged")
    del archive.store.bodies[archive.segments[2].object_key]
    archive.store.bodies[forged.object_key] = body, START
    assert "exchanged" in archive.verify(content=False)[0][2]


@pytest.mark.parametrize("number", [1, 3])
def test_a_segment_that_no_recorder_made_is_found(archive, number):
    forged, body = segment(number, start=START + number * 10 * MINUTE + MINUTE, body=b"forged")
    archive.store.bodies[forged.object_key] = body, START
    assert [text for _, _, text in archive.verify() if text]


def test_no_number_hides_a_segment_that_no_recorder_made_in_an_hour_that_is_chained(archive):
    forged, body = segment(9_999_999_999, start=START + 25 * MINUTE, body=b"forged")
    archive.store.bodies[forged.object_key] = body, START
    assert (12, Verdict.BROKEN, "1 segments are there that no recorder chained") in archive.verify()


def test_footage_of_another_camera_does_not_pass_for_this_ones(archive):
    other = uuid4()
    stranger, body = segment(1, camera=other)
    archive.store.bodies[stranger.object_key] = body, START
    assert archive.verify() == WHOLE
    assert "no recorder" in archive.verify(cameras={other})[0][2]


def test_a_run_that_somebody_else_signed_is_not_believed(archive):
    somebody = SigningKey.create(archive.root / "somebody.key")
    assert {verdict for _, verdict, _ in archive.verify(public=somebody.public)} == {Verdict.BROKEN}


@pytest.mark.parametrize("chance", [0, 1])
def test_a_sample_of_hours_finds_what_is_wrong_in_them_by_two_listings(archive, chance):
    """The newest, and others by chance: of twelve hours four are looked at, and nothing is read."""
    for number in range(8, 80):
        archive.record(number)
    archive.upload()
    hours = [KeyId.covering(START + hour * HOUR, HOUR) for hour in range(13)]
    listed = []
    objects = archive.store.objects

    def counted(prefix=""):
        listed.append(prefix)
        return objects(prefix)

    archive.store.objects = counted

    def sampled(**how):
        found = sample(
            archive.ledger.records,
            archive.store,
            settled=lambda _, key_id: key_id != hours[11],
            size=2,
            chance=Random(chance),
            **{"public": archive.key.public, "pending": archive.spool.pending, **how},
        )
        return {one.key_id: one.problem for one in found}

    whole = sampled()
    assert {hours[10], hours[12]} <= whole.keys()
    assert hours[11] not in whole
    assert len(listed) == len(whole) in {3, 4}
    assert not any(whole.values())
    assert {*sampled(public="ed25519:" + "0" * 64).values()} == {"the recorder did not sign this"}
    stranger, body = segment(9_999_999_999, start=hours[10].start + MINUTE, body=b"of another camera")
    archive.store.bodies[stranger.object_key] = body, START
    del archive.store.bodies[archive.stored_in(hours[12])]
    altered = sampled()
    assert altered[hours[10]] == "1 segments are there that no recorder chained"
    assert "1 of 6 segments are missing" in altered[hours[12]]
    assert sum(map(bool, altered.values())) == 2


def test_an_hour_that_was_lawfully_deleted_is_not_missed(archive):
    for one in archive.segments[:6]:
        del archive.store.bodies[one.object_key]
    found = archive.verify(destroyed={KeyId.covering(START, HOUR)})
    assert found == [(12, Verdict.DELETED, ""), WHOLE[1]]


def test_what_was_deleted_with_a_certificate_before_its_key_is_not_missed_unless_some_of_it_is_there(archive):
    body = {"camera_id": str(CAMERA), "key_id": str(KeyId.covering(START, HOUR))}
    archive.ledger.append(Event.CERTIFICATE, actor="retention", body=body)
    for one in archive.segments[1:6]:
        del archive.store.bodies[one.object_key]
    assert archive.verify()[0][1] is Verdict.BROKEN
    del archive.store.bodies[archive.segments[0].object_key]
    assert archive.verify() == [(12, Verdict.DELETED, ""), WHOLE[1]]


def test_the_chain_goes_on_after_a_restart_and_after_a_crash_at_any_step(archive, monkeypatch):
    archive.spool = archive.open_spool()
    archive.record(8)
    monkeypatch.setattr(Record, "reaches", lambda *_: None)  # the power fails before the note is written
    archive.record(9)
    monkeypatch.undo()
    archive.spool = archive.open_spool()
    archive.spool.recover()
    archive.record(10)
    archive.upload()
    assert archive.verify() == WHOLE
    assert archive.spool.progress(CAMERA).next_sequence == 11


def test_groups_that_a_crash_left_are_chained_when_they_become_segments(archive):
    for at in range(3):
        facts, sealed = segment(8, start=START + HOUR + 30 * MINUTE + at * SECOND, body=b"group %d" % at)
        archive.spool.keep_group(
            replace(facts, span=Span(facts.span.start, facts.span.start + SECOND)), sealed
        )
    archive.spool = archive.open_spool()
    assert archive.spool.recover() == 3
    archive.record(9)
    archive.upload()
    assert archive.verify() == WHOLE


def test_footage_given_up_for_want_of_room_is_on_record_and_not_missed(archive):
    size = len(segment(10)[1])
    archive.spool = archive.open_spool(limit_bytes=3 * size)
    for number in range(8, 12):
        archive.record(number)
    archive.upload()
    assert archive.verify() == WHOLE
    assert len(list(archive.store.objects())) == 8 + 3


def test_a_recorder_whose_disk_was_lost_begins_anew_and_that_is_said(archive):
    archive.spool = Spool(archive.root / "new", sign=lambda run: archive.key.sign(run, context=CONTEXT))
    archive.record(12)
    assert [(hour, text) for hour, _, text in archive.verify() if text] == [
        (14, "the chain does not go on where the run before ended"),
        (13, "2 segments are there that no recorder chained"),
    ]
