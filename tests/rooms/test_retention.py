"""Retention: what is due goes, whatever is down and wherever the power fails; what is not due stays."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from threading import Event as Stop
from uuid import uuid4

import pytest

from tests.fakes.clock import SettableClock
from tests.fakes.segment_store import MemorySegmentStore
from tests.premises import DAY, HOUR, LOBBY, MINUTE, SECOND, START, Premises
from videostore import telemetry
from videostore.catalogue.sql import SqlCatalogue
from videostore.check.certificate import verify_certificate
from videostore.check.invariants import check
from videostore.check.subject import Subject
from videostore.domain.chain import CONTEXT, extended
from videostore.domain.errors import KeyDestroyed, LedgerUnavailable, PromiseBroken, StoreUnavailable
from videostore.domain.ledger import Event, canonical
from videostore.domain.presence import Direction, Passage, Roll
from videostore.domain.retention import Kind
from videostore.domain.segment import MICROSECOND, Gap, GapReason, KeyId, ObjectKey, Span
from videostore.recorder.spool import Spool, facts_of
from videostore.retention import reconcile
from videostore.retention.pace import Pace
from videostore.retention.plan import plan
from videostore.retention.service import RetentionService
from videostore.sealing import new_identity

KEY = KeyId.covering(START, HOUR)


@pytest.fixture
def site(tmp_path):
    premises = Premises(tmp_path)
    premises.sweep().run()
    return premises


def due(site):
    site.clock.at = site.policies[Kind.VIDEO].due_at(KEY)


def test_a_microsecond_before_it_is_due_everything_stays_and_then_everything_goes(site):
    segments = [site.record(number) for number in range(3)]
    due(site)
    site.clock.at -= MICROSECOND
    report = site.sweep().run()
    assert report.segments_deleted == 0
    assert site.keyrings[Kind.VIDEO].open(KEY, site.store.get(segments[0].object_key)) == b"a movie"
    due(site)
    report = site.sweep().run()
    assert (report.segments_condemned, report.segments_deleted, report.errors) == (3, 3, [])
    assert site.store.bodies == {}
    assert site.catalogue.rows == {}
    with pytest.raises(KeyDestroyed):
        site.published().recipient(KEY)


def test_what_is_gone_has_one_certificate_for_each_camera_and_hour(site):
    other = uuid4()
    segments = [site.record(number) for number in range(3)] + [site.record(0, camera=other)]
    due(site)
    site.sweep().run()
    certificates = site.events(Event.CERTIFICATE)
    assert {body["camera_id"] for body in certificates} == {str(LOBBY), str(other)}
    (body,) = [body for body in certificates if body["camera_id"] == str(LOBBY)]
    assert body["segments"] == 3
    assert body["span"] == [segments[0].span.start.isoformat(), segments[2].span.end.isoformat()]
    assert body["key_destroyed_at"] == site.clock.at.isoformat()
    assert body["recipient"].startswith("age1")


def test_a_second_pass_finds_nothing_to_do(site):
    site.record()
    due(site)
    site.sweep().run()
    before = list(site.ledger.records())
    report = site.sweep().run()
    assert report.segments_deleted == report.segments_condemned == len(report.keys_destroyed) == 0
    assert list(site.ledger.records()) == before


@pytest.mark.parametrize("down", ["store", "catalogue"])
def test_keys_are_destroyed_on_time_whatever_else_is_down_and_the_bytes_follow(site, down):
    segment = site.record()
    sealed = site.store.get(segment.object_key)
    getattr(site, down).down = True
    due(site)
    report = site.sweep().run()
    assert report.errors
    with pytest.raises(KeyDestroyed):
        site.keyrings[Kind.VIDEO].open(KEY, sealed)
    assert site.events(Event.CERTIFICATE) == []
    getattr(site, down).down = False
    assert site.sweep().run().errors == []
    assert site.store.bodies == {}
    assert len(site.events(Event.CERTIFICATE)) == 1


def test_a_store_that_says_deleted_and_keeps_the_object_is_not_certified(site):
    kept, gone = site.record(0), site.record(1)
    site.store.keeps = {kept.object_key}
    due(site)
    report = site.sweep().run()
    assert report.errors == [f"delete: {kept.object_key} is still there"]
    assert site.events(Event.CERTIFICATE) == []
    site.store.keeps = set()
    site.sweep().run()
    (body,) = site.events(Event.CERTIFICATE)
    assert body["segments"] == 2
    assert gone.object_key not in site.store.bodies


def test_a_store_that_refuses_one_deletion_is_quoted_and_does_the_others(site):
    kept, gone = site.record(0), site.record(1)
    site.store.refuses = {kept.object_key}
    due(site)
    assert site.sweep().run().errors == [f"delete: {kept.object_key} is still there: refused"]
    assert site.catalogue.absent(KEY) == [gone]
    assert site.events(Event.CERTIFICATE) == []
    assert on_their_way_out() == {"condemned": 1, "absent": 1}
    site.store.refuses = set()
    site.sweep().run()
    assert on_their_way_out() == {"condemned": 0, "absent": 0}


def on_their_way_out():
    return {state: int(gauge._value.get()) for (state,), gauge in telemetry.CONDEMNED._metrics.items()}


def test_objects_that_the_catalogue_does_not_know_go_by_the_age_in_their_key(site):
    unknown = site.record(0, camera=uuid4(), known=False)
    site.sweep().run()
    assert unknown.object_key in site.store.bodies
    due(site)
    site.sweep().run()
    assert site.store.bodies == {}
    assert len(site.events(Event.CERTIFICATE)) == 1


def test_an_object_whose_key_says_nothing_goes_by_its_receipt(site):
    """Up to a day early, because the round over the whole store comes once a day."""
    root = ObjectKey("face.jpg")
    site.store.bodies[root] = b"?", START
    stranger = ObjectKey("segments/2026-11-24/thumbnails/face.jpg")
    site.store.bodies[stranger] = b"?", START
    elsewhere = ObjectKey("quarantine/face.jpg")
    site.store.bodies[elsewhere] = b"?", START
    site.clock.at = START + 29 * DAY - 15 * MINUTE - MICROSECOND
    site.sweep().run()
    assert set(site.store.bodies) == {root, stranger, elsewhere}
    site.clock.at = START + 29 * DAY - 15 * MINUTE
    assert site.sweep().run().strangers_deleted == 3
    assert site.store.bodies == {}


def test_a_row_whose_object_is_missing_is_certified_absent(site):
    segment = site.record()
    del site.store.bodies[segment.object_key]
    due(site)
    assert site.sweep().run().errors == []
    assert site.catalogue.rows == {}


UNTRUE = [
    "object_key = 'x'",
    "camera_id = 'x'",
    "camera_id = '00000000-0000-0000-0000-000000000001'",
    "start_us = 'x'",
    "start_us = 9e18",
    "start_us = start_us - 7200000000",
    "start_us = end_us + 1",
    "end_us = 'x'",
    "end_us = end_us + 864000000000",
    "end_us = start_us - 5",
    "key_start_us = 'x'",
    "key_start_us = 9e18",
    "key_start_us = 250000000000000000",
    "key_start_us = key_start_us + 1",
    "key_start_us = key_start_us + 0.5",
    "key_start_us = key_start_us - 3600000000 * 24 * 40",
    "key_start_us = key_start_us + 3600000000 * 24 * 400",
    "key_period_s = 0",
    "key_period_s = 60",
    "key_keep_s = -1",
    "key_keep_s = 60",
    "key_keep_s = 2592000",
    "size_bytes = 'x'",
    "size_bytes = size_bytes + 0.5",
    "state = 7",
    "state = -1",
    "state = 'x'",
]
"""What a row can be made to say that its object key does not. SQLite takes text for a number, and halves."""


def write_into_rows(site, segments, said):
    with closing(sqlite3.connect(site.root / "catalogue.db")) as database, database:
        for segment, one in zip(segments, said, strict=False):
            database.execute(f"UPDATE segments SET {one} WHERE object_key = ?", [segment.object_key])


def test_nothing_that_somebody_writes_into_rows_saves_footage_or_takes_it_early(site):
    """Nor does it hold up anything else; and `check` tells it."""
    site.catalogue = SqlCatalogue.open(f"sqlite:///{site.root}/catalogue.db")
    segments = [site.record(number) for number in range(len(UNTRUE) + 3)]
    other = site.record(camera=uuid4())
    write_into_rows(site, segments, [*UNTRUE, "state = 1", "state = 2", "size_bytes = 1"])
    rows, there, early = (
        next(finding for finding in check(subject(site)) if about in finding.question)
        for about in ("row of the catalogue", "catalogued segment", "condemned")
    )
    assert (rows.holds, rows.answer.split()[0]) == (False, str(len(UNTRUE)))
    assert (there.holds, there.evidence) == (False, [segments[-1].object_key])
    assert (early.holds, early.evidence) == (False, [f"2 segments of {LOBBY} in {KEY}"])
    assert site.catalogue.footage([LOBBY], Span(START - DAY, START + DAY))
    before = dict(site.store.bodies)
    sweep = site.sweep()
    assert set(sweep.run().errors) == {f"delete: {LOBBY} in {KEY} is condemned, and not due yet"}
    assert (site.store.bodies, site.events(Event.CERTIFICATE)) == (before, [])
    due(site)
    write_into_rows(site, segments, [one.replace("'x'", "'y'") for one in UNTRUE])
    report = sweep.run()
    assert (report.errors, site.store.bodies) == ([], {})
    assert KEY in {key.key_id for key in report.keys_destroyed}
    assert {body["camera_id"]: body["segments"] for body in site.events(Event.CERTIFICATE)} == {
        str(LOBBY): len(segments),
        str(other.camera_id): 1,
    }
    site.catalogue.close()


def test_an_altered_row_of_a_camera_that_is_kept_for_less_holds_up_no_sweep(site):
    site.catalogue = SqlCatalogue.open(f"sqlite:///{site.root}/catalogue.db")
    said = ["key_start_us = key_start_us + 0.5", "state = 'x'"]
    segments = [site.record(number) for number in range(len(said) + 1)]
    keep_shorter(site, LOBBY)
    write_into_rows(site, segments, said)
    site.clock.at = KEY.start + WEEK - MINUTE
    report = site.sweep(catalogue=_AskedSeldom(site.catalogue)).run()
    assert (report.errors, report.segments_deleted, site.store.bodies) == ([], len(segments), {})
    site.catalogue.close()


def test_an_altered_row_whose_object_is_gone_stays_no_longer_than_it_may(site):
    """Whatever key and camera it was put under, and whether or not that key is due."""
    site.catalogue = SqlCatalogue.open(f"sqlite:///{site.root}/catalogue.db")
    said = [
        "state = 1, key_start_us = key_start_us - 3600000000",
        "state = 2, key_start_us = key_start_us + 3600000000",
        f"state = 1, camera_id = '{uuid4()}'",
    ]
    gone = [site.record(number) for number in range(len(said))]
    write_into_rows(site, gone, said)
    for segment in gone:
        del site.store.bodies[segment.object_key]
    due(site)
    reports = [site.sweep().run() for _ in range(2)]
    assert [report.errors for report in reports] == [[], []]
    assert (site.catalogue.leaving(), site.catalogue.live()) == ({}, [])
    assert sum(body["segments"] for body in site.events(Event.CERTIFICATE)) == len(gone)
    site.catalogue.close()


class _AskedSeldom:
    """A catalogue that breaks who asks it for the oldest key again and again."""

    def __init__(self, catalogue):
        self._catalogue, self._left = catalogue, 10

    def __getattr__(self, name):
        return getattr(self._catalogue, name)

    def oldest_key(self, camera_id):
        self._left -= 1
        assert self._left, "without an end"
        return self._catalogue.oldest_key(camera_id)


def test_the_spool_is_emptied_of_what_is_due(site):
    body = b"sealed"
    due_segment, young = (
        facts_of(body, camera_id=LOBBY, span=Span(start, start + SECOND), sequence=0,
                 key_id=KeyId.covering(start, HOUR))
        for start in (START, START + HOUR)
    )  # fmt: skip
    for segment in (due_segment, young):
        site.spool.commit(segment, body, groups=[])
    due(site)
    assert site.sweep().run().copies_removed == 1
    assert site.spool.pending() == [young]


def test_entry_and_exit_records_are_gone_before_24_hours(site):
    site.register().record(Passage("4711", "north", Direction.ENTRY, START))
    assert [one.badge for one in site.reader().on_premises(START).inside] == ["4711"]
    site.clock.at = KEY.start + 24 * HOUR - 15 * MINUTE
    site.sweep().run()
    assert not [key for key in site.store.bodies if key.startswith("presence/")]
    assert site.reader().on_premises(START) == Roll([], [])


def test_tightening_reaches_what_is_stored_and_loosening_gives_nothing_back(site):
    site.record()
    long = site.policies[Kind.VIDEO]
    site.policies[Kind.VIDEO] = replace(long, keep=2 * DAY)
    site.sweep().run()
    site.policies[Kind.VIDEO] = long
    site.clock.at = KEY.start + 2 * DAY - 15 * MINUTE
    assert site.sweep().run().segments_deleted == 1


WEEK = 7 * DAY


def keep_shorter(site, camera):
    site.policies[Kind.VIDEO] = replace(site.policies[Kind.VIDEO], shorter={camera: WEEK})
    site.sweep().run()


def test_a_camera_that_is_kept_for_longer_again_gets_nothing_back(site):
    """Nor does one that the policy names no more."""
    entrance = uuid4()
    before, other = site.record(camera=entrance), site.record()
    unknown = site.record(1, camera=entrance, known=False)
    keep_shorter(site, entrance)
    site.policies[Kind.VIDEO] = replace(site.policies[Kind.VIDEO], shorter={})
    site.clock.passes(HOUR)
    site.sweep().run()
    site.clock.passes(HOUR)
    after = site.record(camera=entrance, start=site.clock.at)
    site.open()
    site.clock.at = KEY.start + WEEK - 15 * MINUTE - MICROSECOND
    assert site.sweep().run().segments_deleted == 0
    site.clock.at += MICROSECOND
    assert site.sweep().run().segments_deleted == 2
    assert set(site.store.bodies) == {other.object_key, after.object_key}
    assert site.store.bodies.keys().isdisjoint({before.object_key, unknown.object_key})
    (body,) = site.events(Event.CERTIFICATE)
    assert body["deadline"] == (KEY.start + WEEK).isoformat()


def test_a_camera_that_is_kept_for_less_goes_with_its_key_and_the_others_stay(site):
    entrance = uuid4()
    keep_shorter(site, entrance)
    short, long = site.record(camera=entrance), site.record()
    sealed = site.store.get(short.object_key)
    site.clock.at = KEY.start + WEEK - 15 * MINUTE - MICROSECOND
    assert site.sweep().run().segments_deleted == 0
    assert site.keyrings[Kind.VIDEO].open(short.key_id, sealed) == b"a movie"
    site.clock.at += MICROSECOND
    assert site.sweep().run().segments_deleted == 1
    assert list(site.store.bodies) == [long.object_key]
    with pytest.raises(KeyDestroyed):
        site.keyrings[Kind.VIDEO].open(short.key_id, sealed)
    (body,) = site.events(Event.CERTIFICATE)
    assert body["key_destroyed_at"] == site.clock.at.isoformat()


def test_footage_from_before_a_camera_was_kept_for_less_goes_by_the_shorter_keep(site):
    entrance = uuid4()
    before, other = site.record(camera=entrance), site.record()
    keep_shorter(site, entrance)
    site.clock.at = KEY.start + WEEK - 15 * MINUTE
    assert site.sweep().run().segments_deleted == 1
    assert list(site.store.bodies) == [other.object_key]
    assert before.key_id == other.key_id
    (body,) = site.events(Event.CERTIFICATE)
    assert body["key_destroyed_at"] is None, "the other camera's footage is sealed to it"
    assert verify_certificate(subject(site), body["id"])["segments"] == 1
    site.clock.at = KEY.start + 30 * DAY
    with pytest.raises(PromiseBroken, match="not destroyed"):
        verify_certificate(subject(site), body["id"])


def test_what_is_kept_for_less_and_cannot_be_deleted_is_overdue_by_the_shorter_keep(site):
    kept = site.record()
    keep_shorter(site, LOBBY)
    site.store.keeps = {kept.object_key}
    site.clock.at = KEY.start + WEEK - MINUTE
    site.sweep().run()
    assert telemetry.OVERDUE._value.get() == 0
    site.clock.at = KEY.start + WEEK
    site.sweep().run()
    assert telemetry.OVERDUE._value.get() == 1


def test_the_spool_is_emptied_of_what_a_camera_that_is_kept_for_less_left_under_a_longer_key(site):
    site.spool = Spool(site.root / "spool", kept=lambda *of: site.policies[Kind.VIDEO].less_of(*of))
    lobby, other = (
        facts_of(b"sealed", camera_id=one, span=Span(START, START + SECOND), sequence=0, key_id=KEY)
        for one in (LOBBY, uuid4())
    )
    for segment in (lobby, other):
        site.spool.commit(segment, b"sealed", groups=[])
    keep_shorter(site, LOBBY)
    site.clock.at = KEY.start + WEEK - 15 * MINUTE
    assert site.sweep().run().copies_removed == 1
    assert site.spool.pending() == [other]


def subject(site):
    own = {name: getattr(site, name) for name in ("keyrings", "clock", "store", "catalogue")}
    return Subject(
        **own, policies=site.in_force(), holdings={}, ledger=site.ledger, verify_ledger=lambda: ((), 0)
    )


def test_a_check_names_segments_that_have_lost_their_row(site):
    lost, stray = site.record(0).object_key, ObjectKey("segments/2026-11-24/what.txt")
    site.store.bodies.update(dict.fromkeys((lost, stray), (b"?", START)))
    del site.catalogue.rows[lost]

    def asked():
        (finding,) = [one for one in check(subject(site)) if "for days" in one.question]
        return finding.holds, [*finding.evidence]

    assert asked() == (True, [])
    site.clock.passes(3 * DAY + SECOND)
    assert asked() == (False, [lost])
    site.store.down = True
    assert asked() == (False, [])
    site.store.down = False
    due(site)
    assert asked() == (True, []), "it is on its way out"


def chain(site, segments):
    run = None
    for segment in segments:
        run = extended(run, segment)
    signature = site.key.sign(run.to_json(), context=CONTEXT)
    body = {**run.to_json(), "signature": signature}
    site.ledger.append(Event.SEGMENTS_CHAINED, actor="recorder", body=body)


def test_what_falls_due_while_a_check_goes_on_is_no_finding(site):
    """It takes hours where millions are stored."""
    segments = [site.record(number) for number in range(3)]
    chain(site, segments)
    keep_shorter(site, LOBBY)
    site.clock.at = KEY.start + WEEK - 3 * HOUR

    def swept_meanwhile():
        yield from [*site.store.remains()]
        site.clock.at = KEY.start + WEEK - MINUTE
        del site.catalogue.rows[segments[0].object_key]
        site.catalogue.condemn_these([one.object_key for one in segments[1:]])
        site.store.delete([one.object_key for one in segments])

    store = _Listed(site.store, swept_meanwhile)
    busy = replace(subject(site), store=store, recorder=lambda: site.key.public)
    about = "for days", "condemned", "chained them"
    findings = [one for one in check(busy) if any(words in one.question for words in about)]
    assert [one.holds for one in findings] == [True] * 3


def test_a_check_asks_by_name_only_for_what_no_listing_shows(site):
    """An object at a time it would take a day where millions are stored."""
    segments = [site.record(number) for number in range(0, 1000, 100)]
    asked, size = [], site.store.size

    def counted(key):
        asked.append(key)
        return size(key)

    site.store.size = counted
    lost, altered = (segments[number].object_key for number in (3, 7))
    del site.store.bodies[lost]
    site.store.bodies[altered] = b"?", START
    (finding,) = [one for one in check(subject(site)) if "catalogued segment" in one.question]
    assert (finding.holds, finding.answer[:2], finding.evidence) == (False, "2 ", [lost, altered])
    assert asked == [lost, altered]


class _Listed:
    """A store that is listed by ``remains``."""

    def __init__(self, store, remains):
        self._store, self.remains = store, remains

    def __getattr__(self, name):
        return getattr(self._store, name)


def test_a_check_compares_hours_with_what_the_recorder_chained_once_they_are_settled(site):
    chain(site, [site.record(number) for number in range(3)])
    whole = replace(subject(site), recorder=lambda: site.key.public)

    def asked():
        (finding,) = [one for one in check(whole) if "chained them" in one.question]
        return finding.holds, finding.answer[:9], len(finding.evidence)

    assert asked() == (True, "0 hours o", 0), "it may go on"
    site.clock.passes(2 * HOUR)
    assert asked() == (True, "1 hours o", 0)
    site.record(2, movie=b"of another camera")
    assert asked() == (False, "1 hours o", 1)
    due(site)
    assert asked() == (True, "0 hours o", 0), "it is on its way out"


def test_a_header_that_cannot_be_read_keeps_no_other_key_alive_and_its_own_no_longer(site):
    site.record()
    damaged = KEY.next
    public, private = (site.root / "video" / name for name in ("public", "private"))
    (public / f"{damaged}.json").write_bytes(bytes(40))
    due(site)
    report = site.sweep().run()
    assert (report.errors, site.store.bodies) == ([], {})
    assert report.keys_created
    assert not (private / f"{KEY}.key").exists()
    assert (private / f"{damaged}.key").exists()
    (keys,) = [one for one in check(subject(site)) if "hour key destroyed" in one.question]
    assert (keys.holds, keys.evidence) == (False, [f"video {damaged}: unreadable"])
    site.clock.passes(HOUR)
    site.sweep().run()
    assert not (private / f"{damaged}.key").exists()
    site.open()


def test_a_key_that_ended_without_a_record_is_found_but_not_while_its_sweep_goes_on(site):
    site.record()
    due(site)

    def found():
        (one,) = [one for one in check(subject(site)) if "key that is gone" in one.question]
        return one.holds, list(one.evidence)

    site.keyrings[Kind.VIDEO].destroy(KEY)
    assert found() == (True, [])
    site.clock.passes(MINUTE)
    assert found() == (False, [f"video {KEY}"])
    site.sweep().run()
    assert found() == (True, [])


def test_a_published_key_that_somebody_exchanged_for_their_own_is_found(site):
    header = site.root / "video" / "public" / f"{KEY}.json"
    ours = site.published().recipient(KEY)

    def found():
        (finding,) = [one for one in check(subject(site)) if "made here" in one.question]
        return finding.holds, finding.evidence

    assert found() == (True, ())
    before = header.read_text()
    header.write_text(before.replace(ours, new_identity()[1]))
    assert found() == (False, [f"video {KEY}"])
    header.write_text(before)
    assert found() == (True, ())


def test_a_key_that_somebody_published_for_an_hour_without_one_is_found_and_never_on_record(site):
    hour = KEY
    while (path := site.root / "video" / "public" / f"{hour}.json").exists():
        hour = hour.next
    stranger = new_identity()[1]
    deadline = hour.start + 30 * DAY
    path.write_text(
        json.dumps(
            {
                "key_id": str(hour),
                "recipient": stranger,
                "deadline": deadline.isoformat(),
                "destroyed_at": None,
            }
        )
    )
    (finding,) = [one for one in check(subject(site)) if "made here" in one.question]
    assert (finding.holds, finding.evidence) == (False, [f"video {hour}"])
    site.sweep().run()
    site.clock.passes(HOUR)
    site.sweep().run()
    assert stranger not in json.dumps([record.body for record in site.ledger.records()])
    assert site.published().recipient(hour) != stranger
    assert all(one.holds for one in check(subject(site)) if "made here" in one.question)


def test_a_place_that_fails_whatever_way_keeps_no_other_from_being_emptied(site):
    class Broken:
        name = "folder nvr"

        def key_ids(self):
            raise OSError("stale file handle")

    site.register().record(Passage("4711", "north", Direction.ENTRY, START))
    site.clock.at = KEY.start + 24 * HOUR - 15 * MINUTE
    sweep = site.sweep()
    sweep._keys[Kind.VIDEO] = replace(sweep._keys[Kind.VIDEO], holdings=[Broken()])
    report = sweep.run()
    assert report.errors == ["empty folder nvr: stale file handle"]
    assert not [key for key in site.store.bodies if key.startswith("presence/")]


def test_in_doubt_nothing_is_destroyed_and_the_doubt_is_on_record(site):
    segment = site.record()
    site.clock.doubt_until = START + 60 * DAY
    report = site.sweep().run()
    assert report.keys_destroyed == []
    assert segment.object_key in site.store.bodies
    assert len(site.events(Event.CLOCK_IN_DOUBT)) == 1


def test_gaps_are_forgotten_with_the_footage_around_them(site):
    gap = Gap(Span(START, START + SECOND), LOBBY, GapReason.RECORDER_DOWN)
    site.catalogue.add_gap(gap)
    site.sweep().run()
    assert site.catalogue.held_gaps == {gap}
    site.clock.at = START + 30 * DAY + 2 * SECOND
    site.sweep().run()
    assert site.catalogue.held_gaps == set()


# --- much to do, and little time ---


def test_a_pass_without_time_destroys_keys_and_leaves_the_bytes_to_the_next(site):
    segment = site.record()
    due(site)
    sweep = site.sweep()
    report = sweep.run(lambda: False)
    assert KEY in {key.key_id for key in report.keys_destroyed}
    assert (report.interrupted, report.segments_deleted) == (True, 0)
    assert segment.object_key in site.store.bodies
    assert sweep.run().segments_deleted == 1


def test_what_expires_first_is_deleted_first(site):
    late = site.record(start=START + HOUR)
    early = [site.record(camera=uuid4()) for _ in range(2)]
    site.clock.at = START + 31 * DAY
    sweep, rounds = (
        site.sweep(),
        iter([True] * 5 + [False] * 9),
    )  # the search looks at three cameras and then ends
    sweep.run(lambda: next(rounds))
    assert late.object_key in site.store.bodies
    assert sum(one.object_key in site.store.bodies for one in early) == 1


def test_a_key_that_falls_due_interrupts_the_deletion(site):
    site.record()
    site.record(camera=uuid4())
    due(site)
    following = site.policies[Kind.VIDEO].due_at(KEY.next)

    class Slow(Pace):
        def take(self, count):
            site.clock.at = following

    sweep = site.sweep(pace=Slow(1))
    report = sweep.run()
    assert (report.interrupted, report.segments_deleted) == (True, 1)
    report = sweep.run()
    assert [key.key_id for key in report.keys_destroyed] == [KEY.next]
    assert report.segments_deleted == 1


def test_deletions_keep_their_pace():
    at, waits = [0.0], []

    def wait(seconds):
        waits.append(seconds)
        at[0] += seconds

    pace = Pace(100, wait=wait, elapsed=lambda: at[0])
    for _ in range(4):
        pace.take(50)
    assert (waits, at) == ([0.5, 0.5, 0.5], [1.5])
    at[0] = 100.0
    pace.take(50)
    assert len(waits) == 3, "rest is not saved up, and not waited for"


def test_a_camera_that_fails_holds_up_no_other(site):
    """Also not when it is the first, each time."""
    first, *others = sorted(
        (site.record(camera=uuid4()) for _ in range(5)), key=lambda one: str(one.camera_id)
    )
    due(site)

    class Sick(MemorySegmentStore):
        def delete(self, keys):
            if first.object_key in keys:
                raise StoreUnavailable("503 for this one")
            return super().delete(keys)

    sick = Sick()
    sick.bodies = site.store.bodies
    report = site.sweep(store=sick).run()
    assert set(site.store.bodies) == {first.object_key}
    assert len(report.certificates) == len(others)
    assert len(report.errors) == 1


def test_a_store_that_is_down_is_not_asked_for_every_camera(site):
    for _ in range(20):
        site.record(camera=uuid4())
    due(site)
    site.store.delete = lambda keys: (_ for _ in ()).throw(StoreUnavailable("503"))
    assert len(site.sweep().run().errors) == 3


# --- the store against the catalogue ---


def test_a_row_whose_object_is_missing_is_reported_as_loss_once(site):
    gone = [site.record(number) for number in range(3)]
    site.record(4)
    sweep = site.sweep()
    assert sweep.run().segments_lost == 0
    del site.store.bodies[gone[0].object_key], site.store.bodies[gone[1].object_key]
    site.clock.passes(DAY)
    assert sweep.run().segments_lost == 2
    (body,) = site.events(Event.LOSS)
    assert body == {"camera_id": str(LOBBY), "key_id": str(KEY), "segments": 2}
    site.clock.passes(DAY)
    assert site.sweep().run().segments_lost == 0
    del site.store.bodies[gone[2].object_key]
    site.clock.passes(DAY)
    assert site.sweep().run().segments_lost == 1


def test_objects_of_a_lost_catalogue_are_adopted_by_the_round(site):
    segments = [site.record(number) for number in range(3)]
    site.catalogue.rows.clear()
    assert site.sweep().run().segments_adopted == 3
    assert site.catalogue.live() == segments


def test_a_round_whose_every_listing_breaks_off_comes_to_its_end(site):
    """After seven keys at the latest, every other one at once."""

    class Breaking(MemorySegmentStore):
        listings = longest = 0

        def remains(self, prefix="", *, after=""):
            self.listings += 1
            for number, found in enumerate([*super().remains(prefix, after=after), None]):
                if number == 7 or self.listings % 2:
                    raise StoreUnavailable("the listing broke off")
                if found:
                    self.longest = max(self.longest, number + 1)
                    yield found

        def prefixes(self, prefix=""):
            raise StoreUnavailable("so the search finds nothing")

    for number in range(40):
        site.record(number, known=False)
    strangers = [ObjectKey(f"{place}/{number:02}") for place in ("a", "z") for number in range(20)]
    site.store.bodies.update(dict.fromkeys(strangers, (b"?", site.clock.at)))
    site.clock.at = site.policies[Kind.VIDEO].due_at(KEY) - HOUR
    site.sweep(store=MemorySegmentStore()).run()  # makes keys
    young = [site.record(number, start=site.clock.at, known=number % 2).object_key for number in range(40)]
    fresh = ObjectKey("z/fresh")
    site.store.bodies[fresh] = b"?", site.clock.at
    due(site)
    store = Breaking()
    store.bodies = {key: kept for key, kept in site.store.bodies.items() if key != young[-1]}
    sweep, passes = site.sweep(store=store), 0
    while not site.events(Event.LOSS):
        sweep.run()
        passes += 1
        assert passes < 100
    assert store.bodies.keys() == {*young[:-1], fresh}
    assert store.longest == 7
    assert {row.object_key for row in site.catalogue.live()} == set(young)


def test_a_round_comes_to_its_end_though_every_pass_is_of_a_process_of_its_own(site, monkeypatch):
    monkeypatch.setattr(reconcile, "_PAGE", 4)
    monkeypatch.setattr(reconcile, "_PAGES_A_PASS", 1)
    recorded = [site.record(number, known=number > 20) for number in range(24)]
    last = ObjectKey("z.jpg")
    site.store.bodies[last] = b"?", START
    del site.store.bodies[recorded[22].object_key]
    site.clock.at = START + 29 * DAY - 15 * MINUTE
    passes = 0
    while not site.events(Event.LOSS):
        (site.root / "round.json").write_bytes(b"?") if passes == 3 else None
        site.sweep().run()
        passes += 1
        assert passes < 40
    assert last not in site.store.bodies
    assert len(site.catalogue.live()) == 24
    assert [body["segments"] for body in site.events(Event.LOSS)] == [1]


def test_an_object_under_a_keep_that_nobody_has_any_more_goes_by_it(site):
    """Neither the catalogue nor the policy knows it: its key says when."""
    entrance = uuid4()
    keep_shorter(site, entrance)
    segment = site.record(camera=entrance, known=False)
    site.policies[Kind.VIDEO] = replace(site.policies[Kind.VIDEO], shorter={})
    site.clock.at = KEY.start + WEEK - 15 * MINUTE - MICROSECOND
    site.sweep().run()
    assert segment.object_key in site.store.bodies
    site.clock.at += MICROSECOND
    site.sweep().run()
    assert site.store.bodies == {}


def test_a_stray_object_among_entry_and_exit_records_stops_nothing(site):
    stray = ObjectKey("presence/not-a-day/x/y")
    site.store.bodies[stray] = b"?", START
    site.register().record(Passage("4711", "north", Direction.ENTRY, START))
    site.clock.at = KEY.start + 24 * HOUR - 15 * MINUTE
    assert site.sweep().run().errors == []
    assert [key for key in site.store.bodies if key.startswith("presence/")] in ([], [stray])
    site.clock.at = START + 24 * HOUR
    site.sweep().run()
    assert site.store.bodies == {}


# --- what is on record is not read again ---


def test_a_key_made_while_the_ledger_refuses_has_its_record_once_it_takes_one(tmp_path):
    site = Premises(tmp_path)

    class Refusing:
        records = find = staticmethod(lambda *_, **__: iter(()))

        def append(self, *_, **__):
            raise LedgerUnavailable("the disk is full")

    report = site.sweep(ledger=Refusing()).run()
    assert (report.keys_created > 0, len(report.errors)) == (True, 1)
    assert site.events(Event.KEY_CREATED) == []
    for _ in range(2):
        site.open()
        assert site.sweep().run().errors == []
        told = {(one["kind"], key["key_id"]) for one in site.events(Event.KEY_CREATED) for key in one["keys"]}
        held = {(kind.value, str(key.key_id)) for kind, ring in site.keyrings.items() for key in ring.keys()}
        assert told == held
        assert len(site.events(Event.KEY_CREATED)) == len(Kind)


def test_the_bookmark_saves_reading_the_ledger_and_changes_nothing(site):
    site.record()
    due(site)
    site.sweep().run()
    before = list(site.ledger.records())

    class Counting:
        def __init__(self, ledger):
            self.append, self.read = ledger.append, []

        def records(self, *, after=-1):
            self.read.append(after)
            return site.ledger.records(after=after)

    ledger = Counting(site.ledger)
    site.sweep(ledger=ledger).run()
    assert ledger.read == [], "a pass with nothing to record reads nothing"
    site.record(start=START + HOUR)
    site.clock.passes(HOUR)
    site.sweep(ledger=ledger).run()
    assert ledger.read[0] > 0, "not from the beginning"
    before = list(site.ledger.records())
    for damage in (lambda path: path.unlink(), lambda path: path.write_text("{"), lambda _: None):
        damage(site.root / "retention.json")
        site.sweep().run()
        assert list(site.ledger.records()) == before


# --- the power fails ---


class Cut(BaseException):
    """The power fails: nothing catches it."""


class Fuse:
    """Wraps ports, and blows before a chosen call: all that lasts is behind them, so this is every moment."""

    def __init__(self, blows_at):
        self.blows_at = blows_at
        self.calls = 0

    def port(self, real):
        return _Wired(real, self)

    def call(self, method, args, kwargs):
        self.calls += 1
        if self.calls == self.blows_at:
            raise Cut
        return method(*args, **kwargs)


class _Wired:
    def __init__(self, real, fuse):
        self._real, self._fuse = real, fuse

    def __getattr__(self, name):
        found = getattr(self._real, name)
        return (lambda *args, **kwargs: self._fuse.call(found, args, kwargs)) if callable(found) else found


def wired(site, fuse):
    return site.sweep(
        store=fuse.port(site.store),
        catalogue=fuse.port(site.catalogue),
        ledger=fuse.port(site.ledger),
        keyrings={kind: fuse.port(ring) for kind, ring in site.keyrings.items()},
    )


def scene(root):
    root.mkdir()
    site = Premises(root)
    site.sweep().run()
    entrance = uuid4()
    site.record(camera=entrance)
    site.policies[Kind.VIDEO] = replace(site.policies[Kind.VIDEO], shorter={entrance: WEEK})
    for number in range(2):
        site.record(number)
    site.record(2, known=False)
    site.record(0, start=START + HOUR)
    site.register().record(Passage("4711", "north", Direction.ENTRY, START))
    due(site)
    return site


def outcome(site):
    """What must be the same however often the power failed."""
    events = [record.event for record in site.ledger.records()]
    return (
        sorted(key.rsplit("_", 1)[0] for key in site.store.bodies),
        len(site.catalogue.rows),
        Counter(event for event in events if event is not Event.KEY_CREATED),
        [(key.key_id, key.destroyed_at is None) for ring in site.keyrings.values() for key in ring.keys()],
        sorted((body["camera_id"], body["segments"]) for body in site.events(Event.CERTIFICATE)),
    )


def test_a_power_cut_before_any_call_of_a_sweep_is_finished_by_the_next_one(tmp_path):
    fresh = scene(tmp_path / "fresh")
    whole = fresh.copy(tmp_path / "whole")
    fuse = Fuse(0)
    wired(whole, fuse).run()
    expected = outcome(whole)
    assert fuse.calls > 40
    for at in range(1, fuse.calls + 1):
        site = fresh.copy(tmp_path / "cut")
        with pytest.raises(Cut):
            wired(site, Fuse(at)).run()
        site.open()
        assert site.sweep().run().errors == []
        assert outcome(site) == expected, at
        shutil.rmtree(site.root)


# --- plan and loop ---


def planned(site, moment):
    policy, keys = site.in_force()[Kind.VIDEO], list(site.keyrings[Kind.VIDEO].keys())
    found = plan(policy, keys=keys, amounts=site.catalogue.amounts(until=moment), moment=moment)
    return [(one.key_id, one.camera_id, one.objects, one.size_bytes) for one in found]


def test_a_plan_names_what_a_sweep_would_take(site):
    size = sum(site.record(number).size_bytes for number in range(3))
    size += site.record(camera=uuid4()).size_bytes
    moment = site.policies[Kind.VIDEO].due_at(KEY)
    expected = [(KeyId.covering(START - HOUR, HOUR), None, 0, 0), (KEY, None, 4, size)]
    assert planned(site, moment) == expected
    assert planned(site, START) == []
    site.clock.at = moment
    report = site.sweep().run()
    destroyed = [key.key_id for key in site.keyrings[Kind.VIDEO].keys() if key.destroyed_at]
    assert destroyed == [key_id for key_id, *_ in expected]
    assert (report.segments_deleted, report.bytes_deleted) == (4, size)
    assert planned(site, moment) == []


def test_a_plan_names_what_goes_before_its_key_also_of_a_camera_that_is_kept_for_longer_again(site):
    entrance = uuid4()
    before, other = site.record(camera=entrance), site.record()
    keep_shorter(site, entrance)
    site.policies[Kind.VIDEO] = replace(site.policies[Kind.VIDEO], shorter={})
    site.clock.passes(HOUR)
    site.sweep().run()
    week = KEY.start + WEEK - 15 * MINUTE
    ends = {key.key_id for key in site.keyrings[Kind.VIDEO].keys() if key.key_id.keep}
    assert planned(site, week - MICROSECOND) == [(min(ends), None, 0, 0)]
    found = planned(site, week)
    assert (KEY, entrance, 1, before.size_bytes) in found
    assert {one for one, *_ in found} - ends == {KEY}
    site.clock.at = week
    assert site.sweep().run().segments_deleted == 1
    assert list(site.store.bodies) == [other.object_key]


def test_the_loop_survives_a_pass_that_fails_and_sweeps_again(site):
    passes = []
    stop = Stop()

    class Guarded(SettableClock):
        """A clock that the loop may advance; the first pass cannot read it."""

        advance = staticmethod(lambda: None)

        def read(self):
            passes.append(len(passes))
            if len(passes) == 1:
                raise RuntimeError("a bug in one pass")
            stop.set()
            return super().read()

    clock = Guarded(site.clock.at)
    RetentionService(site.sweep(clock=clock), clock=clock, interval=timedelta(0)).run(stop)
    assert len(passes) > 1


def test_a_certificate_names_the_policy_in_force_and_the_ledger_has_each_of_them_once(site):
    site.sweep().run()
    site.record()
    site.policies[Kind.VIDEO] = replace(site.policies[Kind.VIDEO], keep=2 * DAY)
    site.clock.passes(2 * DAY)
    site.sweep().run()
    site.sweep().run()
    loaded = [body for body in site.events(Event.POLICY_LOADED) if body["kind"] == Kind.VIDEO]
    assert [body["keep_us"] for body in loaded] == [30 * DAY // MICROSECOND, 2 * DAY // MICROSECOND]
    (certificate,) = site.events(Event.CERTIFICATE)
    assert certificate["policy"] == loaded[-1]["revision"]
    facts = {name: value for name, value in loaded[-1].items() if name not in {"revision", "since"}}
    assert hashlib.sha256(canonical(facts)).hexdigest() == certificate["policy"]
