"""The gate's page in a real browser: an officer logs in, finds and sees."""

from __future__ import annotations

import pytest

from tests.browser import chromium
from tests.conftest import program
from tests.rooms.test_gate import CAMERAS
from tests.rooms.test_playback import HOLE, Lobby, listening
from tests.servers import until
from videostore.domain.ledger import Event
from videostore.gate.api import create_api

FILL = """
const form = document.forms[arguments[0]];
for (const [name, value] of Object.entries(arguments[1])) form.elements[name].value = value;
form.requestSubmit();
"""
SHOWN = "return document.getElementById(arguments[0]).checkVisibility()"
SEEN = """
const video = document.querySelector("video");
const hear = document.querySelector("figure button");
return {frames: video?.getVideoPlaybackQuality().totalVideoFrames ?? 0, width: video?.videoWidth ?? 0,
  heard: video?.webkitAudioDecodedByteCount ?? 0, hear: hear?.hidden === false,
  time: document.getElementById("utc").textContent, note: document.getElementById("note").textContent,
  problem: document.getElementById("problem").textContent};
"""


@pytest.fixture(scope="module")
def lobby(tmp_path_factory):
    house = Lobby(tmp_path_factory.mktemp("lobby"))
    api = create_api(house.gate, find_camera=CAMERAS.__getitem__, all_cameras=lambda: list(CAMERAS.values()))
    with listening(api) as house.url:
        yield house


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(program("chromedriver"), tmp_path_factory.mktemp("profile")) as window:
        yield window


def test_an_officer_sees_frames_over_a_hole_and_a_change_of_format(lobby, browser, tmp_path):
    browser.open(lobby.url)

    def shows(part):
        until(lambda: browser.run(SHOWN, part), seconds=30, why=lambda: str(browser.run(SEEN)))

    browser.run(FILL, "login", lobby.credentials("alice"))
    shows("why")
    browser.run(FILL, "open", {"reference": "fire alarm, building B"})
    shows("find")
    now = lobby.clock.now()
    browser.run("state.span = {start: new Date(arguments[0]), end: new Date(arguments[1])}",
                "2026-11-24T12:30:00Z", now.isoformat())  # fmt: skip
    browser.run("form.from.value = local(state.span.start); form.to.value = local(state.span.end)")
    browser.run(FILL, "search", {"filter": "lobby"})
    shows("actions")
    browser.run("document.getElementById('rate').value = '4'; document.getElementById('play').click()")
    shows("view")
    widths = set()

    def ended():
        seen = browser.run(SEEN)
        widths.add(seen["width"])
        return seen["frames"] >= 175 and {640, 320} <= widths

    until(ended, seconds=60, why=lambda: str(browser.run(SEEN)))
    seen = browser.run(SEEN)
    assert not seen["hear"]  # there is sound at its end only
    assert seen["note"] == f"went over {HOLE.seconds} s without footage: camera-unreachable"
    assert seen["problem"] == ""
    served = [span for record in lobby.events(Event.SERVED) for span in record["spans"]]
    assert len(served) >= 8


def test_an_officer_hears_what_was_recorded_with_sound(lobby, browser):
    """After the test before, in the same window."""
    start, end = lobby.audible
    browser.run("document.getElementById('rate').value = '1'")
    browser.run("begin(new Date(arguments[0]), new Date(arguments[1]), false)", f"{start}", f"{end}")

    def heard():
        seen = browser.run(SEEN)
        return seen["hear"] and seen["heard"] > 0 and seen["frames"] >= 40

    until(heard, seconds=60, why=lambda: str(browser.run(SEEN)))
    browser.run("document.querySelector('figure button').click()")
    assert browser.run("return document.querySelector('video').muted") is False
