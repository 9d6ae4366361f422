"""The monthly report: what it says follows from the ledger, and it says nothing else about anybody."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from videostore.app import Parts, create
from videostore.app.reporting import last_month, make_report
from videostore.config.site import Site
from videostore.domain.breach import Breach, Suspicion
from videostore.domain.errors import RequestInvalid
from videostore.domain.ledger import GENESIS, Event, Record
from videostore.domain.segment import Gap, GapReason, KeyId, Span
from videostore.report import pages
from videostore.report.facts import EVENTS, fold, month_span

SPAN = month_span("2026-11")
MONTH, HOUR, DAY = SPAN.start, timedelta(hours=1), timedelta(days=1)
CAMERAS = [UUID(int=1), UUID(int=2)]
SECRET = "Mr Nemo fell on the stairs"


class Told:
    """A ledger in the making."""

    def __init__(self):
        self.records = []

    def add(self, at, event, actor="retention", **body):
        self.records.append(Record(len(self.records), at, event, actor, body, GENESIS))

    def hour(self, start, *, deleted=None, early=timedelta(minutes=15)):
        """An hour of both cameras, 300 segments each; ``deleted`` before its deadline by ``early``."""
        key_id = str(KeyId.covering(start, HOUR))
        deadline = (start + 30 * DAY).isoformat()
        made = [{"key_id": key_id, "recipient": "age1"}]
        self.add(start - DAY, Event.KEY_CREATED, kind="video", keys=made)
        for camera in CAMERAS:
            span = [start.isoformat(), (start + HOUR).isoformat()]
            self.add(start + HOUR, Event.SEGMENTS_CHAINED, camera_id=str(camera), key_id=key_id, segments=300,
                     span=span, before=f"the run before {key_id}")  # fmt: skip
        if deleted is None:
            return
        at = start + 30 * DAY - early
        self.add(
            at,
            Event.KEY_DESTROYED,
            kind="video",
            key_id=key_id,
            deadline=deadline,
            destroyed_at=at.isoformat(),
        )
        for camera in CAMERAS:
            self.add(at, Event.CERTIFICATE, camera_id=str(camera), key_id=key_id, segments=300, size_bytes=10,
                     confirmed_at=(at + timedelta(minutes=1)).isoformat(), deadline=deadline)  # fmt: skip

    def month(self, *gaps, breaches=(), now=SPAN.end):
        ordered = sorted(self.records, key=lambda record: record.at)
        return fold(ordered, gaps, breaches, span=SPAN, now=now)


@pytest.fixture
def told():
    return Told()


def test_what_was_destroyed_in_time_is_said_and_how_early(told):
    told.hour(MONTH - 20 * DAY, deleted=True)
    told.hour(MONTH - 40 * DAY, deleted=True)  # destroyed in the month before
    month = told.month()
    assert month.key_margins == [timedelta(minutes=15)]
    assert month.absence_margins == [timedelta(minutes=14)] * 2
    assert (month.kept, month.late, month.segments_deleted, month.bytes_deleted) == (True, 0, 600, 20)


def test_a_key_destroyed_late_or_never_is_said(told):
    told.hour(MONTH - 20 * DAY, deleted=True, early=-timedelta(seconds=1))
    month = told.month()
    assert (month.kept, month.late) == (False, 3)
    told.records.clear()
    told.hour(MONTH - 29 * DAY)
    assert (told.month().kept, told.month().overdue) == (False, 1)
    assert told.month(now=MONTH).kept  # it was not due by then
    assert "may have been readable" in pages.html(told.month(), about())
    told.records.clear()
    week = KeyId(SPAN.end - 7 * DAY, HOUR, 7 * DAY)
    told.add(MONTH, Event.KEY_CREATED, kind="video", keys=[{"key_id": str(week), "recipient": "age1"}])
    assert told.month(now=SPAN.end - timedelta(seconds=1)).kept
    assert told.month().overdue == 1


def test_ages_are_those_of_what_was_held_at_the_end_of_the_month(told):
    told.hour(SPAN.end - 3 * DAY)
    told.hour(SPAN.end - 3 * DAY + HOUR)
    told.hour(SPAN.end - 12 * HOUR)
    told.hour(MONTH - 20 * DAY, deleted=True)
    told.hour(SPAN.end + DAY)  # of the next month
    month = told.month(now=SPAN.end + 5 * DAY)
    assert month.ages == {0: 600, 2: 600, 3: 600}
    assert month.recorded == 3 * 2 * HOUR


def test_a_run_that_a_power_cut_had_handed_over_twice_counts_once_and_as_it_was_last(told):
    told.hour(SPAN.end - DAY)
    *_, run = told.records
    longer = {**run.body, "segments": 310, "span": [run.body["span"][0], SPAN.end.isoformat()]}
    for body in (run.body, longer, longer):
        told.add(run.at, run.event, **body)
    month = told.month()
    assert (month.ages, month.recorded) == ({1: 610}, HOUR + DAY)


def test_a_chain_that_begins_anew_after_its_first_run_counts_both(told):
    """The recorder's disk was lost: both begin with nothing before."""
    for start in (SPAN.end - DAY, SPAN.end - DAY + HOUR):
        told.hour(start)
        told.records[-1].body["before"] = "0" * 64
    month = told.month()
    assert (month.ages, month.recorded) == ({1: 600, 0: 600}, 4 * HOUR)


