"""What the gate serves plays: in ffmpeg, in mpv, in a browser; over holes and changes of format."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from threading import Event as Stop
from threading import Thread
from uuid import uuid4

import cv2
import httpx
import numpy as np
import pytest

from tests.conftest import program
from tests.premises import DAY, HOUR, LOBBY, MINUTE, SECOND, START
from tests.rooms.test_gate import CAMERAS, SPAN, House, Officer, find_camera
from tests.rooms.test_recorder import INFO, TIME_BASE, packet
from tests.rooms.test_sound import sound_info
from tests.servers import until
from videostore.domain.camera import Camera
from videostore.domain.errors import NotLoggedIn
from videostore.domain.ledger import Event
from videostore.domain.retention import Kind
from videostore.domain.segment import Gap, GapReason, KeyId, Span
from videostore.gate.api import create_api
from videostore.gate.server import serve
from videostore.gate.tickets import AGAIN, LIFETIME, Tickets
from videostore.recorder import packing
from videostore.recorder.aac import UNIT_SAMPLES
from videostore.recorder.cutter import Cutter, Unit
from videostore.synthetic.film import frame_numbers
from videostore.synthetic.stream import GOP, HEIGHT, WIDTH, read_frame_number, stream
from videostore.synthetic.tone import tone

HOLE = timedelta(minutes=5)


def movies(seconds, width=WIDTH, height=HEIGHT, *, heard=None):
    """Return a movie of one second each, as the recorder makes them, with a sound if one is ``heard``."""
    cutter, picture = Cutter(TIME_BASE), stream(width=width, height=height)
    info = replace(INFO, width_px=width, height_px=height, sound=heard and sound_info(heard))
    found = [cutter.add(packet(number, picture=picture)) for number in range(seconds * GOP + 1)]
    units = [Unit(data, at * UNIT_SAMPLES) for at, data in enumerate(tone(heard).units[:15])] if heard else []
    made = []
    for group in filter(None, found):
        packer = packing.choose(info, group.packets[0])
        made.append(packer.alone(replace(group, sound=units)))
    return made


@contextmanager
def listening(api, **how):
    """Serve as the gate does, and yield the address. ``how``: a port, a certificate and its key."""
    stop, found = Stop(), []
    thread = Thread(
        target=serve,
        args=[api],
        kwargs={"host": "127.0.0.1", "port": 0, "started": found.append, "stop": stop, **how},
    )
    thread.start()
    try:
        until(lambda: found, seconds=60, why=lambda: "the gate does not listen")
        yield found[0]
    finally:
        stop.set()
        thread.join()


class Lobby(House):
    """Four seconds of footage, a hole of five minutes, two more, and two of another size, with sound."""

    def __init__(self, root):
        super().__init__(root)
        for number, movie in enumerate(movies(4)[3:], start=3):
            self.record(number, movie=movie, length=SECOND)
        after = START + 4 * SECOND + HOLE
        for number, movie in enumerate([*movies(2), *movies(2, WIDTH // 2, HEIGHT // 2, heard="aac")]):
            self.record(number, movie=movie, start=after, length=SECOND)
        gap = Gap(Span(START + 4 * SECOND, after), LOBBY, GapReason.CAMERA_UNREACHABLE)
        self.catalogue.add_gap(gap)
        self.clock.at = after + 5 * SECOND
        self.audible = after + 2 * SECOND, after + 4 * SECOND


@pytest.fixture(scope="module")
def lobby(tmp_path_factory):
    house = Lobby(tmp_path_factory.mktemp("lobby"))
    api = create_api(house.gate, find_camera=find_camera, all_cameras=lambda: list(CAMERAS.values()))
    with listening(api) as house.url:
        yield house


@pytest.fixture(scope="module")
def alice(lobby):
    with httpx.Client(base_url=lobby.url, timeout=60) as http:
        token = http.post("/v1/login", json=lobby.credentials("alice")).json()["token"]
        http.headers["Authorization"] = f"Bearer {token}"
        incident = http.post("/v1/incidents", json={"purpose": "search", "reference": "fire"}).json()
        http.incident_id = incident["incident_id"]
        yield http


def view(http, start, end):
    """Return a fresh viewing of the lobby."""
    body = {"incident_id": http.incident_id, "cameras": ["lobby"], "start": str(start), "end": str(end)}
    grant = http.post("/v1/requests", json=body).json()["grant"]["grant_id"]
    return http.post(f"/v1/grants/{grant}/viewings", json={"camera": "lobby"}).json()


@pytest.fixture
def serving(lobby, alice):
    return view(alice, START, lobby.clock.now())


def ticket(lobby, http, serving):
    return lobby.url + http.post(f"/v1/servings/{serving['serving_id']}/ticket", json={}).json()["path"]


def tags(text, name):
    return [line.partition(":")[2] for line in text.splitlines() if line.startswith(f"#{name}")]


# --- the playlist ---


def test_a_playlist_tells_where_time_jumps_and_why(alice, serving):
    text = alice.get(serving["playlist"]).text
    assert sum(float(line[:-1]) for line in tags(text, "EXTINF")) == pytest.approx(8.0)
    assert text.count("#EXT-X-DISCONTINUITY\n") == 1
    assert 'X-REASON="camera-unreachable"' in text
    assert f"DURATION={HOLE.total_seconds():.3f}" in text
    assert len(tags(text, "EXT-X-MAP")) == 8
    assert text.endswith("#EXT-X-ENDLIST\n")


def test_a_player_is_told_exactly_the_whole_fragments_it_gets(lobby, alice):
    serving = view(alice, START + SECOND / 2, START + 3.5 * SECOND)
    text = alice.get(serving["playlist"]).text
    assert tags(text, "EXTINF") == ["1.000000,"] * 2
    assert tags(text, "EXT-X-PROGRAM")[0] == (START + SECOND).isoformat(timespec="milliseconds")


@pytest.mark.parametrize(
    ("asked", "status", "content"),
    [
        ("bytes=0-99", 206, slice(0, 100)),
        ("bytes=100-", 206, slice(100, None)),
        ("bytes=-7", 206, slice(-7, None)),
        ("bytes=5-9999999", 206, slice(5, None)),
        ("bytes=9999999-", 416, slice(0, 0)),
        ("bytes=7-3", 416, slice(0, 0)),
        ("bytes=-", 200, slice(None)),
        ("pages=1-2", 200, slice(None)),
    ],
)
def test_a_part_is_served_by_ranges(alice, serving, asked, status, content):
    path = serving["playlist"].replace("index.m3u8", "1.m4s")
    whole = alice.get(path).content
    answer = alice.get(path, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (status, whole[content])


def test_parts_asked_for_at_once_agree_whether_there_is_sound(lobby, serving, monkeypatch):
    """The second is asked for while the first still looks for sound at the other end."""
    footage, get = lobby.gate.footage, lobby.store.get
    served = footage.serving("alice", serving["serving_id"])
    looking, go_on, found = Stop(), Stop(), []

    def slow(key):
        if key == served.parts[0].segment.object_key and not looking.is_set():
            looking.set()
            go_on.wait()
        return get(key)

    monkeypatch.setattr(lobby.store, "get", slow)
    first = Thread(target=lambda: found.append(footage.piece(served, 7)))
    first.start()
    looking.wait()
    found.append(footage.piece(served, 7))
    go_on.set()
    first.join()
    assert [piece.audible for piece in found] == [False, False]


def test_the_ledger_has_exactly_the_spans_that_left(lobby, alice, serving):
    for index in (1, 4):
        alice.get(serving["playlist"].replace("index.m3u8", f"{index}.m4s"))
    one, other = lobby.events(Event.SERVED)[-2:]
    assert one["spans"] == [[(START + at * SECOND).isoformat() for at in (1, 2)]]
    assert (other["spans"][0][0], other["frames"]) == ((START + 4 * SECOND + HOLE).isoformat(), GOP)


# --- players ---


def test_ffmpeg_plays_over_a_hole_and_a_change_of_format(lobby, alice, serving, tmp_path):
    film = tmp_path / "film.mkv"
    command = [
        "-v",
        "error",
        "-i",
        ticket(lobby, alice, serving),
        "-fps_mode",
        "passthrough",
        "-s",
        "640x360",
    ]
    subprocess.run([program("ffmpeg"), *command, "-c:v", "ffv1", film], check=True)
    assert frame_numbers(film) == [*range(4 * GOP), *range(2 * GOP), *range(2 * GOP)]


def test_mpv_plays_to_the_end(lobby, alice, serving):
    command = ["--no-config", "--ytdl=no", "--vo=null", "--ao=null", "--untimed", "--no-terminal"]
    before = len(lobby.events(Event.SERVED))
    subprocess.run([program("mpv"), *command, ticket(lobby, alice, serving)], check=True, timeout=60)
    assert sum(record["frames"] for record in lobby.events(Event.SERVED)[before:]) == 8 * GOP


def test_vlc_plays_to_the_end(lobby, alice, serving):
    command = [program("cvlc"), "--intf=dummy", "--vout=dummy", "--aout=dummy", "--rate=8", "--play-and-exit"]
    if os.geteuid() == 0:  # as whom it does not run
        nobody = ["--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        command = [program("setpriv"), *nobody, *command]
    before = len(lobby.events(Event.SERVED))
    subprocess.run([*command, ticket(lobby, alice, serving)], check=True, timeout=120, cwd="/")
    assert sum(record["frames"] for record in lobby.events(Event.SERVED)[before:]) == 8 * GOP


# --- tickets ---


def test_a_ticket_works_once_and_within_two_minutes(lobby, serving):
    tickets, now = Tickets(), lobby.clock.now()
    secret, _ = tickets.issue("one", lambda: "alice", now=now, ends_at=now + HOUR)
    former, _ = tickets.change(secret, address="192.0.2.7", now=now)
    player, _ = tickets.change(secret, address="192.0.2.7", now=now + SECOND)  # mpv opens it twice
    assert tickets.find(player, now=now + HOUR - SECOND).serving_id == "one"
    slow, _ = tickets.issue("three", lambda: "alice", now=now, ends_at=now + HOUR)
    tickets.change(slow, address="192.0.2.7", now=now)
    late, _ = tickets.issue("two", lambda: "alice", now=now, ends_at=now + HOUR)
    for refused in (
        lambda: tickets.change(secret, address="192.0.2.8", now=now + SECOND),
        lambda: tickets.change(secret, address="192.0.2.7", now=now + SECOND),  # once used it is used up
        lambda: tickets.find(former, now=now),
        lambda: tickets.change(slow, address="192.0.2.8", now=now + SECOND),
        lambda: tickets.change(slow, address="192.0.2.7", now=now + AGAIN),
        lambda: tickets.change(late, address="192.0.2.7", now=now + LIFETIME),
        lambda: tickets.find(player, now=now + HOUR),
        lambda: tickets.find(secret, now=now),
    ):
        with pytest.raises(NotLoggedIn):
            refused()


def test_what_a_ticket_opened_ends_with_the_login(lobby, alice):
    with httpx.Client(base_url=lobby.url, timeout=60) as http:
        token = http.post("/v1/login", json=lobby.credentials("alice")).json()["token"]
        http.headers["Authorization"] = f"Bearer {token}"
        http.incident_id = alice.incident_id
        serving = view(http, START, lobby.clock.now())
        path = httpx.get(ticket(lobby, http, serving)).text.splitlines()[-1]
        part = lobby.url + path.replace("index.m3u8", "0.m4s")
        assert httpx.get(part).status_code == 200
        http.post("/v1/logout", json={})
        assert httpx.get(part).status_code == 401


def test_no_secret_of_an_address_is_logged(lobby, alice, serving, capfd):
    address = ticket(lobby, alice, serving)
    answer = httpx.get(address)
    httpx.get(lobby.url + answer.text.splitlines()[-1].replace("index.m3u8", "0.m4s"))
    httpx.get(address.replace("tickets/", "tickets/x"))
    out, err = capfd.readouterr()
    assert "/v1/" not in out + err


# --- what is gone ---


def test_a_part_that_reaches_its_deadline_while_it_plays_says_by_which_certificate(tmp_path):
    house = House(tmp_path)
    alice = Officer(house).open_incident()
    house.access = replace(house.access, grant_lifetime=60 * DAY)
    serving = alice.view()
    part = serving["playlist"].replace("index.m3u8", "1.m4s")
    house.clock.at = house.policies[Kind.VIDEO].deadline(KeyId.covering(START, HOUR))
    house.admit("alice")
    alice.http = house.client("alice")
    house.sweep().run()
    answer = alice.http.get(part)
    (certificate,) = house.events(Event.CERTIFICATE)
    assert (answer.status_code, answer.json()["error"]) == (410, "FootageDeleted")
    assert answer.json()["certificate"] == certificate["id"]
    assert alice.http.get(serving["playlist"]).text.count("#EXT-X-GAP\n") == 1


def test_a_part_that_is_lost_is_not_called_deleted(tmp_path):
    house = House(tmp_path)
    alice = Officer(house).open_incident()
    serving = alice.view()
    del house.store.bodies[serving["parts"][1]["object_key"]]
    answer = alice.http.get(serving["playlist"].replace("index.m3u8", "1.m4s"))
    assert (answer.status_code, answer.json()["error"]) == (410, "ObjectMissing")


# --- pictures ---


def shows(data):
    """Return which frames a JPEG shows, tile by tile."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    return read_frame_number(cv2.resize(image, (WIDTH, HEIGHT)))


