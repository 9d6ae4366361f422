"""What a service manager needs: word when a role is ready, a sign of life, a quick and orderly end."""

from __future__ import annotations

import json
import socket
import time

import pytest

from tests.cameras import serving
from tests.servers import until
from tests.system.commands import facts, make_site, running, said, videostore
from videostore.app.host import clock_synchronised


@pytest.fixture
def manager(tmp_path):
    """A socket as systemd gives it to a service."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(60)
        yield channel


def test_the_recorder_says_when_it_is_ready_that_it_lives_and_stops_at_once(tmp_path, manager):
    site = make_site(tmp_path / "site")
    environment = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "2000000"}
    with serving("hanging", hangs="DESCRIBE") as server:
        said("camera", "add", "hanging", server.url("hanging"), "--no-check", site=site)
        began = time.monotonic()
        with running(site, "recorder", env=environment) as recorder:
            assert manager.recv(100) == b"READY=1"
            to_start = time.monotonic() - began
            assert [manager.recv(100) for _ in range(2)] == [b"WATCHDOG=1"] * 2
            until(lambda: "camera.started" in recorder.log.read_text(), seconds=60)
            began = time.monotonic()
            assert recorder.end() == 0
            # Not by the camera, which is waited for 10 s; a machine that starts it slowly ends it slowly.
            assert time.monotonic() - began < max(5, 2 * to_start)


def test_cameras_are_added_renamed_and_disabled_while_the_others_go_on(tmp_path):
    site = make_site(tmp_path / "site")
    with serving("first", "second") as server, running(site, "recorder") as recorder:

        def starts(name):
            lines = recorder.log.read_text().splitlines()
            return sum("camera.started" in line and ids[name] in line for line in lines)

        ids = {}
        for name in ("first", "second"):
            ids[name] = facts("camera", "add", name, server.url(name), "--no-check", site=site)["id"]
            until(lambda name=name: starts(name) == 1, seconds=60, why=recorder.log.read_text)
        said("camera", "rename", "first", "door", site=site)
        said("camera", "disable", "second", site=site)
        until(lambda: "camera.stopped" in recorder.log.read_text(), seconds=60)
        said("camera", "enable", "second", site=site)
        until(lambda: starts("second") == 2, seconds=60)
        assert starts("first") == 1


def test_doctor_says_whether_a_time_service_disciplines_the_clock(tmp_path):
    site = make_site(tmp_path / "site")
    rows = json.loads(videostore("doctor", "--json", site=site).stdout)
    (row,) = [row for row in rows if row["what"] == "time service"]
    assert row["ok"] is (clock_synchronised() is not False)
    assert row["ok"] or "chrony" in row["hint"]
