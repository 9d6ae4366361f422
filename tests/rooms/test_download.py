"""Exports on their way to a person's machine: killed, they go on or are erased, and are told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import replace
from io import StringIO
from threading import Event as Signal

import httpx
import pytest
import time_machine
from rich import filesize
from rich.console import Console

from tests.premises import DAY, SECOND, START
from tests.rooms.test_gate import House, export_key
from tests.rooms.test_playback import listening
from tests.servers import until
from tests.system.commands import PROGRAM
from videostore.check.export import Trust, verify
from videostore.cli import download
from videostore.cli.client import ENVIRONMENT, Session
from videostore.cli.main import app
from videostore.cli.unfinished import MARK, Mark, look_after, under_way
from videostore.domain.errors import AccessRefused, IntegrityError, RequestInvalid
from videostore.synthetic.film import frame_numbers
from videostore.synthetic.stream import FRAME_RATE

NOW = START + 600 * SECOND
SPAN = ["--camera", "lobby", "--from", START.isoformat(), "--to", (START + 3 * SECOND).isoformat()]


class HeldStore:
    """A store that answers nobody who asks for one segment until it is let go."""

    def __init__(self, store):
        self._store, self.held, self.gone = store, None, Signal()

    def __getattr__(self, name):
        return getattr(self._store, name)

    def get(self, key):
        if key == self.held:
            assert self.gone.wait(60)
        return self._store.get(key)


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    house = House(tmp_path_factory.mktemp("house"))
    house.access = replace(house.access, second_person=frozenset())
    house.store = HeldStore(house.store)
    house.gate = house.new_gate()
    with listening(house.api()) as house.url:
        with httpx.Client(base_url=house.url, timeout=60) as http:
            house.token = http.post("/v1/login", json=house.credentials("alice")).json()["token"]
            http.headers["Authorization"] = f"Bearer {house.token}"
            http.post("/v1/incidents", json={"purpose": "search", "reference": "fire"})
        yield house


@pytest.fixture
def desk(house, tmp_path, monkeypatch):
    """A directory of a person who is logged in; the host's time is that of the footage."""
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "login" / "session.json"))
    Session(house.url, "alice", house.token).save()
    mask = os.umask(0o077)
    with time_machine.travel(NOW):
        yield tmp_path
    os.umask(mask)


def say(*words):
    app([*map(str, words)], standalone_mode=False)


def links(desk):
    return list((desk / "login" / "session.exports").glob("*"))


