"""The gate's page in a real browser: an officer logs in, finds and sees."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate

from tests.browser import chromium
from tests.conftest import missing, program
from tests.premises import SECOND
from tests.provider import CLIENT, PASSWORD, glewlwyd, is_installed
from tests.rooms.test_oidc import browse, settings
from tests.rooms.test_playback import HOLE, Lobby, listening
from tests.servers import free_ports, until
from videostore.domain.ledger import Event
from videostore.gate.certificates import OwnCertificate
from videostore.gate.oidc import Provider
from videostore.signing import SigningKey
from videostore.synthetic.stream import WIDTH

FILL = """
const form = document.forms[arguments[0]];
for (const [name, value] of Object.entries(arguments[1])) form.elements[name].value = value;
form.requestSubmit();
"""
SHOWN = "return document.getElementById(arguments[0])?.checkVisibility() === true"
SEEN = """
const video = document.querySelector("video");
const hear = document.querySelector("figure button");
return {frames: video?.getVideoPlaybackQuality().totalVideoFrames ?? 0, width: video?.videoWidth ?? 0,
  heard: video?.webkitAudioDecodedByteCount ?? 0, hear: hear?.hidden === false,
  time: document.getElementById("utc").textContent, note: document.getElementById("note").textContent,
  problem: document.getElementById("problem").textContent, widths: window.widths,
  over: document.querySelector("figure p")?.textContent, ready: video?.readyState, at: video?.currentTime};
"""
WIDTHS = """
window.widths = [];
document.addEventListener("resize", (event) => widths.push(event.target.videoWidth), true);
"""
"""Of every format that a video went over to."""


@pytest.fixture(scope="module")
def lobby(tmp_path_factory):
    """A gate with the site's own certificate and a provider of identities."""
    house = Lobby(tmp_path_factory.mktemp("lobby"))
    tls = OwnCertificate("headquarters", ["127.0.0.1"], house.root)
    tls.renew(now=datetime.now(UTC))
    key = load_pem_x509_certificate(tls.certificate.read_bytes()).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    house.public_key = base64.b64encode(hashlib.sha256(spki).digest()).decode()
    if not is_installed():
        missing("Glewlwyd is not installed: apt-get install glewlwyd")
    with glewlwyd(tmp_path_factory.mktemp("glewlwyd")) as house.server:
        (port,) = free_ports(1)
        callback = f"https://127.0.0.1:{port}/v1/oidc/callback"
        house.server.send_back_to(callback)
        chosen = settings(house.server, redirect_uri=callback)
        house.provider = Provider(chosen, now=lambda: datetime.now(UTC))
        house.gate = house.new_gate(provider=house.provider)
        how = {"port": port, "certificate": tls.certificate, "key": tls.key}
        with listening(house.api(), **how) as house.url:
            yield house


@pytest.fixture(scope="module")
def browser(lobby, tmp_path_factory):
    profile = tmp_path_factory.mktemp("profile")
    with chromium(program("chromedriver"), profile, trusts=lobby.public_key) as window:
        yield window


def wait_for(browser, part):
    until(lambda: browser.run(SHOWN, part), seconds=60, why=lambda: str(browser.run(SEEN)))


@pytest.fixture
def search(lobby, browser):
    """The page of an officer who has logged in, opened an incident and found footage: that of the test before
    if it still is."""
    if not browser.run(SHOWN, "actions"):
        lobby.clock.passes(30 * SECOND)  # a code serves once
        browser.open(lobby.url)
        browser.run(FILL, "login", lobby.credentials("alice"))
        wait_for(browser, "why")
        browser.run(FILL, "open", {"reference": "fire alarm, building B"})
        wait_for(browser, "find")
        now = lobby.clock.now()
        browser.run("state.span = {start: new Date(arguments[0]), end: new Date(arguments[1])}",
                    "2026-11-24T12:30:00Z", now.isoformat())  # fmt: skip
        browser.run("form.from.value = local(state.span.start); form.to.value = local(state.span.end)")
        browser.run(FILL, "search", {"filter": "lobby"})
        wait_for(browser, "actions")
    return browser


