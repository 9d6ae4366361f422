"""The page of log events has every event of the code, with its levels."""

from __future__ import annotations

import ast
import re
from pathlib import Path

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
