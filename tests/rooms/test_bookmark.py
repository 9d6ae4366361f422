"""A start reads of the ledger what came after the bookmark, and knows what reading all of it would tell."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta
from uuid import UUID

import pytest

from tests.fakes.clock import SettableClock
from tests.premises import START
from videostore.domain.breach import WatchPolicy
from videostore.domain.errors import LedgerBroken
from videostore.domain.ledger import Event
from videostore.gate import bookmark as bookmark_module
from videostore.gate import casebook, oversight
from videostore.gate.bookmark import Bookmark, Reader
from videostore.gate.casebook import Book, Casebook
from videostore.gate.oversight import Watched
from videostore.ledger.files import FileLedger
from videostore.signing import SigningKey

CAMERA, OTHER = str(UUID(int=1)), str(UUID(int=2))
MOMENT, SPAN = START.isoformat(), [START.isoformat(), (START + timedelta(minutes=15)).isoformat()]


def request(number, **more):
    asked = {"request_id": f"r{number}", "incident_id": "i1", "cameras": [OTHER, CAMERA]}
    return {**asked, "start": SPAN[0], "end": SPAN[1], "mode": "export", **more}


def grant(number, request):
    return {"grant_id": f"g{number}", "request_id": request, "expires_at": SPAN[1], "second_person": "bruno"}


def certificate(number, camera=CAMERA):
    return {"id": f"c{number}", "camera_id": camera, "key_id": f"hour{number}", "span": SPAN}


def identity(camera, name, **more):
    return {"camera_id": camera, "name": name, "source_sha256": "5" * 64, "state": "enabled", **more}


ACCESS = {"notice_sha256": "a" * 64, "second_person": ["export"], "break_glass": True, "max_span_s": 60}
HISTORY = [
    (Event.CAMERA_ADDED, "operator", {"camera_id": CAMERA}),
    (Event.CAMERA_IDENTITY, "gate", identity(CAMERA, "lobby")),
    (Event.CAMERA_IDENTITY, "gate", identity(OTHER, "gate")),
    (Event.ACCESS_LOADED, "gate", ACCESS),
    (Event.APPROVERS_LOADED, "gate", {"approvers": ["delegate ed25519:AA"]}),
    (Event.STAFF_APPROVED, "operator", {"staff_id": "alice", "approval_id": "a1"}),
    (Event.STAFF_APPROVED, "operator", {"staff_id": "bruno", "approval_id": "a2"}),
    (Event.LOGIN_REFUSED, "gate", {"staff_id": "alice", "login_sha256": "l1", "fault": "wrong-code"}),
    (Event.LOGIN_REFUSED, "gate", {"staff_id": "alice", "login_sha256": "l1", "fault": "wrong-code"}),
    (Event.LOGIN, "bruno", {"login_sha256": "l2", "step": 7}),
    (Event.INCIDENT_OPENED, "alice", {"incident_id": "i1", "purpose": "search", "reference": "fire"}),
    (Event.INCIDENT_OPENED, "alice", {"incident_id": "i2", "purpose": "search", "reference": "smoke"}),
    (Event.REQUESTED, "alice", request(1)),
    (Event.GRANTED, "gate", grant(1, "r1")),
    (Event.GRANTED, "gate", grant(2, "r1")),
    (Event.REQUESTED, "alice", request(2, break_glass="nobody answers")),
    (Event.GRANTED, "gate", grant(3, "r2")),
    (Event.SERVED, "alice", {"spans": [SPAN]}),
    (Event.CAMERA_CHANGED, "operator", {"camera_id": CAMERA, "change": "disabled"}),
    (Event.CERTIFICATE, "retention", certificate(1)),
    (Event.REVIEWED, "bruno", {"grant_id": "g3", "verdict": "in order"}),
    (Event.REFUSED, "alice", {"reason": "grant-unknown"}),
    (Event.CAMERA_IDENTITY, "gate", identity(CAMERA, "lobby", source_sha256="6" * 64)),
    (Event.ACCESS_LOADED, "gate", {**ACCESS, "max_span_s": 600}),
    (Event.CERTIFICATE, "retention", certificate(2, OTHER)),
    (Event.CAMERA_CHANGED, "operator", {"camera_id": CAMERA, "change": "enabled"}),
    (Event.GRANT_REVOKED, "bruno", {"grant_id": "g3"}),
    (Event.STAFF_REVOKED, "operator", {"staff_id": "bruno", "approval_id": "a2"}),
    (Event.STAFF_REVOKED, "operator", {"staff_id": "alice", "approval_id": ""}),
    (Event.APPROVERS_LOADED, "gate", {"approvers": ["mallory ed25519:BB"]}),
    (Event.CERTIFICATE, "retention", certificate(1)),
    (Event.SERVED, "alice", {"spans": [SPAN, SPAN]}),
    (Event.CERTIFICATE, "retention", certificate(3)),
    (Event.INCIDENT_CLOSED, "alice", {"incident_id": "i2"}),
    (Event.SITE_RECONCILED, "operator", {"records": 20}),
    (Event.STAFF_RECOVERED, "operator", {"staff_id": "alice", "approval_ids": ["a3"]}),
    (Event.CAMERA_REMOVED, "operator", {"camera_id": CAMERA}),
]
"""Of everything that a book or a watch takes in."""
WATCHFUL = WatchPolicy(footage=timedelta(minutes=40), out_of_purpose=1, failed_logins=2)


class Ledgers:
    """One ledger of files, opened by a process after the other. ``read`` counts records."""

    def __init__(self, root):
        self.root = root
        self.key = SigningKey.create(root / "ledger.key")
        self.read = 0

    def open(self):
        clock = SettableClock(START)
        ledger = FileLedger(self.root / "ledger", key=self.key, clock=clock)
        records = ledger.records

        def counted(*, after=-1):
            for record in records(after=after):
                self.read += 1
                yield record

        ledger.records, ledger.clock = counted, clock
        return ledger

    def append(self, drafts):
        ledger = self.open()
        for draft in drafts:
            ledger.clock.passes(timedelta(seconds=1))
            ledger.append(draft[0], actor=draft[1], body=draft[2])

    def bookmark(self):
        return casebook.bookmark(self.root / "gate", self.key)

    @property
    def file(self):
        return self.root / "gate" / "casebook.bookmark"

    def start(self):
        """Return the book as the gate has it after a start, and how many records were read for it."""
        self.read = 0
        book = Casebook(self.open(), self.bookmark())
        return book.follow(), self.read

    def stop(self):
        book = Casebook(self.open(), self.bookmark())
        book.follow()
        book.keep()


@pytest.fixture
def ledgers(tmp_path):
    one = Ledgers(tmp_path)
    one.append(HISTORY)
    return one


def told(records, *, into):
    book, watched = into
    for record in records:
        book.take(record)
        watched.late.extend(watched.watch.take(record, WATCHFUL))
    return book, watched


def test_wherever_the_bookmark_lies_the_rest_tells_what_all_would_tell(ledgers, monkeypatch, tmp_path):
    monkeypatch.setattr(casebook, "_CERTIFICATES", 2)
    records = list(ledgers.open().records())
    book, watched = whole = told(records, into=(Book(), Watched()))
    for state, fresh in ((book, Book()), (watched, Watched()), (watched.watch, Watched().watch)):
        assert not [one.name for one in dataclasses.fields(state)
                    if getattr(state, one.name) == getattr(fresh, one.name)]  # fmt: skip
    assert len(book.certificates) == 2
    marks = casebook.bookmark(tmp_path, ledgers.key), oversight.bookmark(tmp_path, ledgers.key)
    for cut in range(1, len(records)):
        for mark, state in zip(marks, told(records[:cut], into=(Book(), Watched())), strict=True):
            mark.keep(state, records[cut - 1])
        found = [mark.find(ledgers.open()) for mark in marks]
        assert [last for _, last in found] == [records[cut - 1]] * 2
        assert told(records[cut:], into=[state for state, _ in found]) == whole


def test_a_start_reads_what_was_recorded_since_and_one_record_before(ledgers):
    whole, read = ledgers.start()
    assert read == len(HISTORY)
    ledgers.stop()
    assert ledgers.start() == (whole, 1)
    ledgers.append(
        [(Event.INCIDENT_OPENED, "alice", {"incident_id": "i9", "purpose": "search", "reference": "x"})]
    )
    book, read = ledgers.start()
    assert (read, "i9" in book.incidents) == (2, True)


def test_a_long_reading_is_kept_on_the_way(ledgers, monkeypatch):
    monkeypatch.setattr(bookmark_module, "EVERY", 10)
    ledgers.start()
    _, read = ledgers.start()
    assert read == 1 + len(HISTORY) % 10


def test_a_withdrawal_that_came_after_an_old_bookmark_is_known(ledgers):
    """Who may write the file can put back one that was made before."""
    ledgers.stop()
    old = ledgers.file.read_bytes()
    ledgers.append([(Event.STAFF_REVOKED, "operator", {"staff_id": "alice", "approval_id": "a3"})])
    ledgers.stop()
    ledgers.file.write_bytes(old)
    assert "a3" in ledgers.start()[0].withdrawn


def altered(data):
    assert b'"withdrawn":["' in data
    return data.replace(b'"withdrawn":["', b'"withdrawn":["x')


def later(data):
    head, _, state = data.partition(b"\n")
    return json.dumps({**json.loads(head), "sequence": 3}).encode() + b"\n" + state


@pytest.mark.parametrize(
    "forge",
    [
        altered,
        later,
        lambda data: data[:-1],
        lambda data: data[: len(data) // 3],
        lambda _: b"",
        lambda _: b"[]\n",
    ],
)
def test_what_the_ledgers_key_did_not_sign_is_not_believed(ledgers, forge):
    whole, _ = ledgers.start()
    ledgers.stop()
    ledgers.file.write_bytes(forge(ledgers.file.read_bytes()))
    assert ledgers.start() == (whole, len(HISTORY))


def test_a_bookmark_by_another_key_is_not_believed(ledgers, tmp_path):
    (*_, last) = ledgers.open().records()
    mallory = SigningKey.create(tmp_path / "mallory.key")
    casebook.bookmark(ledgers.file.parent, mallory).keep(Book(), last)
    assert ledgers.start()[1] == len(HISTORY)


def test_what_other_rules_made_of_the_records_is_not_believed(ledgers):
    (*_, last) = ledgers.open().records()
    Bookmark(ledgers.file, Book, key=ledgers.key, rules=[bookmark_module]).keep(Book(), last)
    assert ledgers.start()[1] == len(HISTORY)


def test_a_ledger_that_lost_what_the_bookmark_was_made_from_closes_the_door(ledgers):
    ledgers.stop()
    path = ledgers.root / "ledger" / "records.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-3]))
    with pytest.raises(LedgerBroken, match=f"does not have the record {len(HISTORY) - 1}"):
        ledgers.start()


def test_another_ledger_by_the_same_key_closes_the_door(ledgers):
    ledgers.stop()
    for path in (ledgers.root / "ledger").iterdir():
        path.unlink()
    ledgers.append([*HISTORY[:5], *HISTORY[:5], *HISTORY])
    with pytest.raises(LedgerBroken):
        ledgers.start()


def test_a_disk_that_refuses_a_bookmark_costs_time_only(ledgers):
    ledgers.file.parent.write_bytes(b"")
    ledgers.stop()
    assert ledgers.start()[1] == len(HISTORY)


def test_a_record_that_could_not_be_taken_is_asked_for_again(ledgers):
    reader = Reader(ledgers.open(), Book(), None)
    first = next(iter(reader.new()))
    assert next(iter(reader.new())) == first
