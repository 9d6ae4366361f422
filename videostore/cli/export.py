"""``videostore export``: footage for somebody outside this room, once a second person has agreed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from videostore.cli.access import Cameras, From, Incident, To, When, connected, granted, read_span, read_time
from videostore.cli.client import GateClient
from videostore.cli.footage import Asked, describe, save
from videostore.cli.output import AsJson, console, print_rows, show_time
from videostore.domain.access import Mode
from videostore.durable import disk_errors


def register(app: typer.Typer) -> None:
    app.command()(export)


def _export(client: GateClient, grant: str, camera: str, directory: Path) -> dict[str, Any]:
    serving = client.post(f"/v1/grants/{grant}/exports", {"camera": camera})
    film = directory / f"{serving['camera']}.mp4"
    facts = {"camera": serving["camera"], "file": str(film), **save(client, serving, film)}
    facts["delete_by"] = serving["delete_by"]
    manifest = directory / f"{serving['camera']}.json"
    with disk_errors(manifest), manifest.open("x", encoding="utf-8") as file:
        json.dump({**serving, **facts, "file": film.name}, file, indent=1)
    return facts


def export(
    camera: Cameras,
    *,
    when: When = "",
    start: From = "",
    end: To = "",
    directory: Annotated[
        Path, typer.Option("--to-dir", "-o", help="Directory for film and manifest.")
    ] = Path("export"),
    incident: Incident = "",
    request: Asked = "",
    as_json: AsJson = False,
) -> None:
    """Export footage: a film and a manifest for each camera. A second person approves it first."""
    with connected() as client:
        span = {} if request else read_span(when, start, end)
        grant = granted(client, camera, span, Mode.EXPORT, incident, request)
        with disk_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
        rows = [_export(client, grant, one, directory) for one in camera]
    if as_json:
        print_rows(rows, as_json=True, empty="")
        return
    for row in rows:
        console.print(f"{describe(row)}\n  sha256 {row['sha256']}", markup=False, soft_wrap=True)
    gone_by = min(read_time(row["delete_by"]) for row in rows)
    console.print(
        Text(f"Delete every copy by {show_time(gone_by)}: an export extends no deadline.", style="bold"),
        soft_wrap=True,
    )
