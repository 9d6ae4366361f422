"""Writes the reference pages from the code: ``python docs/reference/make.py``.

A test runs the same functions and compares, so a page can never say something else than the code.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, get_origin

import typer
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from videostore.cli.main import app
from videostore.config import settings
from videostore.config.durations import show_duration
from videostore.domain import errors
from videostore.domain.access import Reason, told
from videostore.domain.ledger import Event
from videostore.store.rights import ROLES, policy
from videostore.telemetry import LABELS, REGISTRIES, metrics

HERE = Path(__file__).parent
RULES = HERE.parents[1] / "deploy" / "prometheus" / "alerts.yml"
SCHEMAS = {
    "videostore.schema.json": settings.SiteSettings,
    "retention.schema.json": settings.RetentionFile,
    "access.schema.json": settings.AccessFile,
    "cameras.schema.json": settings.CamerasFile,
}


def pages() -> dict[str, str]:
    """Return every generated page by file name."""
    return {
        "alerts.md": _alerts(),
        "cli.md": _cli(),
        "codes.md": _codes(),
        "configuration.md": _configuration(),
        "metrics.md": _metrics(),
        "store-rights.md": _store_rights(),
        **{name: json.dumps(model.model_json_schema(), indent=2) + "\n" for name, model in SCHEMAS.items()},
    }


def _table(header: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _store_rights() -> str:
    texts = (f"## {role}\n\n```json\n{json.dumps(policy(role, 'BUCKET'), indent=2)}\n```\n" for role in ROLES)
    return (
        "# What each role may do in the store\n\nThe policies that `videostore store provision` gives to the identities of a site, "
        "with the name of its bucket. Nobody has two of put, get and delete. "
        "[Why](../design/0012-walls-of-the-store.md); [how to load them](../guide/storage.md).\n\n"
        + "\n".join(texts)
    )


def _metrics() -> str:
    rows = (
        (f"`{name}`", kind, ", ".join(f"`{label}`" for label in labels), _shown_by(roles), text)
        for name, kind, text, labels, roles in metrics()
    )
    return (
        "# Metrics\n\nEach role serves its own endpoint (`metrics` in videostore.yaml; `videostore status` shows the "
        "addresses) and shows what it knows.\n\n"
        + _table(("metric", "type", "labels", "role", "meaning"), rows)
        + "\n## Labels\n\nEvery label is bounded, and none is personal.\n\n"
        + _table(("label", "values"), ((f"`{label}`", bound) for label, bound in LABELS.items()))
    )


def _shown_by(roles: tuple[str, ...]) -> str:
    return "all" if len(roles) == len(REGISTRIES) else ", ".join(roles)


def _alerts() -> str:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    rows = (
        (
            f"[{rule['alert']}](../{rule['annotations']['runbook']})",
            rule["labels"]["severity"],
            rule["annotations"]["summary"],
        )
        for group in groups
        for rule in group["rules"]
    )
    return (
        "# Alerts\n\nThe rules are in deploy/prometheus/alerts.yml, each with a test of its own in "
        "deploy/prometheus/tests. `critical` wakes somebody, `warning` waits for the working day. The name leads to "
        "the page with what to do.\n\n" + _table(("alert", "severity", "says"), rows)
    )


def _codes() -> str:
    leaves = list(errors.every_error())
    tree = inspect.cleandoc(errors.__doc__ or "").split("::", 1)[1]
    reasons = ((f"`{reason.value}`", f"`{told(reason)}`") for reason in Reason)
    events = ((f"`{event.value}`",) for event in Event)
    return (
        "# Codes\n\n## Exit codes\n\n0 is success, 1 an error nobody foresaw, 2 a command line that makes no sense, "
        "3 a request that waits for a second person, 130 an interruption.\n\n"
        + _table(("exit code", "error"), ((str(leaf.exit_code), f"`{leaf.__name__}`") for leaf in leaves))
        + f"\nThe tree, with the HTTP statuses of the gate:\n\n{tree.strip(chr(10)).split('Exit code 1')[0].rstrip()}\n"
        + "\n## Reasons\n\nEvery answer of the access rules. The ledger has the reason; the person is told what "
        "stands beside it.\n\n"
        + _table(("reason", "told"), reasons)
        + "\n## Ledger events\n\n"
        + _table(("event",), events)
    )


def _configuration() -> str:
    parts = [
        "# Configuration\n\nEvery file is read strictly: an unknown key, a missing unit or a key twice is an error that "
        "names the place. The JSON Schemas lie beside this page. Durations are written `30d`, `24h`, `1h30m`, `10s`, "
        "`250ms`.\n"
    ]
    for model in (settings.SiteSettings, settings.RetentionFile, settings.AccessFile, settings.CamerasFile):
        path = {
            settings.SiteSettings: "videostore.yaml",
            settings.RetentionFile: "policies/retention.yaml",
            settings.AccessFile: "policies/access.yaml",
            settings.CamerasFile: "cameras.yaml",
        }[model]
        parts.append(f"\n## {path}\n\n" + _table(("key", "default", "meaning"), _keys(model, "")))
    return "".join(parts)


def _keys(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        inner = _models(field.annotation)
        if inner:
            named = f"{name}.NAME" if get_origin(field.annotation) is dict else name
            for one in inner:
                yield from _keys(one, f"{prefix}{named}.")
        else:
            yield f"`{prefix}{name}`", _default(field), field.description or ""


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [found for part in getattr(annotation, "__args__", ()) for found in _models(part)]


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, timedelta):
        value = show_duration(value)
    return f"`{json.dumps(value)}`" if value not in ("", None) else "empty"


def _cli() -> str:
    root = typer.main.get_command(app)
    parts = [
        "# Command line\n\n"
        "Times are typed as `2026-11-24T14:00Z`, `2026-11-24 14:00 Europe/Geneva`, `yesterday 14:00`, "
        "`14:00`, `now` or `10m` (ago); without a zone they are UTC. Commands that print facts take `--json`. "
        "Exit codes: [codes](codes.md).\n"
    ]
    for path, command in _commands(root, "videostore"):
        with command.make_context(path, [], resilient_parsing=True, terminal_width=100) as context:
            text = re.sub(r"[ \t]+$", "", context.get_help(), flags=re.MULTILINE)
        parts.append(f"\n## {path}\n\n```text\n{text}\n```\n")
    return "".join(parts)


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, inner in sorted(getattr(command, "commands", {}).items()):
        yield from _commands(inner, f"{path} {name}")


if __name__ == "__main__":
    for name, text in pages().items():
        (HERE / name).write_text(text, encoding="utf-8")
