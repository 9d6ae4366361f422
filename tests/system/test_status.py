"""`videostore status` is one screen, and the worst stands first."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from tests.system.commands import facts, make_site, said
from videostore import app as composition
from videostore import telemetry
from videostore.config.cameras import write_cameras
from videostore.config.site import Site
from videostore.domain.camera import Camera
from videostore.domain.segment import KeyId, Span
from videostore.recorder.spool import facts_of

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Three hundred cameras, of which the last two are silent; five hours of footage of the first. This
    process is the recorder that says so."""
    root = make_site(tmp_path_factory.mktemp("many") / "site")
    cameras = [
        Camera(uuid4(), f"camera-{n:03}", f"rtsp://10.0.0.{n}/Streaming/Channels/101") for n in range(300)
    ]
    write_cameras(root / "cameras.yaml", cameras)
    hour = KeyId.covering(datetime.now(UTC), HOUR).start
    with composition.Parts(Site.load(root)) as parts:
        parts.catalogue.adopt(
            segment(cameras[0].id, hour - number * HOUR + second * SECOND)
            for number in range(5)
            for second in range(10)
        )
    for camera in cameras:
        silent = camera in cameras[-2:]
        telemetry.CAMERA_UP.labels(camera_id=str(camera.id)).set(not silent)
    server, thread = telemetry.serve_metrics("recorder", "127.0.0.1", 0, asked={})
    Site.load(root).announce("recorder", {"metrics": f"http://127.0.0.1:{server.server_port}/metrics"})
    yield root
    server.shutdown()
    thread.join()
    server.server_close()
    for camera in cameras:
        telemetry.forget_camera(str(camera.id))


def segment(camera_id, start):
    span = Span(start, start + SECOND)
    return facts_of(
        bytes(600), camera_id=camera_id, span=span, sequence=0, key_id=KeyId.covering(start, HOUR)
    )


def test_three_hundred_cameras_are_one_screen_and_the_silent_come_first(site):
    terminal = {"FORCE_COLOR": "1", "COLUMNS": "80", "LINES": "24"}
    shown = re.sub(r"\x1b\[[\d;]*m", "", said("status", site=site, env=terminal)).splitlines()
    assert len(shown) < 24
    assert max(map(len, shown)) <= 80
    heading = next(n for n, line in enumerate(shown) if line.startswith("camera "))
    assert [line.split()[:2] for line in shown[heading + 1 :]][:3] == [
        ["camera-298", "silent"],
        ["camera-299", "silent"],
        ["camera-001", "sends"],
    ]
    left = 300 - (len(shown) - heading - 2)
    assert shown[-1] == f"and {left} more: {left} sends"
    assert any("2 cameras send nothing: camera-298, camera-299" in line for line in shown)


def test_a_pipe_gets_every_camera_and_what_is_stored_is_reckoned_from_the_last_whole_hour(site):
    assert (
        sum("camera-" in line and "rtsp://" in line for line in said("status", site=site).splitlines()) == 300
    )
    found = facts("status", site=site)
    footage = found["footage"]
    hours = (datetime.fromisoformat(found["at"]) - datetime.fromisoformat(footage["oldest"])) / HOUR
    assert (footage["counted"], footage["segments"]) == (False, round(10 * hours))
    assert footage["size_bytes"] == round(6000 * hours)
