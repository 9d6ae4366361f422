"""Where cameras come from: files that an NVR leaves, streams that ONVIF tells of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from tests.cameras import serving
from tests.rooms.test_folder import film
from tests.servers import until
from tests.system.commands import facts, make_site, running, said, videostore
from videostore.synthetic.onvif import OnvifDevice
from videostore.synthetic.tone import tone


def test_files_that_an_nvr_leaves_become_footage_of_their_camera(tmp_path):
    root = make_site(tmp_path / "site")
    with (root / "videostore.yaml").open("a") as settings:
        settings.write("folders: {nvr: {path: nvr, settle: 1s}}\n")
    said("camera", "add", "yard", "folder://nvr/yard", site=root)
    assert "no drop folder" in videostore("camera", "add", "x", "folder://other/yard", site=root).stderr
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)
    left = film(root / "nvr" / "yard" / f"{start:%Y-%m-%d}" / f"{start:%H-%M-%S}.mkv", codec="hevc")
    os.utime(left, (start.timestamp() + 10, start.timestamp() + 10))
    assert facts("camera", "check", "yard", site=root)["files_waiting"] == 1
    with running(root, "recorder") as recorder:
        until(lambda: not left.exists(), seconds=60, why=recorder.log.read_text)
    line = facts("coverage", "--from", "10m", site=root)["yard"]
    assert line["seconds"]["footage"] == pytest.approx(5)
    assert "unexplained" not in line["seconds"]
    assert {row["verdict"] for row in facts("verify", "segments", site=root)} == {"whole"}


def test_a_camera_is_asked_by_onvif_for_its_streams(tmp_path):
    root = make_site(tmp_path / "site")
    (root / "secrets" / "gate").write_text("officer:open sesame")
    (root / "secrets" / "gate").chmod(0o600)
    login = ("--credentials-file", "secrets/gate")
    with serving("officer:open sesame@large", "officer:open sesame@small") as server:
        large, small = server.url("large"), server.url("small")
        offers = {"second": (small, "H264", 640, 360), "first": (large, "H264", 1920, 1080)}
        with OnvifDevice(offers, user="officer", password="open sesame") as device:
            found = facts("camera", "streams", device.address, *login, site=root)
            assert [one["profile"] for one in found] == ["first", "second"]
            ask = ("--onvif", device.address)
            for name, wanted, url in (("a", "main", large), ("b", "sub", small), ("c", "second", small)):
                said("camera", "add", name, *ask, "--stream", wanted, *login, site=root)
                (row,) = [row for row in facts("camera", "list", site=root) if row["name"] == name]
                assert row["url"] == url
            assert videostore("camera", "add", "d", *ask, site=root).returncode == 23
            unknown = videostore("camera", "add", "d", *ask, "--stream", "x", *login, site=root)
            assert (unknown.returncode, "first, second" in unknown.stderr) == (25, True)
    assert videostore("camera", "streams", device.address, *login, site=root).returncode == 22
    assert videostore("camera", "add", "d", site=root).returncode == 2


def test_sound_is_recorded_only_of_a_camera_whose_switch_is_on_and_the_ledger_says_since_when(tmp_path):
    root = make_site(tmp_path / "site")
    with serving("mute") as other, serving("talks", tone=tone("pcm_alaw")) as server:
        silent = videostore("camera", "add", "mute", other.url("mute"), "--sound", site=root)
        assert (silent.returncode, "no sound" in silent.stderr) == (25, True)
        said("camera", "add", "lobby", server.url("talks"), site=root)
        assert facts("camera", "check", "lobby", site=root)["sound"] == "off"
        assert server.cameras["talks"].heard == 0
        said("camera", "sound", "lobby", "--on", site=root)
        assert facts("camera", "check", "lobby", site=root)["sound"] == "pcm_alaw, 8000 Hz"
        assert [row["sound"] for row in facts("camera", "list", site=root)] == [True]
        said("camera", "sound", "lobby", "--off", site=root)
        assert [row["sound"] for row in facts("camera", "list", site=root)] == [False]
    changes = facts("ledger", "show", "--event", "camera.changed", site=root)
    assert "sound-on" in json.dumps(changes)
    assert "sound-off" in json.dumps(changes)


CAMERA_THAT_TELLS = """
import sys, time
from wsdiscovery import QName, Scope
from wsdiscovery.publishing import ThreadedWSPublishing
publishing = ThreadedWSPublishing()
publishing.start()
kind = QName("http://www.onvif.org/ver10/network/wsdl", "NetworkVideoTransmitter")
scopes = [Scope("onvif://www.onvif.org/name/Lobby%20East")]
publishing.publishService(types=[kind], scopes=scopes, xAddrs=["http://10.9.9.1:8080/onvif/device_service"])
print("there", flush=True)
sys.stdin.read()
publishing.stop()
"""
NETWORK = (
    "ip link set lo up && ip tuntap add dev t0 mode tap && "
    "ip addr add 10.9.9.1/24 dev t0 && ip link set t0 up"
)


def test_cameras_on_the_network_are_found(tmp_path):
    """In a network of its own, so that nothing leaves this machine."""
    if subprocess.run(["unshare", "-rn", "sh", "-c", NETWORK], capture_output=True, check=False).returncode:
        pytest.skip("this kernel gives no networks to users")
    (tmp_path / "camera.py").write_text(CAMERA_THAT_TELLS)
    python = sys.executable
    line = f"""{NETWORK} && mkfifo end && {{ {python} camera.py < end 2> noise > told & }} && exec 3> end
        until grep -q there told; do sleep 0.1; done
        for wait in 2s 10s 60s; do  # as a person would who knows that the machine is busy
            {python} -m videostore.cli.main camera discover --wait $wait --json > found
            code=$?; grep -q address found && break
        done
        exec 3>&-; exit $code"""
    done = subprocess.run(
        ["unshare", "-rn", "sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "found").read_text()) == [
        {"address": "10.9.9.1:8080", "name": "Lobby East"}
    ]
