"""OpenID Connect against a real provider: in a browser, at a terminal, through a change of its keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from tests.conftest import missing
from tests.provider import CALLBACK, CLIENT, SECRET, glewlwyd, is_installed
from tests.rooms.test_gate import House
from videostore.domain.errors import NotLoggedIn, ProviderUnavailable
from videostore.domain.identity import Fault, Identity
from videostore.domain.ledger import Event
from videostore.gate.oidc import Provider, Settings


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not is_installed():
        missing("Glewlwyd is not installed: apt-get install glewlwyd")
    with glewlwyd(tmp_path_factory.mktemp("glewlwyd")) as one:
        yield one


class Moment:
    """The gate's clock: the host's, unless it stands still ``at`` a moment, and what a test adds."""

    ahead, at = timedelta(0), None

    def __call__(self):
        return (self.at or datetime.now(UTC)) + self.ahead


@pytest.fixture
def now():
    return Moment()


@pytest.fixture
def provider(server, now):
    return Provider(settings(server), now=now)


def settings(server, **changes):
    given = {"client_id": CLIENT, "client_secret": SECRET, "scope": "openid", "redirect_uri": CALLBACK}
    return Settings(**{"issuer": server.issuer, "max_clock_skew": timedelta(seconds=30), **given, **changes})


def browse(provider, server):
    """Log in with a browser; return what it brings back."""
    address, binding = provider.begin()
    answer = {name: values[0] for name, values in parse_qs(urlsplit(server.agree(address)).query).items()}
    return {"state": answer["state"], "code": answer["code"], "binding": binding}


def test_a_browser_comes_back_with_who_it_is_once(provider, server):
    brought = browse(provider, server)
    who = provider.finish(**brought)
    assert isinstance(who, Identity)
    assert who.issuer == server.issuer
    with pytest.raises(NotLoggedIn):
        provider.finish(**brought)
    assert provider.finish(**browse(provider, server)) == who


def test_what_another_browser_began_is_worth_nothing_here(provider, server):
    """An intruder sends a link with a code of his own, or steals one from a log."""
    for stolen in ({"binding": ""}, {"binding": "guess"}, {"state": "guess"}):
        with pytest.raises(NotLoggedIn):
            provider.finish(**{**browse(provider, server), **stolen})
    mine, other = browse(provider, server), browse(provider, server)
    assert provider.finish(**{**mine, "code": other["code"]}) is Fault.PROVIDER_REFUSED  # PKCE: RFC 7636


def test_a_login_that_takes_too_long_is_begun_again(provider, server, now):
    brought = browse(provider, server)
    now.ahead = timedelta(minutes=10)
    with pytest.raises(NotLoggedIn):
        provider.finish(**brought)


def test_a_terminal_waits_until_the_person_agrees(provider, server, now):
    now.at = datetime.now(
        UTC
    )  # a busy machine needs longer than the second in which the provider is not asked
    shown = provider.begin_device()
    assert provider.poll_device(shown["handle"]) is None
    server.agree(shown["verification_uri_complete"])
    assert provider.poll_device(shown["handle"]) is None, "too soon: the provider is not asked"
    now.ahead = timedelta(seconds=shown["interval_seconds"])
    assert isinstance(provider.poll_device(shown["handle"]), Identity)
    with pytest.raises(NotLoggedIn):
        provider.poll_device(shown["handle"])


def test_the_providers_new_key_is_found_and_its_old_one_forgotten(provider, server, now):
    assert isinstance(provider.finish(**browse(provider, server)), Identity)
    server.rotate_keys()
    now.ahead = timedelta(seconds=11)
    assert isinstance(provider.finish(**browse(provider, server)), Identity)


@pytest.mark.parametrize(
    ("how", "fault"),
    [
        pytest.param(lambda one: {"client_secret": "guess"}, Fault.PROVIDER_REFUSED, id="another client"),
        pytest.param(lambda one: {"max_clock_skew": timedelta(hours=-3)}, Fault.TOKEN_EXPIRED, id="too late"),
    ],
)
def test_what_the_rules_refuse_is_refused(server, now, how, fault):
    provider = Provider(settings(server, **how(server)), now=now)
    assert provider.finish(**browse(provider, server)) is fault


def test_a_token_of_before_its_time_is_refused(provider, server, now):
    now.ahead = timedelta(minutes=-1)
    assert provider.finish(**browse(provider, server)) is Fault.TOKEN_FROM_FUTURE


@pytest.mark.parametrize("forged", ["none", "secret", "another key", "no key id", "not a token"])
def test_a_token_that_the_provider_did_not_sign_is_refused(provider, server, forged):
    provider.finish(**browse(provider, server))
    claims = {"iss": server.issuer, "sub": "1", "aud": CLIENT, "exp": 2**31, "iat": 1}
    key = RSAKey.generate_key(2048)
    published = httpx.get(f"{server.issuer}/jwks", trust_env=False, timeout=60).json()["keys"][0]
    token = {
        "none": "eyJhbGciOiJub25lIn0.e30.",
        "secret": jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(published["n"])),
        "another key": jwt.encode({"alg": "RS256", "kid": published["kid"]}, claims, key),
        "no key id": jwt.encode({"alg": "RS256"}, claims, key),
        "not a token": "guess",
    }[forged]
    assert provider._identify({"id_token": token}, nonce=None) is Fault.TOKEN_UNSIGNED


@pytest.mark.parametrize("answer", [{}, {"id_token": None}, {"id_token": 7}])
def test_an_answer_without_a_token_is_none(provider, answer):
    assert provider._identify(answer, nonce=None) is Fault.TOKEN_MALFORMED


def test_a_provider_that_is_down_or_somebody_else_is_said_so(server, now):
    for issuer in (
        "http://127.0.0.1:1/api/oidc",
        f"{server.issuer}/",
        server.issuer.replace("127.0.0.1", "localhost"),
    ):
        with pytest.raises(ProviderUnavailable):
            Provider(settings(server, issuer=issuer), now=now).begin()


# --- through the gate ---


@pytest.fixture
def house(tmp_path, server):
    """People and a gate of the house, at the provider's time; alice is who she is at the provider."""
    house = House(tmp_path)
    house.clock.at = datetime.now(UTC)
    house.gate = house.new_gate(provider=Provider(settings(server), now=house.clock.now))
    return house


