"""Loosening gives nothing back: whatever is done to the policy, no deadline of what exists becomes later."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.clock import SettableClock
from videostore.check.invariants import keeps_of
from videostore.check.listing import look
from videostore.domain.errors import LedgerUnavailable
from videostore.domain.ledger import Event
from videostore.domain.retention import Kind, RetentionPolicy
from videostore.domain.segment import SITE_KEEP, KeyId, ObjectKey, Segment, Sha256Hex, Span
from videostore.ledger.files import FileLedger
from videostore.ports import StoredObject
from videostore.retention.policies import PoliciesOnRecord, last_on_record
from videostore.signing import SigningKey

START = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
WEEK = 7 * DAY
CAMERAS = [UUID(int=number) for number in range(3)]
SITE = RetentionPolicy(Kind.VIDEO, 30 * DAY, 15 * MINUTE, HOUR)
ENTRY_EXIT = RetentionPolicy(Kind.ENTRY_EXIT, DAY, 15 * MINUTE, HOUR)


class Office:
    """Somebody who changes the policy, and processes that judge by it. All that lasts is the ledger."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = SettableClock(START)
        self.key = SigningKey.create(root / "ledger.key")
        self.wanted = {Kind.VIDEO: SITE, Kind.ENTRY_EXIT: ENTRY_EXIT}
        self.down = False
        self.elapsed = 0.0
        self.ledger = FileLedger(root / "ledger", key=self.key, clock=self.clock)
        self.start()

    def start(self) -> None:
        self.policies = PoliciesOnRecord(
            lambda: self.wanted,
            ledger=self._ledger,
            clock=self.clock,
            waiting=self.root / "waiting.json",
            elapsed=lambda: self.elapsed,
        )

    def _ledger(self) -> FileLedger:
        if self.down:
            raise LedgerUnavailable("its disk is full")
        return self.ledger

    def set(self, **changes: object) -> None:
        self.wanted = {**self.wanted, Kind.VIDEO: replace(SITE, **changes)}

    def video(self) -> RetentionPolicy:
        return self.policies()[Kind.VIDEO]


@pytest.fixture
def office(tmp_path):
    return Office(tmp_path)


def hour(moment: datetime) -> KeyId:
    return KeyId.covering(moment, HOUR)


def test_what_is_on_record_is_the_policy_that_was_loaded_last(office):
    assert last_on_record(office.ledger.find(Event.POLICY_LOADED)) is None
    office.video()
    office.set(keep=WEEK, shorter={CAMERAS[0]: DAY})
    office.video()
    assert last_on_record(office.ledger.find(Event.POLICY_LOADED)) == office.wanted


def test_what_existed_while_a_camera_was_kept_for_less_goes_by_that_and_what_came_later_does_not(office):
    camera, other, _ = CAMERAS
    office.video()
    office.set(shorter={camera: WEEK})
    office.clock.passes(2 * HOUR)
    assert office.video().deadline(hour(START), camera_id=camera) == hour(START).start + WEEK
    office.set()
    office.clock.passes(DAY)
    office.start()
    loosened = hour(office.clock.at)
    for _ in range(2):
        policy = office.video()
        assert policy.deadline(hour(START), camera_id=camera) == hour(START).start + WEEK
        assert policy.deadline(loosened, camera_id=camera) == loosened.start + WEEK, "its hour had begun"
        assert policy.deadline(loosened.next, camera_id=camera) == loosened.next.start + 30 * DAY
        assert policy.deadline(hour(START), camera_id=other) == hour(START).start + 30 * DAY
        office.start()
        office.clock.passes(DAY)


def test_a_stranger_in_the_store_goes_by_the_shortest_keep_since_it_was_received(office):
    for keep in (WEEK, 30 * DAY):
        office.set(keep=keep)
        assert office.video().keep_of(None, START) == WEEK
        office.clock.passes(HOUR)
    stranger = StoredObject(ObjectKey("face.jpg"), 1, START)
    for second in (-1, 0):
        now = START + WEEK + timedelta(seconds=second)
        found = look([stranger], keeps=keeps_of(office.policies()), now=now)
        assert found.overdue_count == (second == 0)


def test_a_policy_that_only_tightens_leaves_no_bound(office):
    for days in (20, 10, 5):
        office.set(keep=days * DAY, shorter={CAMERAS[0]: (days - 1) * DAY})
        assert office.video().bounds == ()


def test_nothing_loosens_until_the_ledger_says_so_and_what_is_shorter_counts_at_once(office):
    camera, other, _ = CAMERAS
    office.set(shorter={camera: WEEK})
    office.video()
    office.down = True
    office.set(shorter={other: WEEK})
    for one in (camera, other):
        later = hour(START + DAY)
        assert office.video().deadline(later, camera_id=one) == later.start + WEEK
    office.down = False
    office.clock.passes(2 * HOUR)
    office.elapsed += 60
    assert office.video().deadline(later, camera_id=camera) == later.start + 30 * DAY
    assert office.video().deadline(hour(START), camera_id=camera) == hour(START).start + WEEK
    loaded = [record.body for record in office.ledger.find(Event.POLICY_LOADED)]
    assert [len(body["shorter_us"]) for body in loaded if body["kind"] == Kind.VIDEO] == [1, 1]


