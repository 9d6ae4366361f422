"""The page of log events has every event of the code, with its levels."""

from __future__ import annotations

import ast
import re
import sys
from io import StringIO, TextIOWrapper
from pathlib import Path

import pytest
import structlog

from videostore import telemetry

ROOT = Path(__file__).parents[2]
LEVELS = ("debug", "info", "warning", "error")


def log_events():
    """Yield every event that the code logs, with its level."""
    for path in (ROOT / "videostore").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and call.args and isinstance(call.args[0], ast.Constant):
                either = isinstance(call.func, ast.IfExp)
                for function in [call.func.body, call.func.orelse] if either else [call.func]:
                    owner, _, level = ast.unparse(function).rpartition(".")
                    if level in LEVELS and owner.endswith("log"):
                        yield call.args[0].value, level


def test_every_event_of_the_logs_is_explained():
    page = (ROOT / "docs" / "reference" / "log-events.md").read_text(encoding="utf-8")
    told = {
        (event, level)
        for event, levels in re.findall(r"^\| `([^`]+)` \| ([a-z, ]+) \|", page, re.MULTILINE)
        for level in levels.split(", ")
    }
    assert told == set(log_events()), "docs/reference/log-events.md has a row for each event, with its levels"


@pytest.fixture
def log():
    before = structlog.get_config()
    telemetry.configure_logging()
    yield telemetry.logger("recorder")
    structlog.configure(**before)


@pytest.mark.parametrize("place", ["/dev/full", "closed"])
def test_a_line_that_cannot_be_printed_stops_nobody_and_the_next_one_is_printed(
    place, log, monkeypatch, tmp_path
):
    with Path(tmp_path / place).open("wb", buffering=0) as file:
        stderr = TextIOWrapper(file, write_through=True)
        if place == "closed":
            file.close()
        monkeypatch.setattr(sys, "stderr", stderr)
        with pytest.raises((OSError, ValueError)):
            stderr.write("nothing")
        log.error("camera.lost")
    monkeypatch.setattr(sys, "stderr", StringIO())
    log.error("camera.back")
    assert "camera.back" in sys.stderr.getvalue()