def test_a_snapshot_is_the_frame_of_that_moment_and_on_record(lobby, alice, serving):
    path = f"/v1/servings/{serving['serving_id']}/snapshot"
    at = START + 1.5 * SECOND
    answer = alice.post(path, json={"at": at.isoformat()})
    assert (answer.headers["content-type"], shows(answer.content)) == ("image/jpeg", 37)
    record = lobby.events(Event.SERVED)[-1]
    assert (record["frames"], record["segments"]) == (1, 1)
    assert answer.headers["x-captured-at"] == record["spans"][0][0] == (START + 1.48 * SECOND).isoformat()
    assert alice.post(path, json={"at": (START + MINUTE).isoformat()}).status_code == 400


def test_a_contact_sheet_shows_a_span_and_its_holes(lobby, alice):
    serving = view(alice, START, START + 8 * SECOND)
    answer = alice.post(f"/v1/servings/{serving['serving_id']}/sheet", json={"columns": 4, "rows": 2})
    image = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert image.shape == (2 * 180, 4 * 320)
    upper, lower = image[:150], image[180 + 110 : 180 + 150]
    assert (upper.mean() > 60, lower.mean() < 40) == (True, True)
    assert lobby.events(Event.SERVED)[-1]["frames"] == 4
    serving = view(
        alice, START + SECOND / 2, START + 2 * SECOND
    )  # nothing that begins at its beginning leaves
    answer = alice.post(f"/v1/servings/{serving['serving_id']}/sheet", json={"columns": 1, "rows": 1})
    assert shows(answer.content) >= GOP


