"""``videostore search | play | snapshot``: an investigator looks for footage, at the gate."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from videostore import app as composition
from videostore.cli.access import (
    Cameras,
    From,
    Incident,
    To,
    When,
    connected,
    find_incident,
    granted,
    read_span,
    read_time,
)
from videostore.cli.client import GateClient, Session
from videostore.cli.output import AsJson, console, print_json, print_rows, show_size, show_time
from videostore.cli.times import parse_time
from videostore.domain import cmaf
from videostore.domain.access import Mode
from videostore.domain.errors import GateUnavailable, IntegrityError, RequestInvalid
from videostore.durable import disk_errors

Asked = Annotated[
    str, typer.Option("--request", help="Go on with a request that was approved, instead of asking.")
]
Group = Annotated[str, typer.Option("--group", help="Only cameras of this group.")]
Where = Annotated[str, typer.Option("--place", help="Only cameras whose place has this in it.")]


def register(app: typer.Typer) -> None:
    for command in (search, play, snapshot):
        app.command()(command)


def search(
    *,
    camera: Cameras = [],  # noqa: B006 - typer copies it
    group: Group = "",
    where: Where = "",
    when: When = "",
    start: From = "",
    end: To = "",
    incident: Incident = "",
    as_json: AsJson = False,
) -> None:
    """Show what footage there is, and why some is missing; without a time, of the last hour."""
    with connected() as client:
        body = {
            "incident_id": find_incident(client, incident),
            "cameras": camera,
            "group": group,
            "place": where,
            **read_span(when, start or ("" if when else "1h"), end),
        }
        rows = client.post("/v1/search", body)
    if as_json:
        print_rows(rows, as_json=True, empty="")
        return
    shown = [
        {
            "camera": row["camera"],
            "place": row["place"] or row["group"],
            "start": read_time(row["start"]),
            "end": read_time(row["end"]),
            "what": Text(row["kind"], style=_STYLES.get(row["kind"], "yellow")),
            "why": row["why"],
        }
        for row in rows
        if row["kind"] != "future"
    ]
    print_rows(shown, as_json=False, empty="There is no such camera.")


_STYLES = {"footage": "green", "damaged": "green", "deleted": "dim", "expired": "dim", "gap": "red"}


def play(
    camera: Annotated[list[str], typer.Argument(help="Names or UUIDs; several play at the same time.")],
    *,
    when: When = "",
    start: From = "",
    end: To = "",
    live: Annotated[bool, typer.Option("--live", help="Follow the camera, for an hour from now.")] = False,
    incident: Incident = "",
    request: Asked = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write a film: a new file, or - for a pipe.")
    ] = None,
    url: Annotated[bool, typer.Option("--url", help="Print an address for a player of your own.")] = False,
    as_json: AsJson = False,
) -> None:
    """View footage: in mpv or ffplay if there is one, else by an address that works once. Nothing is kept."""
    if live:
        start, end = start or "20s", (composition.host_time() + _LIVE).isoformat()
    with connected() as client:
        span = {} if request else read_span(when, start, end)
        grant = granted(client, camera, span, Mode.VIEW, incident, request)
        servings = [client.post(f"/v1/grants/{grant}/viewings", {"camera": one}) for one in camera]
        if output is not None or not (url or as_json or sys.stdout.isatty()):
            _write(client, servings, output or Path("-"))
            return
        addresses = [
            {**client.post(f"/v1/servings/{one['serving_id']}/ticket"), "camera": one["camera"]}
            for one in servings
        ]
        for one in addresses:
            one["url"] = client.gate + one.pop("path")
        if as_json:
            print_json(addresses)
            return
        player = None if url else _player()
        if player:
            _watch(player, addresses)
            return
        for one in addresses:
            until = show_time(read_time(one["use_by"]))
            console.print(f"{one['camera']}: opens once, until {until}:", markup=False)
            console.print(one["url"], markup=False, soft_wrap=True)


def snapshot(
    camera: Annotated[str, typer.Argument(help="Name or UUID.")],
    *,
    at: Annotated[str, typer.Option("--at", help="The moment, such as 14:02:30 or 5m (ago).")] = "",
    when: When = "",
    start: From = "",
    end: To = "",
    sheet: Annotated[
        str,
        typer.Option("--sheet", metavar="COLUMNSxROWS", help="How many pictures of a span: a contact sheet."),
    ] = "4x4",
    incident: Incident = "",
    output: Annotated[Path, typer.Option("--output", "-o", help="A new JPEG file.")] = Path("snapshot.jpg"),
) -> None:
    """Save the picture of a moment (--at), or a contact sheet of a span to find the moment fast."""
    shape = re.fullmatch(r"(\d+)x(\d+)", sheet)
    if shape is None:
        raise typer.BadParameter("write it like 4x3", param_hint="--sheet")
    if at:
        moment = parse_time(at, now=composition.host_time())
        span = {"start": (moment - _AROUND).isoformat(), "end": (moment + _AROUND).isoformat()}
        path, body = "snapshot", dict[str, Any](at=moment.isoformat())
    else:
        span = read_span(when, start, end)
        path, body = "sheet", dict[str, Any](columns=int(shape[1]), rows=int(shape[2]))
    with connected() as client:
        grant = granted(client, [camera], span, Mode.VIEW, incident, "")
        serving = client.post(f"/v1/grants/{grant}/viewings", {"camera": camera})
        with client.stream(f"/v1/servings/{serving['serving_id']}/{path}", body) as answer:
            picture = answer.read()
        with disk_errors(output), output.open("xb") as file:
            file.write(picture)
    console.print(f"{output}: {show_size(len(picture))}", markup=False, soft_wrap=True)


_AROUND = timedelta(seconds=15)
"""Asked for around a moment: whole fragments leave, and the one that shows it begins before it."""


def _player() -> list[str] | None:
    """Return the command of a player that can show something here."""
    if not any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")) and sys.platform == "linux":
        return None
    authority = Session.load().ca_file
    if mpv := shutil.which("mpv"):
        return [mpv, "--ytdl=no", "--force-window", *([f"--tls-ca-file={authority}"] if authority else [])]
    if ffplay := shutil.which("ffplay"):
        return [ffplay, "-v", "error", "-autoexit", *(["-ca_file", authority] if authority else [])]
    return None


def _watch(player: list[str], addresses: list[dict[str, Any]]) -> None:
    """Show each camera in a window of its own, until all are closed. The addresses work once."""
    title = "-window_title" if Path(player[0]).name == "ffplay" else "--title"
    running = []
    for one in addresses:
        name = [title, one["camera"]] if title.startswith("-w") else [f"{title}={one['camera']}"]
        running.append(subprocess.Popen([*player, *name, one["url"]]))  # noqa: S603 - the person's player
    for process in running:
        process.wait()


def _write(client: GateClient, servings: list[dict[str, Any]], output: Path) -> None:
    if len(servings) > 1:
        raise RequestInvalid("a film shows one camera", hint="Export several, or name one.")
    if str(output) == "-":
        sink = typer.get_binary_stream("stdout")
        for chunk in movie(client, servings[0]):
            sink.write(chunk)
        sink.flush()
        return
    facts = save(client, servings[0], output)
    console.print(describe({"file": output, **facts}), markup=False, soft_wrap=True)


# --- shared with export ---


def describe(facts: dict[str, Any]) -> str:
    return f"{facts['file']}: {facts['frames']} frames, {show_size(facts['size_bytes'])}"


def save(client: GateClient, serving: dict[str, Any], path: Path) -> dict[str, Any]:
    """Write a film to a new file, whole or not at all. Returns what was written."""
    digest = hashlib.sha256()
    part = path.with_name(f".{path.name}.part")
    with disk_errors(path):
        if path.exists():
            raise RequestInvalid(f"{path} exists already", hint="Name a new file or directory.")
        try:
            with part.open("wb") as file:
                for chunk in movie(client, serving):
                    file.write(chunk)
                    digest.update(chunk)
            frames = cmaf.parse(part.read_bytes()).frames
            size_bytes = part.stat().st_size
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    return {"frames": frames, "size_bytes": size_bytes, "sha256": digest.hexdigest()}


def movie(client: GateClient, serving: dict[str, Any]) -> Iterator[bytes]:
    with client.stream(f"/v1/servings/{serving['serving_id']}/movie") as response:
        try:
            yield from response.iter_bytes()
        except GateUnavailable as error:
            raise IntegrityError(
                "the film broke off", hint="Ask again: footage may have reached its deadline meanwhile."
            ) from error


_LIVE = timedelta(hours=1)
