"""Oversight: a broken glass is seen by somebody else, suspicions alarm, readers of the ledger are in it."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import pytest

from tests.premises import HOUR, LOBBY
from tests.rooms.test_gate import House, Officer
from videostore.domain.breach import WatchPolicy
from videostore.domain.camera import Camera
from videostore.domain.errors import LedgerUnavailable
from videostore.domain.ledger import Event
from videostore.telemetry import GATE_GLASSES_UNREVIEWED, GATE_SUSPECTED_BREACHES

WHY = "nobody else is reachable, smoke on floor 4"


@pytest.fixture
def house(tmp_path):
    house = House(tmp_path)
    house.access = replace(house.access, break_glass=True)
    house.gate.oversight.look()
    return house


@pytest.fixture
def alice(house) -> Officer:
    return Officer(house).open_incident()


def unreviewed():
    return GATE_GLASSES_UNREVIEWED._value.get()


def test_a_broken_glass_is_alarmed_at_once_and_listed_until_a_second_person_has_looked(house, alice):
    grant = alice.ask(mode="export", break_glass=WHY).json()["grant"]
    assert unreviewed() == 1
    kinds = [record.event for record in house.ledger.records()]
    assert kinds[-3:] == [Event.REQUESTED, Event.BREAK_GLASS, Event.GRANTED], "on record before it is used"
    assert alice.post(f"/v1/grants/{grant['grant_id']}/exports", camera="lobby").status_code == 200
    house.clock.passes(2 * HOUR)  # the grant has ended, the review has not
    bruno = Officer(house, "bruno")
    (row,) = bruno.http.get("/v1/reviews").json()
    assert (row["staff_id"], row["why"], row["mode"]) == ("alice", WHY, "export")
    review = f"/v1/reviews/{grant['grant_id']}"
    alice = Officer(house)
    assert alice.post(review, verdict="all in order").json()["reason"] == "second-person-is-requester"
    assert Officer(house, "carol").post(review, verdict="x").json()["reason"] == "no-approval"
    assert bruno.post(review, verdict=" ").status_code == 400
    assert unreviewed() == 1
    assert bruno.post(review, verdict="fire alarm, confirmed by the control room").status_code == 200
    assert bruno.http.get("/v1/reviews").json() == []
    house.gate.oversight.look()
    assert unreviewed() == 0
    assert bruno.post(review, verdict="again").json()["reason"] == "not-granted"


def test_no_glass_breaks_unless_the_policy_allows_it(house, alice):
    house.access = replace(house.access, break_glass=False)
    for mode in ("view", "export"):
        answer = alice.ask(mode=mode, break_glass=WHY)
        assert (answer.status_code, answer.json()["reason"]) == (403, "break-glass-not-allowed")
    assert house.events(Event.GRANTED) == []


def test_breaking_the_glass_is_no_way_round_the_right_to_see(house, alice):
    carol = Officer(house, "carol")
    carol.incident_id = alice.incident_id
    assert carol.ask(mode="export", break_glass=WHY).json()["reason"] == "no-approval"
    alice.post(f"/v1/incidents/{alice.incident_id}/close")
    assert alice.ask(mode="export", break_glass=WHY).json()["reason"] == "incident-closed"


def test_a_glass_that_cannot_be_recorded_does_not_break(house, alice, monkeypatch):
    append_all = house.ledger.append_all

    def failing(drafts):
        if Event.BREAK_GLASS in {event for event, _, _ in drafts}:
            raise LedgerUnavailable("the disk of the ledger is full")
        return append_all(drafts)

    monkeypatch.setattr(house.ledger, "append_all", failing)
    assert alice.ask(mode="export", break_glass=WHY).status_code == 503
    assert house.events(Event.GRANTED) == []


def test_suspicions_raise_the_alarm_for_a_day_also_after_a_restart(house, alice):
    house.gate = house.new_gate(watch=lambda: WatchPolicy(out_of_purpose=3))

    def suspected():
        house.gate.oversight.look()
        return GATE_SUSPECTED_BREACHES.labels(suspicion="out-of-purpose")._value.get()

    alice = Officer(house).open_incident()
    for _ in range(3):
        assert suspected() == 0
        alice.post("/v1/grants/guess/viewings", camera="lobby")
    assert suspected() == 1
    house.gate = house.new_gate(watch=lambda: WatchPolicy(out_of_purpose=3))
    assert suspected() == 1
    house.clock.passes(24 * HOUR)
    assert suspected() == 0


def test_an_approver_who_is_added_to_the_policy_is_on_record_and_alarmed(house):
    """Root lets himself be approved by a key of his own, and takes it out again."""
    gauge = GATE_SUSPECTED_BREACHES.labels(suspicion="approvers-changed")
    assert gauge._value.get() == 0, "the first that is known is no change"
    house.approvers = {**house.approvers, "root": house.person_keys["carol"].public}
    house.gate.oversight.look()
    del house.approvers["root"]
    house.new_gate().oversight.look()
    assert gauge._value.get() == 2
    assert len(house.events(Event.APPROVERS_LOADED)) == 3
    assert house.events(Event.APPROVERS_LOADED)[1]["approvers"][1].startswith("root ed25519:")


def test_a_policy_that_was_loosened_for_one_request_is_on_record_before_it_counts(house, alice):
    """An administrator drops the second person, has an export made, and puts the rule back at once."""
    strict = house.access
    house.access = replace(strict, second_person=frozenset())
    assert alice.grant(mode="export")
    house.access = strict
    assert alice.ask(mode="export").json()["grant"] is None
    asked = [
        record for record in house.ledger.records() if record.event in {Event.ACCESS_LOADED, Event.GRANTED}
    ]
    assert [record.body.get("second_person") for record in asked] == [["export"], [], "", ["export"]]
    house.gate.oversight.look()
    assert GATE_SUSPECTED_BREACHES.labels(suspicion="access-loosened")._value.get() == 1


def test_who_watches_less_for_a_while_is_on_record(house, alice):
    """Nobody is told of a bulk pull while `watch` asks for more than there is."""
    watch = WatchPolicy()
    house.gate = house.new_gate(watch=lambda: watch)
    house.gate.oversight.look()
    watch = WatchPolicy(footage=1000 * HOUR)
    Officer(house).open_incident()
    bodies = house.events(Event.ACCESS_LOADED)
    assert [body["watch"]["footage_s"] for body in bodies] == [86400, 3_600_000]
    assert GATE_SUSPECTED_BREACHES.labels(suspicion="access-loosened")._value.get() == 0
    house.gate.oversight.look()
    assert GATE_SUSPECTED_BREACHES.labels(suspicion="access-loosened")._value.get() == 1


def test_cameras_that_were_exchanged_in_the_file_are_on_record_before_they_are_found(house):
    """An administrator gives the lobby's name to another camera, so that a grant for it opens that one."""
    lobby = Camera(LOBBY, "lobby", "rtsp://127.0.0.1/lobby")
    office = Camera(uuid4(), "office", "rtsp://127.0.0.1/office")
    oversight = house.gate.oversight
    oversight.identified([lobby, office])
    oversight.identified([lobby, office])
    assert len(house.events(Event.CAMERA_IDENTITY)) == 2, "once each"
    swapped = [replace(lobby, name="office"), replace(office, name="lobby")]
    assert oversight.identified(swapped) is swapped
    house.new_gate().oversight.identified([office])
    told = [(body["camera_id"], body["name"], body["state"]) for body in house.events(Event.CAMERA_IDENTITY)]
    assert told[2:] == [
        (str(LOBBY), "office", "enabled"),
        (str(office.id), "lobby", "enabled"),
        (str(office.id), "office", "enabled"),
        (str(LOBBY), "office", "unlisted"),
    ]
    assert "127.0.0.1" not in str(house.events(Event.CAMERA_IDENTITY))
    oversight.look()
    assert GATE_SUSPECTED_BREACHES.labels(suspicion="camera-reassigned")._value.get() == 3