# --- search ---


def test_a_search_says_of_every_second_what_became_of_it_and_why(tmp_path):
    house = House(tmp_path)
    added = {"camera_id": str(LOBBY)}
    house.clock.at = START - HOUR
    house.ledger.append(Event.CAMERA_ADDED, actor="operator", body=added)
    house.clock.at = START + 20 * SECOND
    house.ledger.append(Event.CAMERA_CHANGED, actor="operator", body={**added, "change": "disabled"})
    house.catalogue.add_gap(Gap(Span(START + 3 * SECOND, START + 9 * SECOND), LOBBY, GapReason.SPOOL_OVERRUN))
    house.clock.at = START + 4 * MINUTE
    alice = Officer(house).open_incident()
    alice.grant(start=(START + SECOND).isoformat(), end=(START + 2 * SECOND).isoformat())

    def found(start, end):
        body = {"incident_id": alice.incident_id, "start": str(START + start), "end": str(START + end)}
        rows = alice.post("/v1/search", **body).json()
        assert [row["end"] for row in rows[:-1]] == [row["start"] for row in rows[1:]]
        return [(row["kind"], row["granted"], row["why"].partition(":")[0]) for row in rows]

    assert found(-2 * HOUR, 3 * MINUTE) == [
        ("not-recorded", False, "never captured"),
        ("not-recorded", False, "never captured"),
        ("footage", False, "not in a grant of yours"),
        ("footage", True, ""),
        ("footage", False, "not in a grant of yours"),
        ("gap", False, "lost"),
        ("unexplained", False, "lost"),
        ("not-recorded", False, "never captured"),
    ]
    assert found(-50 * MINUTE, -40 * MINUTE) == [("not-recorded", False, "never captured")], "no recorder yet"
    assert found(12 * SECOND, 15 * SECOND) == [("unexplained", False, "lost")], "one had begun"
    house.clock.at = house.policies[Kind.VIDEO].deadline(KeyId.covering(START, HOUR))
    house.sweep().run()
    (certificate,) = house.events(Event.CERTIFICATE)
    house.admit("alice")
    alice.http = house.client("alice")
    deleted = ("deleted", False, f"lawfully deleted, certificate {certificate['id']}")
    assert deleted in found(0 * SECOND, MINUTE)