def test_people_are_counted_by_purpose_kind_and_reason(told):
    at = MONTH + DAY
    told.add(
        MONTH - DAY, Event.INCIDENT_OPENED, "alice", incident_id="i1", purpose="search", reference=SECRET
    )
    told.add(at, Event.INCIDENT_OPENED, "bruno", incident_id="i2", purpose="emergency", reference=SECRET)
    told.add(at, Event.SEARCHED, "bruno", incident_id="i2")
    for number, incident in enumerate(("i1", "i2")):
        told.add(
            at, Event.REQUESTED, "alice", request_id=f"r{number}", incident_id=incident, break_glass=True
        )
        told.add(at, Event.GRANTED, "gate", request_id=f"r{number}", grant_id=f"g{number}")
        told.add(at, Event.VIEWING, "alice", grant_id=f"g{number}")
    told.add(at, Event.EXPORT, "alice", grant_id="g0")
    told.add(at, Event.REVIEWED, "dora", grant_id="g0")
    told.add(at, Event.REFUSED, "carol", reason="no-approval", action="search")
    month = told.month()
    assert month.incidents == {"search": 0, "emergency": 1}
    assert month.accesses == {
        ("emergency", "searches"): 1,
        ("search", "viewings"): 1,
        ("emergency", "viewings"): 1,
        ("search", "exports"): 1,
    }
    assert month.staff == {"alice": {"viewings": 2, "exports": 1}, "bruno": {"searches": 1}}
    assert (month.refusals, month.broken_glass, month.unreviewed) == ({"no-approval": 1}, 2, 1)
    page = pages.html(month, about())
    assert "alice" in page
    assert SECRET not in page
    assert "carol" not in page  # who was refused is for the ledger


def test_suspected_breaches_of_the_month_are_said_without_a_name(told):
    breaches = [Breach(Suspicion.BULK, "mallory", at, (7,)) for at in (MONTH, SPAN.end)]
    month = told.month(breaches=breaches)
    assert month.suspicions == {"bulk-pull": 1}
    page = pages.html(month, about())
    assert "1 (1 bulk-pull)" in page
    assert "mallory" not in page


def test_gaps_count_within_the_month_by_reason_and_camera(told):
    gaps = [
        Gap(Span(MONTH - HOUR, MONTH + HOUR), CAMERAS[0], GapReason.CAMERA_UNREACHABLE),
        Gap(Span(MONTH + DAY, MONTH + DAY + HOUR / 2), CAMERAS[1], GapReason.RECORDER_DOWN),
        Gap(Span(SPAN.end, SPAN.end + HOUR), CAMERAS[1], GapReason.RECORDER_DOWN),
    ]
    month = told.month(*gaps)
    assert month.gaps == {"camera-unreachable": HOUR, "recorder-down": HOUR / 2}
    assert month.gap_cameras == {str(CAMERAS[0]): 3600, str(CAMERAS[1]): 1800}
    assert "lobby" in pages.html(month, about())


def about(**changes):
    facts = {
        "site": "test", "made_at": SPAN.end, "keep": {"video": 30 * DAY, "entry-exit": DAY},
        "cameras": {str(CAMERAS[0]): "lobby"}, "checkpoint": {"size": 3}, "public_key": "ed25519:x",
        "ledger": {"records": 3}, "problems": (), "gaps_since": MONTH,
    }  # fmt: skip
    return pages.About(**{**facts, **changes})


def test_a_ledger_that_does_not_verify_is_said_first_of_all_checks(told):
    assert "does not verify: record 3" in pages.html(told.month(), about(problems=("record 3 was altered",)))
    assert "was not verified" in pages.html(told.month(), about(ledger=None))


def test_the_files_are_whole_and_the_ledger_has_their_hashes(tmp_path):
    settings = "version: 1\nsite: test\nkeyring: {ahead: 1h}\n"
    create(tmp_path / "site", name="test", overrides={"videostore.yaml": settings})
    with Parts(Site.load(tmp_path / "site")) as parts:
        now = parts.clock.now()
        facts = make_report(parts, f"{now:%Y-%m}", tmp_path / "out", verify=True)
        assert (facts["kept"], facts["problems"]) == (True, [])
        (record,) = parts.ledger.find(Event.REPORT_MADE)
        for suffix, begins in (("html", b"<!DOCTYPE html>"), ("pdf", b"%PDF-1.7")):
            data = Path(facts[suffix]).read_bytes()
            assert data.startswith(begins)
            assert record.body[f"{suffix}_sha256"] == hashlib.sha256(data).hexdigest()
        assert json.dumps(parts.ledger.public_key)[1:-1].encode() in Path(facts["html"]).read_bytes()
        for wrong in ("2026-13", "november", f"{now.year + 1}-01"):
            with pytest.raises(RequestInvalid):
                make_report(parts, wrong, tmp_path, verify=False)
        assert {one.event for one in parts.ledger.find(*EVENTS)} == {Event.KEY_CREATED}


@pytest.mark.parametrize(
    ("now", "name"),
    [(datetime(2026, 12, 1, tzinfo=UTC), "2026-11"), (datetime(2027, 1, 31, 23, tzinfo=UTC), "2026-12")],
)
def test_a_report_is_of_the_last_month_that_is_over(now, name):
    assert last_month(now) == name
    assert month_span(name).end <= now