def enrol(house, identity):
    key = house.person_keys["delegate"].public
    house.staff.add("dora", department="DSS", public_key=key, identity=identity)


def test_the_gate_knows_who_came_from_the_provider_and_nobody_else(house, server):
    client = TestClient(house.api(), base_url="https://testserver", follow_redirects=False)
    assert client.get("/v1/login").json() == {"password": True, "oidc": True}
    for known in (False, True):
        away = client.get("/v1/oidc/login")
        back = client.get(server.agree(away.headers["location"]))
        if not known:
            assert (back.status_code, house.events(Event.LOGIN_REFUSED)[-1]["fault"]) == (
                401,
                "subject-unknown",
            )
            assert "__Host-videostore" not in client.cookies
            away = client.get("/v1/oidc/login")
            attempt = {name: values[0] for name, values in
                       parse_qs(urlsplit(server.agree(away.headers["location"])).query).items()}  # fmt: skip
            found = house.gate.entrance._provider.finish(
                **attempt, binding=client.cookies["__Host-videostore-login"]
            )
            enrol(house, found)
    assert back.status_code == 200
    assert house.events(Event.LOGIN)[-1]["by"] == "oidc"
    # The cookie counts for pages of the gate only: another site's page makes a browser ask in vain.
    for site, status in (
        ("same-origin", 200),
        ("cross-site", 401),
        ("same-site", 401),
        ("none", 401),
        ("", 401),
    ):
        assert client.get("/v1/whoami", headers={"Sec-Fetch-Site": site}).status_code == status
    own = {"Sec-Fetch-Site": "same-origin"}
    assert client.post("/v1/logout", json={}, headers=own).status_code == 200
    assert client.get("/v1/whoami", headers=own).status_code == 401


def test_a_terminal_logs_in_at_the_gate(house, server):
    client = TestClient(house.api(), base_url="https://testserver")
    shown = client.post("/v1/oidc/device", json={}).json()
    body = {"handle": shown["handle"]}
    assert client.post("/v1/oidc/token", json=body).json() == {"waits": True}
    server.agree(shown["verification_uri_complete"])
    house.clock.passes(timedelta(seconds=shown["interval_seconds"]))
    assert client.post("/v1/oidc/token", json=body).status_code == 401  # nobody's subject
    assert client.post("/v1/oidc/token", json=body).status_code == 401  # and the handle is used up


def test_a_site_without_a_provider_says_so(tmp_path):
    house = House(tmp_path)
    client = house.client()
    assert client.get("/v1/login").json() == {"password": True, "oidc": False}
    for answer in (client.get("/v1/oidc/login"), client.post("/v1/oidc/device", json={})):
        assert answer.status_code == 400
