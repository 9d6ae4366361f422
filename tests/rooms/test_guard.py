"""Before every route: nothing too large, too slow or too often comes in; nothing leaves without headers."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode

from tests.rooms.test_gate import CAMERAS, House, Officer, find_camera
from videostore.domain.errors import TooManyRequests
from videostore.gate import guard
from videostore.gate.api import create_api
from videostore.gate.rates import Rate, counted
from videostore.gate.refusals import REASONS, Refusal

SCHEMA = schemathesis.openapi.from_dict(
    create_api(
        None, find_camera=find_camera, all_cameras=lambda: list(CAMERAS.values())
    ).openapi()  # nothing is asked
)
DEEP = settings.get_current_profile_name() == "deep"
ENOUGH = settings(
    max_examples=200 if DEEP else 4,
    phases=[Phase.generate],
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=not DEEP,
)


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    return House(tmp_path_factory.mktemp("house"))


@pytest.fixture(scope="module")
def alice(house):
    return Officer(house).open_incident()


# --- what comes in ---


@pytest.mark.parametrize("honest", [True, False])
def test_what_is_too_large_is_refused_before_it_is_read(house, honest):
    body = b"x" * (guard.LARGEST_BODY + 1)
    content = body if honest else iter([body[:1000]] * 1000)  # without a length, as chunks
    answer = house.client().post("/v1/login", content=content)
    assert (answer.status_code, answer.json()["error"]) == (413, "RequestTooLarge")
    answer = house.client().get("/v1/whoami", params={"x": "x" * guard.LONGEST_ADDRESS})
    assert answer.status_code == 413


@pytest.mark.parametrize("length", ["-1", "many", "9" * 5000, "1e3", "²"])
def test_a_length_that_is_none_is_refused(house, length):
    answer = house.client().post("/v1/login", content=b"", headers=[("Content-Length", length.encode())])
    assert answer.status_code == 413


def test_two_lengths_are_refused_and_what_follows_them_is_not_read(house):
    both = {"Content-Length": "2", "Transfer-Encoding": "chunked"}
    answer = house.client().post("/v1/login", content=b"{}", headers=both)
    assert (answer.status_code, answer.json()["error"]) == (400, "RequestInvalid")
    assert answer.headers["Connection"] == "close"


def test_no_answer_leads_to_the_host_that_a_client_names(house):
    answer = house.client().get("/v1/whoami/", headers={"Host": "evil.example"}, follow_redirects=False)
    assert (answer.status_code, answer.headers.get("Location")) == (404, None)


def test_a_body_that_does_not_arrive_is_not_waited_for(house, monkeypatch):
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.01)
    sent = []

    async def never():
        await asyncio.Event().wait()

    async def keep(message):
        sent.append(message)

    scope = {"type": "http", "path": "/v1/login", "query_string": b"", "headers": [], "client": ("a", 1)}
    asyncio.run(guard.Guard(house.api())(scope, never, keep))
    assert sent[0]["status"] == 413


def test_a_name_has_its_limit_and_no_other_pays_for_it():
    rate = Rate(3, timedelta(seconds=30))
    for _ in range(3):
        rate.spend("a", now=0)
    with pytest.raises(TooManyRequests):
        rate.spend("a", now=9)
    rate.spend("b", now=9)
    rate.spend("a", now=11)
    with pytest.raises(TooManyRequests):
        rate.spend("a", now=11)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("testclient", "", False),
    ],
)
def test_who_has_a_network_of_ipv6_is_counted_as_one(one, other, same):
    assert (counted(one) == counted(other)) is same


@given(st.lists(st.floats(0, 1000)))
def test_no_order_of_times_lets_more_through_than_the_limit_and_its_leak(times):
    rate, through = Rate(5, timedelta(seconds=50)), 0
    for now in sorted(times):
        try:
            rate.spend("a", now=now)
        except TooManyRequests:
            continue
        through += 1
    assert through <= 5 + max(times, default=0) / 10 + 1


def test_who_asks_too_often_is_told_to_wait(house, monkeypatch):
    monkeypatch.setattr(guard, "REQUESTS", 3)
    client = house.client()
    answers = [client.get("/healthz").status_code for _ in range(5)]
    assert answers == [200, 200, 200, 429, 429]


# --- what leaves ---


@pytest.mark.parametrize("path", ["/", "/healthz", "/v1/whoami", "/nothing", "/v1/login", "/page/page.js"])
def test_every_answer_says_what_browsers_must_not_do(house, path):
    headers = house.client().get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Strict-Transport-Security"]
    assert headers["Cache-Control"] in {"no-store", "no-cache"}
    assert "server" not in headers


def test_the_api_describes_itself_to_nobody(house):
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert house.client().get(path).status_code == 404


# --- whatever is sent ---


OPERATIONS = [found.ok() for found in SCHEMA.get_all_operations()]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: f"{one.method} {one.path}")
@ENOUGH
@given(st.data())
def test_no_input_breaks_the_gate(house, alice, operation, data):
    """Of a person with every right, so that what is sent reaches the rules and what is behind them."""
    case = data.draw(st.one_of([operation.as_strategy(generation_mode=mode) for mode in GenerationMode]))
    if case.path == "/v1/logout":
        return
    given = case.as_transport_kwargs(base_url="https://testserver")
    given["headers"] = {**dict(given["headers"] or {}), **alice.http.headers}
    given.pop("cookies", None)  # the API takes none but that of a browser
    given["content"] = given.pop("data", None)
    answer = alice.http.request(**given, follow_redirects=False)
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert str(answer.status_code) in case.operation.definition.raw["responses"], "it is declared"
        told = Refusal.model_validate(answer.json())
        assert told.reason in (REASONS if answer.status_code == 403 else [None])


@pytest.mark.parametrize(
    "at", ["0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z",
           "9999-12-31T23:59:59-14:00"],
)  # fmt: skip
def test_no_end_of_the_calendar_breaks_the_gate(house, alice, at):
    serving = alice.view()["serving_id"]
    span = {"incident_id": alice.incident_id, "cameras": ["lobby"], "start": at, "end": at}
    for answer in (
        alice.post("/v1/presence", incident_id=alice.incident_id, at=at),
        alice.post(f"/v1/servings/{serving}/snapshot", at=at),
        alice.post("/v1/search", **{**span, "end": "0001-01-01T00:30:00Z"}),
        alice.post("/v1/requests", **{**span, "start": "0001-01-01T00:00:00Z"}),
    ):
        assert answer.status_code == 400


@pytest.mark.parametrize(
    "asked", ["bytes=0-" + "9" * 5000, "bytes=-" + "9" * 5000, "bytes=--5", "bytes=" + "0-9," * 3000 + "0-9",
              "items=0-5", "bytes=\xb2-"],
)  # fmt: skip
def test_no_range_breaks_the_gate(alice, asked):
    path = alice.view()["playlist"].replace("index.m3u8", "0.m4s")
    answer = alice.http.get(path, headers=[(b"Range", asked.encode("latin-1"))])
    assert answer.status_code == 200, "a range that is none is not looked at"


@given(st.binary(max_size=300))
@ENOUGH
def test_no_bytes_break_the_gate(house, alice, data):
    for path in ("/v1/login", "/v1/requests", "/v1/acknowledgements", "/v1/ledger"):
        answer = alice.http.post(path, content=data, headers={"Content-Type": "application/json"})
        assert 400 <= answer.status_code < 500


@given(st.text(max_size=60))
@ENOUGH
def test_no_token_breaks_the_gate(house, text):
    token = text.encode("utf-8", "surrogatepass")
    answer = house.client().get(
        "/v1/whoami", headers=[(b"Authorization", b"Bearer " + token.replace(b"\n", b""))]
    )
    assert answer.status_code == 401