def test_cameras_are_found_by_group_and_by_what_their_place_says(tmp_path):
    house = House(tmp_path)
    alice = Officer(house).open_incident()

    def cameras(**query):
        body = {"incident_id": alice.incident_id, **SPAN, **query}
        return {row["camera"] for row in alice.post("/v1/search", **body).json()}

    stairs = Camera(uuid4(), "stairs", "rtsp://127.0.0.1/stairs", group="building-b", place="2nd Floor")
    CAMERAS["stairs"] = stairs
    try:
        assert cameras() == {"lobby", "stairs"}
        assert cameras(group="building-b") == {"stairs"}
        assert cameras(place="2nd floor") == {"stairs"}
        assert cameras(group="building-b", place="3rd") == set()
        assert cameras(cameras=["lobby"], group="building-b") == {"lobby"}
    finally:
        del CAMERAS["stairs"]


# --- the live edge ---


def test_a_viewing_that_reaches_into_the_future_follows_the_camera(tmp_path):
    house = House(tmp_path)
    alice = Officer(house).open_incident()
    serving = alice.view(alice.grant(end=(house.clock.now() + 8 * SECOND).isoformat()))

    def durations():
        text = alice.http.get(serving["playlist"]).text
        return tags(text, "EXTINF"), "EVENT" if "TYPE:EVENT" in text else "#EXT-X-ENDLIST" in text

    assert durations() == (["1.000000,"] * 3, "EVENT")
    for number, movie in enumerate(movies(12)[3:], start=3):
        house.record(number, movie=movie, length=SECOND)
    assert durations() == (["1.000000,"] * 12, "EVENT")
    house.record(2000, movie=b"later than what was granted", length=SECOND)
    house.clock.passes(8 * SECOND + timedelta(minutes=1))
    assert durations() == (["1.000000,"] * 12, True)
