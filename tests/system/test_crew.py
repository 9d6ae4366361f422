"""A recorder that is several processes: each has its cameras, and one that dies takes no other along."""

from __future__ import annotations

import json
import os
import shutil
import signal

import httpx
import pytest

from tests.cameras import serving
from tests.servers import until
from tests.system.commands import facts, make_site, running, said
from videostore.config.site import Site

NAMES = ("lobby", "yard")


def part(root, number):
    return json.loads((root / "run" / f"recorder-{number}.json").read_bytes())


def shown(root):
    """Return the values of the recorder's one endpoint by series."""
    text = httpx.get(Site.load(root).running()["recorder"]["metrics"], timeout=60).text
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {series: float(value) for series, value in pairs}


def kept(root, camera_id):
    """Return the names of what a power cut would leave of a camera: in the spool and in the store."""
    return {path.name for path in root.rglob(f"{camera_id}/*.mp4.age")}


def test_a_process_that_is_killed_is_started_again_and_the_others_go_on(tmp_path):
    root = make_site(tmp_path / "site")
    settings = (root / "videostore.yaml").read_text()
    assert "recorder: {" in settings
    (root / "videostore.yaml").write_text(
        settings.replace("recorder: {", "recorder: {cameras_per_process: 1, ")
    )
    with serving(*NAMES) as server:
        for name in NAMES:
            said("camera", "add", name, server.url(name), site=root)
        lobby, yard = (one.id for one in Site.load(root).cameras.all())
        with running(root, "recorder") as recorder:

            def new(*before):
                return all(
                    kept(root, camera) - names for camera, names in zip((lobby, yard), before, strict=True)
                )

            until(lambda: new(set(), set()), seconds=90, why=recorder.log.read_text)
            victim, survivor = part(root, 1)["pid"], part(root, 0)["pid"]
            os.kill(victim, signal.SIGKILL)
            until(lambda: part(root, 1)["pid"] != victim, seconds=90, why=recorder.log.read_text)
            before = kept(root, lobby), kept(root, yard)
            until(lambda: new(*before), seconds=90, why=recorder.log.read_text)
            assert part(root, 0)["pid"] == survivor
            seen = shown(root)
            assert seen['videostore_build_info{version="' + version() + '"}'] == 1
            size = shutil.disk_usage(root).total
            assert seen['videostore_disk_size_bytes{disk="spool"}'] == size, "two processes have one disk"
        with pytest.raises(ProcessLookupError):
            os.kill(survivor, 0)
    coverage = facts("coverage", "--from", "10m", site=root)
    assert all("unexplained" not in coverage[name]["seconds"] for name in NAMES)
    pieces = {name: sum(one["state"] == "footage" for one in coverage[name]["stretches"]) for name in NAMES}
    assert pieces == {"lobby": 1, "yard": 2}
    assert {row["verdict"] for row in facts("verify", "segments", site=root)} == {"whole"}
    assert not list((root / "spool").rglob("*.age"))


def version():
    from videostore import __version__

    return __version__
