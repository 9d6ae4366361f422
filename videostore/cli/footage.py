"""``videostore search | play | snapshot``: an investigator looks for footage, at the gate."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
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
from videostore.cli.output import AsJson, console, errors, print_json, print_rows, show_size, show_time
from videostore.cli.times import parse_time
from videostore.domain import cmaf
from videostore.domain.access import Mode
from videostore.domain.errors import FootageDeleted, ObjectMissing, RequestInvalid
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
    url: Annotated[bool, typer.Option("--url", help="Print an address for a player of your own.")] = False,
    as_json: AsJson = False,
) -> None:
    """View footage: in mpv or ffplay if there is one, else by an address that works once, or in a pipe.

    Nothing is kept: `videostore export` is for that.
    """
    if live:
        start, end = start or "20s", (composition.host_time() + _LIVE).isoformat()
    with connected() as client:
        span = {} if request else read_span(when, start, end)
        grant = granted(client, camera, span, Mode.VIEW, incident, request)
        servings = [client.post(f"/v1/grants/{grant}/viewings", {"camera": one}) for one in camera]
        for one in servings:
            if not one["parts"]:
                raise RequestInvalid(
                    f"there is no footage of {one['camera']} in that span",
                    hint="`videostore search` shows what is.",
                )
        if not (url or as_json or sys.stdout.isatty()):
            _pipe(client, servings)
            return
        addresses = [
            {
                **client.post(f"/v1/servings/{one['serving_id']}/ticket"),
                "camera": one["camera"],
                "start": one["parts"][0]["start"],
            }
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
            picture, captured = answer.read(), answer.headers.get("X-Captured-At")
        with disk_errors(output), output.open("xb") as file:
            file.write(picture)
    when = f", captured at {show_time(read_time(captured))}" if captured else ""
    console.print(f"{output}: {show_size(len(picture))}{when}", markup=False, soft_wrap=True)


_AROUND = timedelta(seconds=15)
"""Asked for around a moment: whole fragments leave, and the one that shows it begins before it."""


def _player() -> list[str] | None:
    """Return the command of a player that can show something here."""
    if not any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")) and sys.platform == "linux":
        return None
    authority = Session.load().ca_file
    if mpv := shutil.which("mpv"):
        return [mpv, *_MPV, *([f"--tls-ca-file={authority}"] if authority else [])]
    if ffplay := shutil.which("ffplay"):
        return [ffplay, "-v", "error", "-autoexit", *(["-ca_file", authority] if authority else [])]
    return None


_MPV = (
    "--ytdl=no",
    "--force-window",
    "--quiet",
    "--msg-level=all=error",
    "--cache-on-disk=no",
    "--save-position-on-quit=no",
)
_QUIT_BY_SIGNAL = 4
"""How mpv ends where somebody ended it."""


def _watch(player: list[str], addresses: list[dict[str, Any]]) -> None:
    """Show each camera in a window of its own, until all are closed. The addresses work once."""
    running = []
    for number, one in enumerate(addresses):
        title = f"{one['camera']} from {show_time(read_time(one['start']))}"
        if Path(player[0]).name == "ffplay":
            words = ["-window_title", title]
        else:
            words = [f"--title={title}", *_place(number, len(addresses))]
        running.append(subprocess.Popen([*player, *words, one["url"]]))  # noqa: S603 - the person's player
    ended = {process.wait() for process in running} - {0, _QUIT_BY_SIGNAL}
    if ended:
        errors.print(f"{player[0]} ended with {max(ended)}; --url gives an address for another", markup=False)
        raise typer.Exit(1)


def _place(number: int, count: int) -> list[str]:
    """Return where a window of several stands: beside the others, two in a row, or three from five on."""
    if count == 1:
        return []
    columns = 2 if count <= 4 else 3
    rows = -(-count // columns)
    row, column = divmod(number, columns)
    at = f"+{100 * column // (columns - 1)}%+{100 * row // max(1, rows - 1)}%"
    return [f"--geometry={100 // columns}%x{100 // max(rows, 2)}%{at}"]


def _pipe(client: GateClient, servings: list[dict[str, Any]]) -> None:
    if len(servings) > 1:
        raise RequestInvalid("a pipe shows one camera", hint="Name one, or give --url.")
    sink = typer.get_binary_stream("stdout")
    for data in watched(client, servings[0]["playlist"]):
        sink.write(data)
        sink.flush()


def watched(client: GateClient, playlist: str) -> Iterator[bytes]:
    """Yield what a player shows, part by part as it is played: one fragmented MP4."""
    init, number = b"", 0
    for part in _parts(client, playlist):
        try:
            own = client.fetch(part.replace(".m4s", ".init.mp4"))
            media = client.fetch(part)
        except (FootageDeleted, ObjectMissing) as error:
            errors.print(str(error), markup=False)
            continue
        if init and own != init:
            raise RequestInvalid(
                "the picture changes its format here", hint="Ask for the footage after it separately."
            )
        if not init:
            yield own
        for one in cmaf.parse(own + media).fragments:
            number += 1
            yield one.moved(start=one.start, number=number).data
        init = own


def _parts(client: GateClient, playlist: str) -> Iterator[str]:
    """Yield the address of each part of a playlist, and wait for more while it grows."""
    seen = 0
    while True:
        lines = client.fetch(playlist).decode().splitlines()
        names = [line for line in lines if line.endswith(".m4s")]
        yield from (playlist.replace("index.m3u8", name) for name in names[seen:])
        if "#EXT-X-ENDLIST" in lines:
            return
        seen = len(names)
        time.sleep(_LOOKS_SECONDS)


_LIVE = timedelta(hours=1)
_LOOKS_SECONDS = 2.0
"""How often a pipe asks for what was recorded meanwhile."""
