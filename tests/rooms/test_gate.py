"""The gate: one door, the right people, two purposes, and a record of every byte before it leaves."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import httpx
import pytest
from fastapi.testclient import TestClient

from tests.contracts.test_staff_directory import CHEAP
from tests.premises import DAY, HOUR, LOBBY, MINUTE, SECOND, START, Premises
from tests.rooms.test_recorder import INFO, groups
from videostore.catalogue.sql import SqlCatalogue
from videostore.cli.client import _answer
from videostore.domain import cmaf
from videostore.domain.access import AccessPolicy, Mode, Reason
from videostore.domain.camera import Camera
from videostore.domain.errors import AccessRefused, CameraUnknown, LedgerUnavailable, every_error
from videostore.domain.identity import CODE_PERIOD, code_step
from videostore.domain.ledger import Event
from videostore.domain.presence import Direction, Passage
from videostore.domain.retention import Kind
from videostore.domain.segment import EPOCH, KeyId, Span
from videostore.gate.api import create_api
from videostore.gate.authenticator import current_code
from videostore.gate.casebook import Casebook
from videostore.gate.export import Unit
from videostore.gate.logins import Logins
from videostore.gate.papers import sign_approval
from videostore.gate.service import Gate
from videostore.gate.staff import FileStaffDirectory
from videostore.recorder import packing
from videostore.signing import ExportKey, SigningKey
from videostore.synthetic.film import frame_numbers
from videostore.synthetic.stream import GOP

NOTICE = "a" * 64
PASSWORD = "correct horse battery"
CAMERAS = {"lobby": Camera(LOBBY, "lobby", "rtsp://127.0.0.1/lobby", "")}
SPAN = {"start": START.isoformat(), "end": (START + 3 * SECOND).isoformat()}


class House(Premises):
    """Premises with three seconds of footage of the lobby, people, and a gate."""

    def __init__(self, root):
        super().__init__(root)
        self.sweep().run()
        self.access = AccessPolicy(NOTICE, max_span=4 * HOUR, grant_lifetime=HOUR)
        self.person_keys = {
            name: SigningKey.create(root / f"{name}.key") for name in ("delegate", "alice", "bruno", "carol")
        }
        self.secrets, self.last_step = {}, {}
        self.approvers = {"delegate": self.person_keys["delegate"].public}
        self.staff = FileStaffDirectory(
            root / "staff", approvers=lambda: self.approvers, key=lambda: self.master, hasher=CHEAP
        )
        for name in ("alice", "bruno", "carol"):
            public = self.person_keys[name].public
            self.secrets[name] = self.staff.add(name, department="DSS", password=PASSWORD, public_key=public)
        for name in ("alice", "bruno"):
            self.admit(name)
        packer = packing.choose(INFO, groups(1)[0].packets[0])
        for number, group in enumerate(groups(3)):
            self.record(number, movie=packer.alone(group), length=SECOND)
        self.clock.passes(10 * SECOND)
        self.recorder = SigningKey.create(root / "recorder.key")
        self.gate = self.new_gate()

    def new_gate(self, **parts):
        return Gate(
            staff=self.staff,
            ledger=self.ledger,
            store=self.store,
            catalogue=self.catalogue,
            keyring=self.keyrings[Kind.VIDEO],
            presence=self.reader(),
            clock=self.clock,
            logins=Logins(idle=HOUR, longest=8 * HOUR),
            policy=lambda: self.access,
            retention=lambda: self.in_force()[Kind.VIDEO],
            notice=lambda: "the notice",
            approvers=lambda: self.approvers,
            unit=Unit("headquarters", export_key(), self.recorder.public),
            **parts,
        )

    def credentials(self, name):
        """Return what a person types: the password, and the next code that was not used yet."""
        step = max(code_step(self.clock.now()), self.last_step.get(name, 0) + 1)
        self.last_step[name] = step
        code = current_code(self.secrets[name], now=EPOCH + step * CODE_PERIOD)
        return {"staff_id": name, "password": PASSWORD, "code": code}

    def admit(self, name):
        now, key = self.clock.now(), self.person_keys
        valid = Span(now, now + DAY)
        paper = self.staff.approve(name, "delegate", key["delegate"], valid=valid, now=now)
        body = {"staff_id": name, "approval_id": paper.id}
        self.ledger.append(Event.STAFF_APPROVED, actor="operator", body=body)
        self.staff.acknowledge(name, key[name], notice_sha256=NOTICE, now=now)

    def api(self):
        return create_api(self.gate, find_camera=find_camera, all_cameras=lambda: list(CAMERAS.values()))

    def client(self, name=None):
        client = TestClient(self.api())
        if name:
            answer = client.post("/v1/login", json=self.credentials(name))
            client.headers["Authorization"] = f"Bearer {answer.json()['token']}"
        return client


def find_camera(name):
    for camera in CAMERAS.values():
        if name in {camera.name, str(camera.id)}:
            return camera
    raise CameraUnknown(f"no camera {name!r}")


@cache
def export_key():
    """Return a key for exports; making one takes a while."""
    with TemporaryDirectory() as root:
        return ExportKey.create(Path(root, "key"), Path(root, "crt"), name="headquarters", now=START)


class Officer:
    """A person at the gate who goes the whole way."""

    def __init__(self, house, name="alice"):
        self.house, self.http = house, house.client(name)
        self.incident_id = ""

    def post(self, path, **body):
        return self.http.post(path, json=body)

    def open_incident(self):
        answer = self.post("/v1/incidents", purpose="search", reference="fire alarm, building B")
        self.incident_id = answer.json()["incident_id"]
        return self

    def ask(self, mode="view", **changes):
        body = {"incident_id": self.incident_id, "cameras": ["lobby"], "mode": mode, **SPAN, **changes}
        return self.post("/v1/requests", **body)

    def grant(self, **changes):
        return self.ask(**changes).json()["grant"]["grant_id"]

    def view(self, grant=None):
        return self.post(f"/v1/grants/{grant or self.grant()}/viewings", camera="lobby").json()

    def part(self, serving, index=0, kind="m4s"):
        return self.http.get(f"/v1/servings/{serving['serving_id']}/{index}.{kind}")

    def film(self, serving):
        """Return all of a viewing as one file."""
        parts = [self.part(serving, index) for index in range(len(serving["parts"]))]
        return self.part(serving, kind="init.mp4").content + b"".join(
            one.content for one in parts if one.is_success
        )


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


@pytest.fixture
def alice(house) -> Officer:
    return Officer(house).open_incident()


def reasons(house):
    return [body["reason"] for body in house.events(Event.REFUSED)]


# --- the whole way ---


def test_an_approved_officer_sees_every_frame_that_was_granted(house, alice, tmp_path):
    film = tmp_path / "film.mp4"
    film.write_bytes(alice.film(alice.view()))
    assert frame_numbers(film) == list(range(3 * GOP))
    assert [record.event for record in house.ledger.records()][-7:] == [
        Event.INCIDENT_OPENED,
        Event.REQUESTED,
        Event.GRANTED,
        Event.VIEWING,
        *[Event.SERVED] * 3,
    ]
    served = house.events(Event.SERVED)
    assert [(one["segments"], one["frames"]) for one in served] == [(1, GOP)] * 3


def test_only_whole_fragments_inside_the_granted_span_leave(alice, tmp_path):
    grant = alice.grant(start=(START + SECOND / 2).isoformat())
    film = tmp_path / "film.mp4"
    film.write_bytes(alice.film(alice.view(grant)))
    assert frame_numbers(film) == list(range(GOP, 3 * GOP))


def test_a_missing_segment_stays_a_hole_and_the_rest_plays(house, alice, tmp_path):
    serving = alice.view()
    del house.store.bodies[serving["parts"][1]["object_key"]]
    film = tmp_path / "film.mp4"
    film.write_bytes(alice.film(serving))
    assert frame_numbers(film) == [*range(GOP), *range(2 * GOP, 3 * GOP)]


def test_an_export_waits_for_a_second_person_who_is_not_the_first(house, alice):
    asked = alice.ask(mode="export").json()
    assert asked["grant"] is None
    path = f"/v1/requests/{asked['request_id']}/approve"
    assert alice.post(path).json()["reason"] == "second-person-is-requester"
    assert Officer(house, "carol").post(path).json()["reason"] == "no-approval"
    granted = Officer(house, "bruno").post(path).json()
    assert granted["second_person"] == "bruno"
    answer = alice.post(f"/v1/grants/{granted['grant_id']}/exports", camera="lobby")
    assert answer.json()["delete_by"]
    assert alice.post(f"/v1/grants/{granted['grant_id']}/viewings", camera="lobby").status_code == 403
    assert len(house.events(Event.EXPORT)) == 1


def test_of_approvals_at_the_same_time_one_makes_a_grant(house, alice):
    asked = alice.ask(mode="export").json()["request_id"]

    def approve(_):
        try:
            return house.gate.approve("bruno", asked).id
        except AccessRefused as refused:
            return refused.reason

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(approve, range(8)))
    (granted,) = house.events(Event.GRANTED)
    assert sorted(answers) == sorted([granted["grant_id"], *["not-granted"] * 7])


def test_of_two_grants_of_one_request_on_record_the_second_gives_nothing(house, alice):
    asked = alice.ask(mode="export").json()["request_id"]
    granted = Officer(house, "bruno").post(f"/v1/requests/{asked}/approve").json()["grant_id"]
    (first,) = house.events(Event.GRANTED)
    house.ledger.append(Event.GRANTED, actor="bruno", body={**first, "grant_id": "another"})
    assert alice.post(f"/v1/grants/{granted}/exports", camera="lobby").status_code == 200
    assert alice.post("/v1/grants/another/exports", camera="lobby").json()["reason"] == "grant-revoked"


# --- nobody else ---


OIDC = ("login", "callback", "device", "token")
FOR_EVERYBODY = {"/healthz", "/v1/login", "/", *(f"/v1/oidc/{name}" for name in OIDC)}
"""Routes that need no login. Each has tests of its own."""
ABOUT_ONESELF = {"/v1/logout", "/v1/whoami", "/v1/notice", "/v1/acknowledgements"}
"""Routes that every login may use: they tell nothing and open nothing."""


def routes() -> Iterator[tuple[str, str]]:
    """Every route of the API but those that are for everybody."""
    api = create_api(None, find_camera=find_camera, all_cameras=list)
    for path, methods in api.openapi()["paths"].items():
        if path not in FOR_EVERYBODY:
            settled = path.replace("{index}", "0").replace("{number}", "0")
            yield from ((method.upper(), settled) for method in methods)


ROUTES = list(routes())
BODIES = {
    "/v1/incidents": {"purpose": "search", "reference": "curiosity"},
    "/v1/search": {"incident_id": "x", "cameras": ["lobby"], **SPAN},
    "/v1/requests": {"incident_id": "x", "cameras": ["lobby"], **SPAN},
    "/v1/presence": {"incident_id": "x", "at": START.isoformat()},
    "/v1/reviews/{grant_id}": {"verdict": "nothing to see"},
    "/v1/grants/{grant_id}/viewings": {"camera": "lobby"},
    "/v1/grants/{grant_id}/exports": {"camera": "lobby"},
}


def test_there_are_routes_to_test():
    assert len(ROUTES) >= 18


@pytest.mark.parametrize("authorization", ["", "Bearer ", "Bearer guess", "Basic YWxpY2U6eA=="])
def test_without_a_login_every_route_answers_the_same_401(house, authorization):
    client = house.client()
    for method, path in ROUTES:
        body = BODIES.get(path, {}) if method == "POST" else None
        answer = client.request(method, path, json=body, headers={"Authorization": authorization})
        assert (path, answer.status_code) == (path, 401)
        assert answer.json()["error"] == "NotLoggedIn"


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_login_without_approval_opens_no_route(house, alice, method, path):
    """Even with ids of real incidents, grants and servings in hand."""
    serving = alice.view()
    names = {"incident_id": alice.incident_id, **{key: serving[key] for key in ("grant_id", "serving_id")}}
    body = {key: names.get(key, value) for key, value in BODIES.get(path, {}).items()}
    names |= {"ticket": "guess", "player": "guess"}
    names["request_id"] = house.events(Event.REQUESTED)[0]["request_id"]
    if path in ABOUT_ONESELF:
        return
    answer = house.client("carol").request(
        method, path.format(**names), json=body if method == "POST" else None
    )
    if "{ticket}" in path or "{player}" in path:
        assert answer.status_code == 401  # what opens these is not a login
        return
    assert answer.status_code == 403
    assert answer.json()["reason"] in {"no-approval", "not-granted"}
    assert len(reasons(house)) == 1


def test_a_grant_of_one_officer_serves_no_other(house, alice):
    bruno = Officer(house, "bruno")
    serving = alice.view()
    for answer in (
        bruno.post(f"/v1/grants/{serving['grant_id']}/viewings", camera="lobby"),
        bruno.part(serving),
        bruno.http.get(serving["playlist"]),
    ):
        assert (answer.status_code, answer.json()["reason"]) == (403, "not-granted")
    assert house.events(Event.SERVED) == []


def test_what_exists_is_not_told_to_who_may_not_see(house):
    carol = Officer(house, "carol")
    answers = [
        carol.post("/v1/grants/x/viewings", camera=name).json() for name in ("lobby", "no such camera")
    ]
    assert answers[0] == answers[1]


ENDS_THE_SESSION = {"approval-revoked", "staff-suspended"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(lambda house, alice: house.staff.revoke("alice"), "approval-revoked", id="withdrawn"),
        pytest.param(lambda house, alice: house.staff.suspend("alice"), "staff-suspended", id="suspended"),
        pytest.param(
            lambda house, alice: alice.post(f"/v1/incidents/{alice.incident_id}/close"),
            "incident-closed",
            id="incident closed",
        ),
        pytest.param(
            lambda house, alice: alice.post(f"/v1/grants/{alice.granted}/revoke"),
            "grant-revoked",
            id="revoked",
        ),
        pytest.param(
            lambda house, alice: setattr(house, "access", replace(house.access, notice_sha256="b" * 64)),
            "notice-not-acknowledged",
            id="new notice",
        ),
        pytest.param(
            lambda house, alice: house.ledger.append(
                Event.STAFF_REVOKED, actor="operator", body={"staff_id": "alice"}
            ),
            "approval-revoked",
            id="withdrawn in the ledger alone",
        ),
        pytest.param(
            lambda house, alice: house.ledger.append(Event.SITE_RECONCILED, actor="operator", body={}),
            "approval-revoked",
            id="the site came out of a backup",
        ),
    ],
)
def test_whatever_ends_the_right_ends_the_viewing_at_its_next_segment(house, alice, change, reason):
    serving = alice.view()
    alice.granted = serving["grant_id"]
    place = serving["playlist"].removesuffix("index.m3u8")
    assert alice.http.get(f"{place}0.m4s").status_code == 200
    unused = alice.post(f"/v1/servings/{serving['serving_id']}/ticket").json()["path"]
    change(house, alice)
    answer = alice.http.get(f"{place}1.m4s")
    assert (answer.status_code, answer.json()["reason"]) == (403, reason)
    for again in (
        alice.part(serving),
        alice.http.get(unused),
        alice.post(f"/v1/servings/{serving['serving_id']}/ticket"),
    ):
        assert again.status_code == (401 if reason in ENDS_THE_SESSION else 403)
    assert reasons(house)[-1] == reason


def test_nothing_that_stood_before_a_site_came_out_of_a_backup_stands_after_it(house, alice):
    """The records that the backup lacks may have ended it."""
    facts, delegate = house.staff.facts("alice"), house.person_keys["delegate"]
    valid = Span(house.clock.at, house.clock.at + DAY)
    never_recorded = sign_approval(facts, "delegate", delegate, valid=valid, now=house.clock.at)
    grant, incident = alice.grant(), alice.incident_id
    house.clock.passes(SECOND)
    house.ledger.append(Event.SITE_RECONCILED, actor="operator", body={})
    approval = house.staff.file_approval(never_recorded)
    house.ledger.append(
        Event.STAFF_APPROVED, actor="operator", body={"staff_id": "alice", "approval_id": approval.id}
    )
    assert house.gate.right("alice").reason is Reason.APPROVAL_REVOKED
    house.admit("alice")
    assert house.gate.right("alice").allowed
    assert house.gate.incidents("alice") == []
    assert house.gate.grants("alice") == []
    alice = Officer(house)
    answer = alice.post(f"/v1/grants/{grant}/viewings", camera="lobby")
    assert answer.json()["reason"] == "incident-closed"
    assert alice.post("/v1/search", incident_id=incident, **SPAN).json()["reason"] == "incident-closed"


def test_a_paper_that_was_signed_before_a_withdrawal_and_kept_back_brings_nobody_in_again(house, alice):
    valid = Span(house.clock.at, house.clock.at + DAY)
    facts, delegate = house.staff.facts("alice"), house.person_keys["delegate"]
    spare = sign_approval(facts, "delegate", delegate, valid=valid, now=house.clock.at)
    house.clock.passes(SECOND)
    house.staff.revoke("alice")
    house.ledger.append(Event.STAFF_REVOKED, actor="operator", body={"staff_id": "alice", "approval_id": ""})
    body = {"staff_id": "alice", "approval_id": house.staff.file_approval(spare).id}
    house.ledger.append(Event.STAFF_APPROVED, actor="operator", body=body)
    assert house.gate.right("alice").reason is Reason.APPROVAL_REVOKED
    house.admit("alice")
    assert house.gate.right("alice").allowed


def test_a_grant_ends_by_itself(house, alice):
    serving = alice.view()
    house.clock.passes(HOUR - SECOND)
    assert alice.http.get("/v1/whoami").status_code == 200
    house.clock.passes(SECOND)
    assert alice.part(serving).json()["reason"] == "grant-expired"


# --- no byte without its record ---


@pytest.mark.parametrize("event", [Event.VIEWING, Event.REQUESTED, Event.GRANTED, Event.INCIDENT_OPENED])
def test_nothing_happens_that_cannot_be_recorded(house, monkeypatch, event):
    append_all = house.ledger.append_all

    def failing(drafts):
        if event in {kind for kind, _, _ in drafts}:
            raise LedgerUnavailable("the disk of the ledger is full")
        return append_all(drafts)

    monkeypatch.setattr(house.ledger, "append_all", failing)
    alice = Officer(house)
    answer = alice.post("/v1/incidents", purpose="search", reference="fire")
    if answer.is_success:
        alice.incident_id = answer.json()["incident_id"]
        answer = alice.ask()
    if answer.is_success:
        answer = alice.post(f"/v1/grants/{answer.json()['grant']['grant_id']}/viewings", camera="lobby")
    assert answer.status_code == 503
    assert house.events(event) == []


@pytest.mark.parametrize(
    ("mode", "method", "path"),
    [("view", "GET", "0.m4s"), ("export", "GET", "0.m4s"), ("export", "POST", "films/0")],
)
def test_a_serving_that_began_in_time_gives_nothing_to_a_ledger_that_is_full_since(
    house, alice, monkeypatch, mode, method, path
):
    house.access = replace(house.access, second_person=frozenset())
    grant = alice.grant(mode=mode)
    serving = alice.post(f"/v1/grants/{grant}/{'viewings' if mode == 'view' else 'exports'}", camera="lobby")
    place = f"/v1/servings/{serving.json()['serving_id']}/{path}"
    body = {} if method == "POST" else None
    assert alice.http.request(method, place, json=body).status_code == 200

    def full(*_, **__):
        raise LedgerUnavailable("the disk of the ledger is full")

    monkeypatch.setattr(house.ledger, "append_all", full)
    answer = alice.http.request(method, place, json=body)
    assert (answer.status_code, answer.json()["error"]) == (503, "LedgerUnavailable")


def test_a_ledger_that_does_not_verify_closes_the_door(house, alice):
    alice.view()
    path = house.root / "ledger" / "records.jsonl"
    path.write_bytes(path.read_bytes().replace(b"fire alarm", b"fair alarm"))
    house.open()
    house.gate = house.new_gate()
    answer = house.client().post("/v1/login", json=house.credentials("alice"))
    assert (answer.status_code, answer.json()["error"]) == (503, "LedgerBroken")


def test_whoever_asks_the_casebook_finds_what_was_recorded_before_he_asked(house):
    book = Casebook(house.ledger)

    def one(number):
        for part in range(10):
            name = f"{number}-{part}"
            body = {"incident_id": name, "purpose": "search", "reference": "fire"}
            house.ledger.append(Event.INCIDENT_OPENED, actor="alice", body=body)
            assert name in book.follow().incidents

    with ThreadPoolExecutor(8) as many:
        list(many.map(one, range(8)))


def test_a_list_is_told_while_somebody_else_asks_for_footage(house, alice):
    class Meanwhile(datetime):
        """A time at which one more grant is made when the end of another is looked at."""

        asked = False

        def __lt__(self, other):
            if other == ends and not Meanwhile.asked:
                Meanwhile.asked = True
                alice.grant()
            return super().__lt__(other)

    grants = [alice.grant() for _ in range(3)]
    at, ends = house.clock.at, house.clock.at + HOUR
    house.clock.at = Meanwhile.combine(at.date(), at.timetz())
    assert [one.id for one in house.gate.grants("alice")] == grants
    assert Meanwhile.asked


def test_a_film_that_is_broken_off_is_recorded_as_far_as_it_went(house, alice):
    house.access = replace(house.access, second_person=frozenset())
    serving = house.gate.footage.begin("alice", alice.grant(mode="export"), LOBBY, Mode.EXPORT)
    film = house.gate.exports.film(serving, CAMERAS["lobby"], 0, person=lambda: "alice")
    for _ in range(3):  # the head, and two segments
        next(film)
    film.close()
    assert house.events(Event.SERVED)[-1]["segments"] == 2


def test_a_film_ends_with_the_login_that_it_is_fetched_by(house, alice):
    """However slowly somebody reads who holds a token that its owner has given back."""
    house.access = replace(house.access, second_person=frozenset())
    grant = alice.grant(mode="export")
    serving = alice.post(f"/v1/grants/{grant}/exports", camera="lobby").json()["serving_id"]
    whole = len(alice.post(f"/v1/servings/{serving}/films/0").content)
    token = alice.http.headers["Authorization"]
    sent, left = [{"type": "http.request", "body": b"{}"}], []

    async def receive():
        if not sent:
            await asyncio.Event().wait()  # the client stays
        return sent.pop()

    async def send(message):
        left.append(message.get("body", b""))
        if len(left) == 2:  # the beginning of the film is on its way
            house.gate.entrance.logout(token.removeprefix("Bearer "))

    headers = {"Authorization": token, "Content-Length": "2", "Content-Type": "application/json"}
    scope = {
        "type": "http", "method": "POST", "path": f"/v1/servings/{serving}/films/0", "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    with pytest.raises(Exception, match="response already started"):
        asyncio.run(house.api()(scope, receive, send))
    assert len(b"".join(left)) < whole / 2
    assert house.events(Event.SERVED)[-1]["segments"] == 1, "that was opened before, of three"


# --- at the deadline ---


def test_footage_whose_key_is_destroyed_is_gone_for_everybody(house, alice):
    serving = alice.view()
    house.clock.at = house.policies[Kind.VIDEO].deadline(KeyId.covering(START, HOUR))
    house.access = replace(house.access, grant_lifetime=60 * DAY)
    house.admit("alice")
    alice = Officer(house).open_incident()
    assert alice.part(serving).status_code == 403  # the grant has long ended
    part = alice.part(alice.view())
    assert (part.status_code, part.json()["error"]) == (410, "FootageDeleted")


def test_what_is_past_the_deadline_of_its_camera_is_found_by_nobody_though_retention_is_late(house, alice):
    house.policies[Kind.VIDEO] = replace(house.policies[Kind.VIDEO], shorter={LOBBY: 2 * HOUR})
    body = {"incident_id": alice.incident_id, "cameras": ["lobby"], **SPAN}
    assert {row["kind"] for row in alice.post("/v1/search", **body).json()} == {"footage"}
    house.clock.passes(3 * HOUR)
    rows = Officer(house).post("/v1/search", **body).json()
    assert {row["kind"] for row in rows} == {"expired"}


def test_footage_of_a_camera_that_is_kept_for_longer_again_comes_back_to_nobody(house, alice):
    """The gate has judged by the shorter keep, retention never ran."""
    serving = alice.view()
    short = replace(house.policies[Kind.VIDEO], shorter={LOBBY: 2 * HOUR})
    for policy in (short, house.policies[Kind.VIDEO]):
        house.policies[Kind.VIDEO] = policy
        assert alice.part(serving).status_code == 200
    house.clock.passes(3 * HOUR)
    body = {"incident_id": alice.incident_id, "cameras": ["lobby"], **SPAN}
    alice = Officer(house).open_incident()
    assert {row["kind"] for row in alice.post("/v1/search", **body).json()} == {"expired"}
    assert alice.part(alice.view()).status_code == 410


def test_bytes_that_a_store_altered_are_not_shown(house, alice):
    serving = alice.view()
    key = serving["parts"][0]["object_key"]
    body, stored_at = house.store.bodies[key]
    house.store.bodies[key] = body[:-1] + bytes([body[-1] ^ 1]), stored_at
    answer = alice.part(serving)
    assert (answer.status_code, answer.json()["error"]) == (502, "IntegrityError")


def test_a_segment_that_was_given_another_name_is_not_shown(house, alice):
    """Whoever may write to the store can give what lies there any name, and not what is under the seal."""
    (group,) = groups(1)
    movie = packing.choose(INFO, group.packets[0]).alone(group)
    stranger = uuid4()
    recorded = [(LOBBY, START + 3 * SECOND), (stranger, START + 4 * SECOND), (LOBBY, START)]
    for number, (camera, start) in enumerate(recorded, start=3):
        house.record(number, movie=movie + cmaf.origin_of(camera, start), length=SECOND)
    serving = alice.view(alice.grant(end=(START + MINUTE).isoformat()))
    assert alice.part(serving, 3).status_code == 200
    for index in (4, 5):
        answer = alice.part(serving, index)
        assert answer.status_code == 502
        assert answer.json()["error"] == "IntegrityError"
        assert str(stranger) not in answer.text


@pytest.mark.parametrize(
    "altered",
    [
        pytest.param(f"camera_id = '{LOBBY}'", id="another camera's footage"),
        pytest.param("start_us = start_us - 100000000", id="footage of another time"),
    ],
)
def test_rows_that_somebody_altered_show_nothing(house, alice, altered):
    """Whoever has the database of the catalogue has no footage by it."""
    lobby = house.catalogue.segments([LOBBY], Span(START, START + HOUR))
    gate = house.record(camera=uuid4(), movie=b"of the gate", length=SECOND)
    house.catalogue = SqlCatalogue.open(f"sqlite:///{house.root}/catalogue.db")
    house.catalogue.adopt([*lobby, gate])
    house.gate = house.new_gate()
    alice = Officer(house).open_incident()
    assert len(alice.view()["parts"]) == len(lobby)
    with closing(sqlite3.connect(house.root / "catalogue.db")) as database, database:
        database.execute(f"UPDATE segments SET {altered}")
    span = {"start": (START - 2 * MINUTE).isoformat(), "end": START.isoformat()}
    grant = alice.grant(**span if "start" in altered else {})
    answer = alice.post(f"/v1/grants/{grant}/viewings", camera="lobby")
    assert (answer.status_code, answer.json()["error"]) == (502, "IntegrityError")
    assert str(gate.camera_id) not in answer.text
    house.catalogue.close()


@pytest.mark.parametrize("kind", [*every_error()], ids=lambda kind: kind.__name__)
def test_every_error_comes_out_of_the_client_as_it_left_the_gate(kind):
    fault = {"error": kind.__name__, "message": "what", "hint": "what next", "reason": "what"}
    with pytest.raises(kind, match="what") as raised:
        _answer(httpx.Response(kind.http_status, json=fault))
    assert raised.value.hint == "what next"


# --- playlists ---


def test_a_playlist_tells_times_and_its_parts_play(alice, tmp_path):
    serving = alice.view()
    lines = alice.http.get(serving["playlist"]).text.splitlines()
    times = [line.partition(":")[2] for line in lines if line.startswith("#EXT-X-PROGRAM-DATE-TIME")]
    assert times[0] == START.isoformat(timespec="milliseconds")
    assert sum(float(line[8:-1]) for line in lines if line.startswith("#EXTINF:")) == pytest.approx(3.0)
    place = serving["playlist"].removesuffix("index.m3u8")
    film = tmp_path / "part.mp4"
    film.write_bytes(alice.http.get(f"{place}1.init.mp4").content + alice.http.get(f"{place}1.m4s").content)
    assert frame_numbers(film) == list(range(GOP, 2 * GOP))
    assert alice.http.get(f"{place}9.m4s").status_code == 400


# --- entry and exit ---


def test_who_is_on_the_premises_is_told_for_an_open_incident_and_recorded(house, alice):
    for badge, direction in (("4711", Direction.ENTRY), ("4712", Direction.ENTRY), ("4712", Direction.EXIT)):
        house.register().record(Passage(badge, "north", direction, house.clock.now()))
        house.clock.passes(SECOND)
    body = {"incident_id": alice.incident_id, "at": house.clock.now().isoformat()}
    answer = alice.post("/v1/presence", **body).json()
    assert ([row["badge"] for row in answer["inside"]], answer["unread"]) == (["4711"], [])
    assert alice.post("/v1/presence", **{**body, "incident_id": "x"}).status_code == 403
    (record,) = house.events(Event.PRESENCE_READ)
    assert "4711" not in str(record)


# --- logins ---


def test_a_wrong_password_is_refused_recorded_and_slowed_down_for_that_address_only(house):
    client = house.client()
    for attempt in range(12):
        answer = client.post("/v1/login", json={"staff_id": "alice", "password": f"guess {attempt}"})
        assert answer.status_code == (401 if attempt < 10 else 429)
    assert "too many attempts" in answer.json()["message"]
    assert len(house.events(Event.LOGIN_REFUSED)) == 10
    typed = house.credentials("alice")
    token, _ = house.gate.entrance.login(*typed.values(), address="192.0.2.7")
    assert house.gate.entrance.staff_id(token) == "alice"


def test_a_person_nobody_knows_leaves_no_name_in_the_ledger(house):
    """People type passwords into the wrong field."""
    house.client().post("/v1/login", json={"staff_id": PASSWORD, "password": "x"})
    assert house.events(Event.LOGIN_REFUSED) == [{"staff_id": "unknown", "fault": "staff-unknown"}]


@pytest.mark.parametrize("ended", ["idle", "longest", "logout", "restart"])
def test_logins_end(house, alice, ended):
    def works():
        return alice.http.get("/v1/whoami").status_code == 200

    assert works()
    if ended == "idle":
        house.clock.passes(HOUR)
    elif ended == "longest":
        for _ in range(9):
            works()
            house.clock.passes(HOUR - SECOND)
    elif ended == "logout":
        alice.post("/v1/logout")
    else:
        house.gate = alice.http.app.state.gate = house.new_gate()
    assert not works()


# --- bad input ---


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"start": "yesterday"}, 400),
        ({"start": "2026-11-24T12:00:00"}, 400),
        ({"start": SPAN["end"], "end": SPAN["start"]}, 400),
        ({"cameras": []}, 400),
        ({"cameras": ["nothing"]}, 404),
        ({"mode": "keep"}, 400),
        ({"incident_id": "x"}, 403),
        ({"hold": True}, 400),
        ({"end": (START + timedelta(hours=5)).isoformat()}, 403),
    ],
)
def test_bad_requests_are_answered_with_what_to_mend(alice, changes, status):
    answer = alice.ask(**changes)
    assert answer.status_code == status
    assert answer.json()["message"]


@pytest.mark.parametrize("reference", ["", " ", "x" * 201, "a\nb"])
def test_an_incident_names_its_emergency(house, reference):
    answer = Officer(house).post("/v1/incidents", purpose="search", reference=reference)
    assert answer.status_code == 400


@pytest.mark.parametrize("purpose", ["investigation", "", "SEARCH"])
def test_there_are_two_purposes_and_no_third(house, purpose):
    answer = Officer(house).post("/v1/incidents", purpose=purpose, reference="x")
    assert answer.status_code == 400
    assert house.events(Event.INCIDENT_OPENED) == []


def test_nothing_is_ever_written_to_disk_in_the_clear(house, alice):
    alice.part(alice.view())
    clear = [path for path in Path(house.root).rglob("*") if path.is_file() and b"moof" in path.read_bytes()]
    assert clear == []
