"""Writes the reference pages from the code: ``python docs/reference/make.py``.

A test runs the same functions and compares, so a page can never say something else than the code.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args, get_origin

import typer
import yaml
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from videostore.cli.main import app
from videostore.config import settings
from videostore.config.durations import show_duration
from videostore.domain import errors
from videostore.domain.access import Reason
from videostore.domain.ledger import Event
from videostore.domain.refusal import told
from videostore.gate import api as api_module
from videostore.gate import entrance_routes, footage_routes, guard, inputs
from videostore.store.rights import ROLES, policy
from videostore.telemetry import LABELS, REGISTRIES, metrics

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
SCHEMAS = {
    "videostore.schema.json": settings.SiteSettings,
    "retention.schema.json": settings.RetentionFile,
    "access.schema.json": settings.AccessFile,
    "cameras.schema.json": settings.CamerasFile,
}

LIMITS = {
    "minimum": "at least {:.0f}",
    "maximum": "at most {:.0f}",
    "maxLength": "at most {} characters",
    "minItems": "at least {}",
    "maxItems": "at most {}",
}

FORMATS = {
    "What is in the store: the object key": {
        "videostore/domain/segment.py": "",
        "videostore/store/directory.py": "",
    },
    "A sealed segment: age around fragmented MP4": {
        "videostore/sealing.py": "`age -d -i IDENTITY` opens a segment whose hour key is still there.",
        "videostore/domain/cmaf.py": "",
    },
    "An entry/exit record": {
        "videostore/presence/register.py": "What is sealed is a JSON object with `badge`, `door`, `direction` (`entry` or `exit`) "
        "and `read_at`. Its key is `presence/`, the day, the hour key and a UUID.",
    },
    "The ledger": {
        "videostore/ledger/files.py": "Records, checkpoints, certificates of deletion and proofs, field by field: "
        "[proofs](proofs.md).",
        "videostore/ledger/index.py": "",
        "videostore/ledger/anchors.py": "",
    },
    "The chain of segments": {
        "videostore/domain/chain.py": "A run is `camera_id`, `key_id`, `span`, `sequences` (first and last), `segments`, `before`, "
        "`after` and `clock_ms`, signed in the context `segments`. To fold one more: SHA-256 over the digest and the SHA-256 of the object key, 32 bytes each; the first digest is 32 zeros. [Why](../design/0007-chain.md).",
    },
    "An export: films and a manifest": {
        "videostore/domain/onvif.py": "",
        "videostore/gate/export.py": "The manifest, CAMERA.json, is `manifest`, `signature` and `certificate`. Of a `manifest`: `format`, `kind` "
        "(`original` or `viewing-copy`), `site`, `exported_at`, `delete_by`, `purpose`, `incident_id`, `reference`, `person`, `second_person`, `grant_id`, "
        "`serving_id`, `camera`, `requested`, `films`, `missing`, `recorder`, `runs`, `ledger`. Of each film: `number`, `shown`, "
        "`begins`, `frames`, `size_bytes`, `sha256`, `segments`. [Why](../design/0022-export.md).",
    },
    "A backup": {
        "videostore/backup/archive.py": "",
        "videostore/app/recovery.py": "Beside the site's own files: `backup.json` (`site`, `made_at`, `records`) and `gaps.jsonl`, a list of "
        "camera, start, end and reason a line.",
    },
    "The keyring": {
        "videostore/keyring/files.py": "A header has `key_id`, `recipient`, `deadline`, `destroyed_at` and its `signature` by the key of the ledger (`videostore.signing`, context of that file).",
        "videostore/keyring/master.py": "",
        "videostore/keyring/token.py": "",
        "videostore/keyring/transit.py": "",
    },
    "The spool": {
        "videostore/recorder/spool.py": "",
        "videostore/recorder/growing.py": "",
        "videostore/recorder/record.py": "",
    },
    "People": {
        "videostore/gate/papers.py": "",
        "videostore/gate/staff.py": "",
        "videostore/signing.py": "",
    },
    "A site's directory": {
        "videostore/config/site.py": "The keys of its settings: [configuration](configuration.md)."
    },
}
"""Where each format is described: in the docstring of the module that writes it, and what stands beside it here."""


def pages() -> dict[str, str]:
    """Return every generated page by file name."""
    return {
        "alerts.md": _alerts(),
        "api.md": _api(),
        "cli.md": _cli(),
        "codes.md": _codes(),
        "configuration.md": _configuration(),
        "formats.md": _formats(),
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


def _api() -> str:
    api = api_module.create_api(None, find_camera=None, all_cameras=None)  # type: ignore[arg-type]  # nothing is asked
    document = api.openapi()
    named = {(method, path) for path, methods in document["paths"].items() for method in methods}
    who = {
        (method.lower(), route.path): _who(route)
        for route in iter_route_contexts(api.routes)
        for method in route.methods or ()
        if (method.lower(), route.path) in named
    }
    routes = (
        (
            f"`{method.upper()} {path}`",
            who[method, path],
            _body(operation),
            operation["description"].replace("``", "`"),
        )
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    bodies = (
        f"\n### {name}\n\n" + _table(("field", "type", "limits", "default"), _fields(model, document))
        for name, model in sorted(document["components"]["schemas"].items())
        if name.endswith("Body")
    )
    return (
        f"# The gate's HTTP API\n\n{_described(inspect.getdoc(api_module) or '').split(chr(10) * 2, 1)[1]}\n\nA body is JSON; a field that is not named here "
        f"is refused, and so is a body of more than {guard.LARGEST_BODY // 1024} KiB or one that takes longer than "
        f"{guard.BODY_SECONDS:.0f} s, an address of more than {guard.LONGEST_ADDRESS} characters, and request "
        f"{guard.REQUESTS + 1} of a minute from one address. Answers are JSON unless said otherwise. A browser's token "
        f"is in the cookie `{inputs.SESSION_COOKIE}`, which counts for requests of the gate's own page alone.\n\n"
        "## Who may\n\n- **everybody**: no login.\n- **a login**: it tells nothing and opens nothing.\n- **approved**: "
        "a login of a person whom an approver approved and who signed the notice in force. This is asked at each "
        "request, with what the [access rules](codes.md#reasons) say of this incident, request or grant.\n- **its "
        "viewer**: approved, and the viewing or export is one's own; its grant is asked at each part.\n- **its address**: "
        "whoever has the secret in the address. It comes from a viewer, and ends with the viewing or the login.\n\n"
        "## Routes\n\n"
        + _table(("route", "who may", "body", "does"), routes)
        + "\n## Bodies\n"
        + "".join(bodies)
        + "\n## Refusals\n\nAny route may answer with any of these. 403 carries a [reason](codes.md#reasons), 410 of deleted "
        "footage the `certificate` of its deletion.\n\n" + _table(("status", "error"), _statuses())
    )


def _who(route: Any) -> str:
    """Say who may, by what a route depends on."""
    asked = set(_dependencies(route.dependant))
    of = {
        name: get_args(getattr(footage_routes, name))[1].dependency
        for name in ("OwnServing", "PlayerServing")
    }
    if of["OwnServing"] in asked:
        return "its viewer"
    if of["PlayerServing"] in asked or "{ticket}" in route.path:
        return "its address"
    if get_args(inputs.StaffId)[1].dependency not in asked:
        return "everybody"
    return "a login" if route.endpoint.__module__ == entrance_routes.__name__ else "approved"


def _dependencies(dependant: Any) -> Iterator[Any]:
    for inner in dependant.dependencies:
        yield inner.call
        yield from _dependencies(inner)


def _body(operation: dict[str, Any]) -> str:
    if "requestBody" not in operation:
        return ""
    name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    return f"[{name}](#{name.lower()})" if name.endswith("Body") else "`{}`"


def _fields(model: dict[str, Any], document: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, field in model["properties"].items():
        default = f"`{json.dumps(field['default'])}`" if "default" in field else "null"
        limits = ", ".join(text.format(field[key]) for key, text in LIMITS.items() if key in field)
        yield (
            f"`{name}`",
            _type(field, document),
            limits,
            "required" if name in model.get("required", ()) else default,
        )


def _type(field: dict[str, Any], document: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_type(one, document) for one in field["anyOf"])
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        values = document["components"]["schemas"][name]["enum"]
        return (
            "a [ledger event](codes.md#ledger-events)"
            if name == "Event"
            else ", ".join(f"`{value}`" for value in values)
        )
    if field["type"] == "array":
        return f"list of {_type(field['items'], document)}s"
    return "time, ISO 8601 with a zone" if field.get("format") == "date-time" else field["type"]


def _statuses() -> Iterator[tuple[str, ...]]:
    named: dict[int, list[str]] = {}
    for leaf in errors.every_error():
        named.setdefault(leaf.http_status, []).append(f"`{leaf.__name__}`")
    for status, names in sorted(named.items()):
        yield str(status), ", ".join(names) if status != 500 else "any other"


def _formats() -> str:
    parts = [
        "# File formats\n\nWhat somebody may meet who reads a store, a ledger or a site without videostore. Each is described where "
        "it is written: what follows is the text of the code. Times are UTC, hashes SHA-256, JSON is UTF-8.\n"
    ]
    for title, modules in FORMATS.items():
        parts.append(f"\n## {title}\n")
        for path, beside in modules.items():
            text = ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8"))) or ""
            parts.append(f"\n{_described(text)}\n\n{beside}{' ' * bool(beside)}Source: `{path}`.\n")
    return "".join(parts)


def _described(docstring: str) -> str:
    """Return a docstring as Markdown."""
    out = []
    for part in docstring.split("\n\n"):
        if part.startswith("    "):
            out.append(f"```text\n{textwrap.dedent(part)}\n```")
        elif part.startswith("- "):
            out.append(part.replace("``", "`"))
        elif part != "::":
            text = re.sub(
                r"\bdocs/(\S+?/([\w-]+)\.md)", r"[\2](../\1)", part.replace("``", "`").replace("\n", " ")
            )
            out.append(re.sub(r"::$", ":", text))
    return "\n\n".join(out)


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