def test_the_bar_ends_at_what_was_written(desk, monkeypatch):
    screen = Console(file=StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(download, "errors", screen)
    say("export", *SPAN, "-o", desk / "out")
    written, _ = filesize.decimal((desk / "out" / "lobby.mp4").stat().st_size).split()
    assert f"{written}/{written} kB" in screen.file.getvalue()


def left(directory):
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def killed(house, desk):
    """The directory of an export whose client was killed in the middle of a film."""
    segments = sorted(house.catalogue.live(), key=lambda one: one.span.start)
    house.store.held, house.store.gone = segments[2].object_key, Signal()
    part = desk / "case" / ".lobby.mp4.part"
    client = subprocess.Popen([*PROGRAM, "export", *SPAN, "-o", desk / "case"], stderr=subprocess.PIPE)
    until(lambda: part.exists() and part.stat().st_size, seconds=60, why=lambda: "no part of the film came")
    client.send_signal(signal.SIGKILL)
    client.wait()
    client.stderr.close()
    house.store.held = None
    house.store.gone.set()
    return desk / "case"


def test_an_export_whose_client_was_killed_is_told_goes_on_and_is_whole(killed, desk, capsys, monkeypatch):
    assert left(killed) == [MARK, ".lobby.mp4.part"]
    begun = (killed / ".lobby.mp4.part").read_bytes()
    say("requests")
    told = capsys.readouterr().err
    assert "an export broke off and has left footage" in told
    assert f"-o {killed}" in told
    with pytest.raises(RequestInvalid, match="another export") as raised:
        say("export", *SPAN[:-1], (START + 2 * SECOND).isoformat(), "-o", killed)
    assert f"-o {killed}" in raised.value.hint
    with pytest.raises(RequestInvalid, match="another export"):
        say("export", *SPAN, "--viewing-copy", "-o", killed)
    say("export", *SPAN, "-o", killed)
    assert left(killed) == ["lobby.json", "lobby.mp4"]
    assert links(desk) == []
    assert (killed / "lobby.mp4").read_bytes().startswith(begun)
    assert all(one.holds for one in verify(killed / "lobby.json", Trust(export_key().certificate)))
    assert frame_numbers(killed / "lobby.mp4") == list(range(3 * FRAME_RATE))
    with pytest.raises(RequestInvalid, match="holds an export"):
        say("export", *SPAN, "-o", killed)


def test_an_end_that_a_power_cut_made_up_is_found_and_fetched_anew(killed, capsys):
    part = killed / ".lobby.mp4.part"
    part.write_bytes(part.read_bytes() + bytes(4096))
    with pytest.raises(IntegrityError, match="not the film that left the gate"):
        say("export", *SPAN, "-o", killed)
    say("export", *SPAN, "-o", killed)
    assert all(one.holds for one in verify(killed / "lobby.json", Trust(export_key().certificate)))


def test_what_the_gate_gives_no_more_is_erased(house, killed, capsys):
    mark = json.loads((killed / MARK).read_bytes())
    forgotten = {**mark["servings"][0], "serving_id": "0" * 32}
    (killed / MARK).write_text(json.dumps({**mark, "servings": [forgotten]}))
    (killed / ".lobby.mp4.part").write_bytes(b"not of the next export")
    say("export", *SPAN, "-o", killed)
    assert "it is erased" in capsys.readouterr().err
    assert all(one.holds for one in verify(killed / "lobby.json", Trust(export_key().certificate)))


def mark(directory, *, again="videostore export", delete_by=NOW + DAY, files=(".lobby.mp4.part",)):
    """Leave what an export leaves that broke off."""
    directory.mkdir()
    found = Mark({}, [], [*files], again, delete_by.isoformat())
    (directory / "letter").write_bytes(b"of somebody else")
    with suppress(AccessRefused), under_way(directory / MARK, found):
        (directory / ".lobby.mp4.part").write_bytes(b"footage")
        raise AccessRefused("grant-revoked")
    return directory


def test_what_an_export_left_is_erased_at_its_deadline_and_told_until_then(desk, capsys):
    case = mark(desk / "case")
    assert "Go on, or delete it by" in capsys.readouterr().err
    look_after(NOW + DAY - SECOND)
    assert "Go on, or delete it by" in capsys.readouterr().err
    assert left(case) == [MARK, ".lobby.mp4.part", "letter"]
    look_after(NOW + DAY)
    assert "has reached its deadline and is erased" in capsys.readouterr().err
    assert left(case) == ["letter"]
    look_after(NOW + DAY)
    assert capsys.readouterr().err == ""


def test_what_is_left_of_an_archive_is_erased_at_once_or_by_the_next_command(desk, capsys):
    case = mark(desk / "case", again="")
    assert left(case) == ["letter"]
    archive = Mark({}, [], [".lobby.mp4.part"], "", (NOW + DAY).isoformat())
    with under_way(case / MARK, archive):
        held = (case / MARK).read_bytes()
        (case / ".lobby.mp4.part").write_bytes(b"footage")
        look_after(NOW + 2 * DAY)
        assert left(case) == [MARK, ".lobby.mp4.part", "letter"]  # it lives: nobody touches it
        with pytest.raises(RequestInvalid, match="another export"), under_way(case / MARK, archive):
            pass
        (link,) = links(desk)
        target = link.readlink()
    (case / MARK).write_bytes(held)
    link.symlink_to(target)
    look_after(NOW)
    assert "an archive broke off" in capsys.readouterr().err
    assert (left(case), links(desk)) == (["letter"], [])