def test_no_camera_is_found_while_its_name_cannot_be_recorded(house, monkeypatch):
    def failing(drafts):
        raise LedgerUnavailable("the disk of the ledger is full")

    oversight, cameras = house.gate.oversight, [Camera(LOBBY, "lobby", "rtsp://127.0.0.1/lobby")]
    monkeypatch.setattr(house.ledger, "append_all", failing)
    for _ in range(2):
        with pytest.raises(LedgerUnavailable):
            oversight.identified(cameras)


def test_an_approver_who_stood_in_the_policy_for_one_request_is_on_record(house):
    house.approvers = {**house.approvers, "root": house.person_keys["carol"].public}
    house.client("alice").get("/v1/whoami")
    del house.approvers["root"]
    assert any("root" in str(body) for body in house.events(Event.APPROVERS_LOADED))


def test_who_reads_the_ledger_is_in_it(house, alice):
    rows = alice.post("/v1/ledger", last=3).json()
    assert [row["event"] for row in rows][-1] == "access.ledger-read"
    assert (rows[-1]["actor"], len(rows)) == ("alice", 3)
    assert {row["event"] for row in alice.post("/v1/ledger", event="access.login").json()} == {"access.login"}
    assert Officer(house, "carol").post("/v1/ledger").status_code == 403
    assert len(house.events(Event.LEDGER_READ)) == 2


def test_who_asks_for_a_few_records_holds_no_thread_by_reading_all(house, alice):
    house.ledger.append_all([(Event.REFUSED, "carol", {"action": "x", "reason": "no-approval"})] * 300)
    house.access = replace(house.access, second_person=frozenset())
    grant = alice.grant(mode="export")
    serving = alice.post(f"/v1/grants/{grant}/exports", camera="lobby").json()["serving_id"]
    records, read = house.ledger.records, []

    def counted(*, after=-1):
        for record in records(after=after):
            read.append(record.sequence)
            yield record

    assert alice.post("/v1/ledger", last=1000).json()[0]["sequence"] == 0
    house.ledger.records = counted
    assert len(alice.post("/v1/ledger", last=3).json()) == 3
    assert len(alice.post("/v1/ledger", last=3, event="access.login").json()) == 1
    assert alice.http.get(f"/v1/servings/{serving}/manifest").status_code == 200
    assert len(read) < 20


def test_any_approved_person_ends_a_grant_while_it_plays(house, alice):
    serving = alice.view()
    bruno = Officer(house, "bruno")
    assert [row["grant_id"] for row in bruno.http.get("/v1/grants").json()] == [serving["grant_id"]]
    assert bruno.post(f"/v1/grants/{serving['grant_id']}/revoke").status_code == 200
    assert alice.part(serving).json()["reason"] == "grant-revoked"
    assert bruno.http.get("/v1/grants").json() == []
