"""The entrance: no session outlives what it began under, no code serves twice, no guess goes on for long."""

from __future__ import annotations

import asyncio
import socket
import threading
from datetime import timedelta

import httpx
import pytest
from anyio.to_thread import current_default_thread_limiter
from argon2 import PasswordHasher

from tests.premises import DAY, HOUR, SECOND
from tests.rooms.test_gate import NOTICE, PASSWORD, House, Officer
from videostore.domain.errors import NotLoggedIn
from videostore.domain.identity import CODE_TRIES, Identity
from videostore.domain.ledger import Event
from videostore.domain.segment import Span
from videostore.gate.oidc import Provider, Settings
from videostore.gate.papers import sign_acknowledgement, sign_approval
from videostore.gate.staff import FileStaffDirectory


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


def log_in(house, address="192.0.2.1", **changes):
    typed = {**house.credentials("alice"), **changes}
    return house.gate.entrance.login(*typed.values(), address=address)


def recover(house):
    """Give alice another login, as the delegate."""
    how = {"approver": "delegate", "key": house.person_keys["delegate"], "password": PASSWORD}
    house.secrets["alice"], renewed = house.staff.recover("alice", now=house.clock.now(), **how)
    body = {"staff_id": "alice", "approval_ids": [paper.id for paper in renewed]}
    house.ledger.append(Event.STAFF_RECOVERED, actor="operator", body=body)


def faults(house):
    return [body["fault"] for body in house.events(Event.LOGIN_REFUSED)]


def test_a_code_serves_once_even_after_a_restart(house):
    typed = house.credentials("alice")
    house.gate.entrance.login(*typed.values(), address="a")
    for gate in (house.gate, house.new_gate()):
        with pytest.raises(NotLoggedIn):
            gate.entrance.login(*typed.values(), address="a")
    assert faults(house) == ["code-used-before"] * 2


def test_wrong_codes_lock_an_account_until_an_approver_gives_another_login(house):
    house.clock.passes(10 * SECOND)
    for _ in range(CODE_TRIES):
        with pytest.raises(NotLoggedIn):
            log_in(house, code="000000")
    house.gate = house.new_gate()
    with pytest.raises(NotLoggedIn):
        log_in(house)
    assert faults(house)[-1] == "account-locked"
    recover(house)
    house.clock.passes(HOUR)
    assert log_in(house)
    assert house.gate.right("alice").reason == "notice-not-acknowledged"


def test_who_does_not_know_the_password_locks_nobody_out(house):
    for number in range(4 * CODE_TRIES):
        with pytest.raises(NotLoggedIn):
            log_in(house, address=f"192.0.2.{number}", password="a guess", code="000000")
    house.clock.passes(HOUR)
    assert log_in(house)


class Held(PasswordHasher):
    """Hashes when it is let."""

    def __init__(self):
        super().__init__(time_cost=1, memory_cost=64, parallelism=1)
        self.go = threading.Event()
        self.go.set()

    def verify(self, *given):
        self.go.wait()
        return super().verify(*given)