@pytest.mark.parametrize("dies", [True, False], ids=["the process dies", "it lives on"])
def test_a_tightening_taken_back_while_the_ledger_refuses_was_in_force_all_the_same(office, dies):
    office.video()
    office.down = True
    for changes in ({"keep": WEEK}, {}):
        office.set(**changes)
        assert office.video().deadline(hour(START)) == hour(START).start + WEEK
        if dies:
            office.start()
    office.down = False
    office.elapsed += 60
    later = hour(START + 2 * HOUR)
    assert office.video().deadline(hour(START)) == hour(START).start + WEEK
    assert office.video().deadline(later) == later.start + 30 * DAY
    keeps = [
        one.body["keep_us"] for one in office.ledger.find(Event.POLICY_LOADED) if one.body["kind"] == "video"
    ]
    assert [keep / (DAY / timedelta(microseconds=1)) for keep in keeps] == [30, 7, 30]
    assert not (office.root / "waiting.json").exists()


def test_while_the_clock_is_in_doubt_only_what_is_shorter_goes_on_record(office):
    camera, other, _ = CAMERAS
    office.set(shorter={camera: WEEK})
    office.video()
    office.clock.doubt_until = START + 40 * DAY
    office.set(shorter={other: WEEK})
    office.video()
    office.set()
    office.start()
    later = hour(START + DAY)
    for one in (camera, other):
        assert office.video().deadline(later, camera_id=one) == later.start + WEEK
    office.clock.doubt_until = None
    office.elapsed += 60
    for one in (camera, other):
        assert office.video().deadline(later, camera_id=one) == later.start + 30 * DAY
        assert office.video().deadline(hour(START), camera_id=one) == hour(START).start + WEEK


def test_a_record_whose_clock_went_back_ends_no_bound_early(office):
    camera = CAMERAS[0]
    office.set(shorter={camera: WEEK})
    office.video()
    office.clock.passes(-3 * DAY)
    office.set()
    assert office.video().deadline(hour(START), camera_id=camera) == hour(START).start + WEEK


def test_a_record_of_before_says_no_moment_of_its_own(office):
    camera = CAMERAS[0]
    old = replace(SITE, shorter={camera: WEEK})
    office.ledger.append(
        Event.POLICY_LOADED, actor="retention", body={**old.to_json(), "revision": old.revision}
    )
    office.clock.passes(HOUR)
    assert office.video().deadline(hour(START), camera_id=camera) == hour(START).start + WEEK


keeps = st.sampled_from([30, 21, 7, 2, 1]).map(lambda days: days * DAY)
groups = st.dictionaries(st.sampled_from("ab"), keeps)
members = st.dictionaries(st.sampled_from(CAMERAS), st.sampled_from("abc"))
changes = st.tuples(st.integers(0, 48), keeps, groups, members, st.booleans())


def shorter(keep, kept, membership):
    """As ``Site.retention`` does it."""
    found = {camera: kept.get(group, keep) for camera, group in membership.items()}
    return {camera: length for camera, length in found.items() if length < keep}


@settings(max_examples=25, deadline=None)
@given(st.lists(changes, min_size=1, max_size=8))
def test_no_change_of_policy_and_no_move_of_a_camera_gives_anything_a_later_deadline(steps):
    """The deadline of a key, and of each camera's footage under it; by the rule and by the auditor's own."""
    with TemporaryDirectory() as root:
        office = Office(Path(root))
        deadlines: dict[tuple[KeyId, UUID | None], datetime] = {}
        for hours, keep, kept, membership, restarts in steps:
            office.clock.passes(hours * HOUR)
            office.set(keep=keep, shorter=shorter(keep, kept, membership))
            if restarts:
                office.start()
            policy = office.video()
            auditor = keeps_of(office.policies())
            for series in policy.series:
                for camera in (None, *CAMERAS):
                    deadlines.setdefault(
                        (KeyId.covering(office.clock.at, HOUR, series), camera),
                        datetime.max.replace(tzinfo=UTC),
                    )
            for (key_id, camera), before in deadlines.items():
                deadline = policy.deadline(key_id, camera_id=camera)
                assert deadline <= min(before, key_id.start + 30 * DAY)
                assert key_id.keep == SITE_KEEP or deadline <= key_id.start + key_id.keep
                deadlines[key_id, camera] = deadline
                if camera is not None:
                    one = Segment(
                        camera, Span(key_id.start, key_id.start + MINUTE), 1, HOUR, 1, HASH, key_id.keep
                    )
                    for second in (-1, 0):
                        found = look([stored(one)], keeps=auditor, now=deadline + timedelta(seconds=second))
                        assert found.overdue_count == (second == 0)


HASH = Sha256Hex("a" * 64)


def stored(segment: Segment) -> StoredObject:
    return StoredObject(ObjectKey(segment.object_key), 1, START)
