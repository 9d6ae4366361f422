"""The demonstration is a test: it exits 0 only if all of it really happened."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.rooms.test_recorder import probe
from tests.system.commands import said, videostore
from videostore import app as composition

PROMISED = {
    "cameras", "segments_stored", "bytes_stored", "seconds_recorded", "gaps", "refusals", "viewings",
    "exports", "segments_deleted", "keys_destroyed", "certificates", "ledger_records",
    "ledger_ok", "metrics_url", "ok",
}  # fmt: skip


def test_the_demonstration_shows_the_whole_promise(tmp_path, ffprobe_program):
    done = videostore("demo", "--cameras", 2, "--seconds", 8, "--dir", tmp_path / "demo", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts.keys() >= PROMISED
    assert facts["ok"] is True
    assert facts["problems"] == []
    assert facts["cameras"] == 2
    assert facts["segments_stored"] >= facts["segments_deleted"] >= 2
    assert facts["seconds_recorded"] > 8
    assert facts["refusals"] >= 1
    assert facts["viewings"] == 1
    assert facts["keys_destroyed"] >= facts["certificates"] / 2 >= 1
    (export,) = facts["exports"]
    assert int(probe(ffprobe_program, Path(export))["nb_read_frames"]) >= 75

    site = Path(facts["site"])
    report, problems = composition.verify_ledger(site / "ledger", "")
    assert problems == []
    assert report["records"] >= facts["ledger_records"]
    certificates = json.loads(said("retention", "certificates", "list", "--json", site=site))
    assert len(certificates) >= facts["certificates"]
    assert "deleted" in covered("camera1", site)
    assert "refused: no-approval" in done.stdout
    assert re.search(r"\d+ frames without a break", done.stdout)


def covered(camera, site):
    """Return the states in which the seconds of a camera are; none is unexplained, or the command fails."""
    return json.loads(said("coverage", "--from", "10m", "--json", site=site))[camera]["seconds"].keys()


def test_a_directory_that_holds_something_is_not_touched(tmp_path):
    (tmp_path / "letter").write_text("dear")
    done = videostore("demo", "--seconds", 1, "--dir", tmp_path)
    assert done.returncode == 11
    assert [path.name for path in tmp_path.iterdir()] == ["letter"]