@pytest.mark.parametrize("way", ["password", "provider", "sheet"])
def test_who_plays_waits_for_nobody_else(house, way):
    """For however many guesses, a provider that does not answer, or officers who look at pictures."""
    hasher = Held()
    house.staff = FileStaffDirectory(
        house.root / "staff", approvers=lambda: house.approvers, key=lambda: house.master, hasher=hasher
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        issuer = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = Settings(issuer, "gate", "", "openid", timedelta(0), f"{issuer}/back")
        house.gate = house.new_gate(provider=Provider(settings, now=house.clock.now))
        alice = Officer(house).open_incident()
        sheet = f"/v1/servings/{alice.view()['serving_id']}/sheet"
        get = house.store.get
        house.store.get = lambda key: hasher.go.wait() and get(key)
        hasher.go.clear()

        def guess(http, number):
            if way == "sheet":
                return http.post(sheet, json={"columns": 1, "rows": 1}, headers=alice.http.headers)
            body = {"staff_id": f"guess{number}", "password": "a guess"}
            return http.get("/v1/oidc/login") if way == "provider" else http.post("/v1/login", json=body)

        async def ask():
            current_default_thread_limiter().total_tokens = 4  # of 40: fewer guesses are as good
            transport = httpx.ASGITransport(house.api())
            async with httpx.AsyncClient(transport=transport, base_url="https://gate") as http:
                guesses = [asyncio.create_task(guess(http, number)) for number in range(12)]
                try:
                    who = http.get("/v1/whoami", headers=alice.http.headers)
                    return await asyncio.wait_for(who, timeout=60)
                finally:
                    hasher.go.set()
                    silent.close()
                    await asyncio.gather(*guesses)

        assert asyncio.run(ask()).status_code == 200


@pytest.mark.parametrize("fault", ["password", "code", "nobody", "locked", "suspended"])
def test_every_refused_login_is_told_the_same(house, fault):
    if fault == "locked":
        for _ in range(CODE_TRIES):
            house.client().post("/v1/login", json={**house.credentials("alice"), "code": "1"})
    if fault == "suspended":
        house.staff.suspend("alice")
    wrong = {"password": {"password": "x"}, "code": {"code": "x"}, "nobody": {"staff_id": "nobody"}}
    answer = house.client().post("/v1/login", json={**house.credentials("alice"), **wrong.get(fault, {})})
    body = answer.json()
    assert (answer.status_code, body["error"]) == (401, "NotLoggedIn")
    assert body["message"] == "you could not be logged in: wrong identifier, password or code"


def test_no_session_outlives_its_approval(house):
    house.staff.revoke("alice")
    now = house.clock.now()
    paper = sign_approval(
        house.staff.facts("alice"), "delegate", house.person_keys["delegate"],
        valid=Span(now, now + HOUR / 2), now=now,
    )  # fmt: skip
    house.staff.file_approval(paper)
    house.ledger.append(
        Event.STAFF_APPROVED, actor="operator", body={"staff_id": "alice", "approval_id": paper["id"]}
    )
    token, login = log_in(house)
    assert login.ends_at == now + HOUR / 2
    house.clock.passes(HOUR / 2)
    with pytest.raises(NotLoggedIn):
        house.gate.entrance.staff_id(token)


def test_an_approval_withdrawn_ends_every_session_at_once_and_says_why_once(house):
    first, second = Officer(house), Officer(house)
    house.staff.revoke("alice")
    answers = [one.http.get("/v1/whoami") for one in (first, first, second)]
    assert [answer.status_code for answer in answers] == [403, 401, 401]
    assert answers[0].json()["reason"] == "approval-revoked"


def test_a_login_that_is_changed_ends_the_sessions_of_the_former_one(house):
    alice = Officer(house)
    recover(house)
    assert alice.http.get("/v1/whoami").status_code == 401


def test_an_approval_that_the_ledger_does_not_tell_of_is_none(house):
    """Root puts a copy of an approval that was once signed, and withdrawn on paper only, into the file."""
    now = house.clock.now()
    house.staff.approve(
        "carol", "delegate", house.person_keys["delegate"], valid=Span(now, now + DAY), now=now
    )
    assert house.gate.right("carol").reason == "approval-not-on-record"


def test_the_notice_is_signed_at_the_gate_and_the_key_stays_at_home(house):
    alice = Officer(house)
    recover(house)
    house.clock.passes(HOUR)
    alice = Officer(house)
    asked = alice.http.get("/v1/notice").json()
    assert asked["notice_sha256"] == NOTICE
    names = {name: asked[name] for name in ("notice_sha256", "login_sha256")}
    paper = sign_acknowledgement("alice", house.person_keys["alice"], **names, now=house.clock.now())
    assert alice.post("/v1/acknowledgements", **{**paper, "notice_sha256": "b" * 64}).status_code == 400
    assert alice.post("/v1/acknowledgements", **{**paper, "signature": "x"}).status_code == 400
    bruno = Officer(house, "bruno")
    assert bruno.post("/v1/acknowledgements", **paper).status_code == 400
    assert alice.post("/v1/acknowledgements", **paper).status_code == 200
    assert house.events(Event.STAFF_ACKNOWLEDGED) == [{"notice_sha256": NOTICE}]
    assert house.staff.dossier("alice").acknowledgements[-1].signature_valid


def test_who_the_provider_knows_and_the_site_does_not_stays_outside(house):
    public = house.person_keys["delegate"].public
    who = Identity("https://id.example", "1")
    house.staff.add("dora", department="DSS", public_key=public, identity=who)
    _, login = house.gate.entrance.enter(who)
    assert login.staff_id == "dora"
    house.staff.suspend("dora")
    for identity in (who, Identity("https://id.example", "2"), Identity("https://other.example", "1")):
        with pytest.raises(NotLoggedIn):
            house.gate.entrance.enter(identity)
    assert faults(house) == ["suspended", "subject-unknown", "subject-unknown"]