def test_an_officer_sees_frames_over_a_hole_and_a_change_of_format(lobby, search):
    browser = search
    browser.run(WIDTHS)
    browser.run("document.getElementById('rate').value = '2'; document.getElementById('play').click()")
    wait_for(browser, "view")
    last = f"{lobby.audible[1] - SECOND:%Y-%m-%d %H:%M:%S} UTC"
    seen = {}

    def has_seen_all():  # a busy machine shows the time of a frame before the frame
        seen.update(browser.run(SEEN))
        return seen["time"] >= last and len(seen["widths"]) > 1 and seen["frames"] > 0

    until(has_seen_all, seconds=90, why=lambda: str(seen))
    assert seen["widths"] == [WIDTH, WIDTH // 2]
    assert not seen["hear"]  # there is sound at its end only
    assert seen["note"] == f"went over {HOLE.seconds} s without footage: camera-unreachable"
    assert seen["problem"] == ""
    served = [span for record in lobby.events(Event.SERVED) for span in record["spans"]]
    assert len(served) >= 8


def test_an_officer_hears_what_was_recorded_with_sound(lobby, search):
    browser, (start, end) = search, lobby.audible
    browser.run("document.getElementById('rate').value = '1'")
    browser.run("begin(new Date(arguments[0]), new Date(arguments[1]), false)", f"{start}", f"{end}")

    def heard():
        seen = browser.run(SEEN)
        return seen["hear"] and seen["heard"] > 0 and seen["frames"] > 0

    until(heard, seconds=90, why=lambda: str(browser.run(SEEN)))
    browser.run("document.querySelector('figure button').click()")
    assert browser.run("return document.querySelector('video').muted") is False


AGREES = """
const ask = (method, path, body) => fetch(`/api${path}`,
  {method, headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)});
return ask("POST", "/auth/", {username: "alice", password: arguments[0]})
  .then(() => ask("PUT", `/auth/grant/${arguments[1]}`, {scope: "openid"})).then((answer) => answer.status);
"""
"""What the provider's own pages do when a person logs in there and agrees."""


def test_an_officer_logs_in_by_the_organisation(lobby, browser, monkeypatch):
    now = max(lobby.clock.at, datetime.now(UTC))  # a browser knows when a cookie ends
    monkeypatch.setattr(lobby.clock, "at", now)
    key = lobby.person_keys["dora"] = SigningKey.create(lobby.root / "dora.key")
    identity = lobby.provider.finish(**browse(lobby.provider, lobby.server))
    lobby.staff.add("dora", department="DSS", public_key=key.public, identity=identity)
    lobby.admit("dora")
    browser.open(lobby.server.issuer.replace("/api/oidc", "/config"))
    assert browser.run(AGREES, PASSWORD, CLIENT) == 200
    browser.open(lobby.url)
    until(lambda: browser.run(SHOWN, "provider"), seconds=60, why=lambda: "no way to the provider")
    browser.run("document.querySelector('#provider a').click()")
    waits = "return location.pathname === '/login.html'"
    until(lambda: browser.run(waits), seconds=60, why=lambda: browser.run("return location.href"))
    browser.run("location = new URLSearchParams(location.search).get('callback_url') + '&g_continue='")
    until(lambda: browser.run(SHOWN, "why"), seconds=60, why=lambda: browser.run("return location.href"))
    assert browser.run("return location.href") == f"{lobby.url}/"
    assert "videostore" not in browser.run("return document.cookie")
    assert [one["by"] for one in lobby.events(Event.LOGIN)][-1] == "oidc"
    browser.run("document.getElementById('logout').click()")
    until(lambda: browser.run(SHOWN, "login"), seconds=60, why=lambda: str(browser.run(SEEN)))
    browser.open(lobby.url)
    until(lambda: browser.run(SHOWN, "provider"), seconds=60, why=lambda: "no way to the provider")
    assert browser.run("return fetch('/v1/whoami').then((answer) => answer.status)") == 401
