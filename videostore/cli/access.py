"""``videostore login | request | approve``: an investigator at the gate."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any

import typer

from videostore import app as composition
from videostore.cli.client import GateClient, Session
from videostore.cli.output import AsJson, console, print_facts, print_rows, show_time
from videostore.cli.times import parse_span, parse_time
from videostore.cli.unfinished import look_after
from videostore.domain.access import Mode
from videostore.domain.errors import RequestInvalid

Incident = Annotated[
    str, typer.Option("--incident", help="Id of the incident; not needed while only one is open.")
]
Cameras = Annotated[
    list[str], typer.Option("--camera", help="Name or UUID; give it again for more.", show_default=False)
]
When = Annotated[
    str,
    typer.Option("--when", metavar="SPAN", help="Such as 'yesterday 14:00-14:20 Europe/Zurich', or 10m."),
]
From = Annotated[str, typer.Option("--from", help="Begin, such as 14:00, 'yesterday 14:00' or 10m (ago).")]
To = Annotated[str, typer.Option("--to", help="End; default: now.")]


def register(app: typer.Typer) -> None:
    for command in (request, requests, approve):
        app.command()(command)


def request(
    *,
    camera: Cameras,
    when: When = "",
    start: From = "",
    end: To = "",
    mode: Annotated[Mode, typer.Option("--mode", help="What for.")] = Mode.VIEW,
    incident: Incident = "",
    break_glass: Annotated[
        str,
        typer.Option("--break-glass", help="Why no second person can be waited for: alarmed and reviewed."),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Ask for footage; an export waits for a second approved person."""
    with connected() as client:
        answer = ask(client, camera, read_span(when, start, end), mode, incident, break_glass)
    if as_json:
        print_facts(answer, as_json=True)
    elif answer["grant"]:
        grant = answer["grant"]
        until = show_time(read_time(grant["expires_at"]))
        console.print(f"granted until {until}: go on with --request {answer['request_id']}", markup=False)
    else:
        _say_second_person(answer["request_id"])


def requests(*, as_json: AsJson = False) -> None:
    """List the requests that wait for a second person."""
    with connected() as client:
        rows = client.get("/v1/requests")
    if as_json:
        print_rows(rows, as_json=True, empty="")
        return
    for row in rows:
        what = f"{row['mode']} {len(row['cameras'])} cameras for incident {row['incident_id']}"
        span = f"{show_time(read_time(row['start']))} to {show_time(read_time(row['end']))}"
        line = f"{row['request_id']}  {row['staff_id']} asks to {what}: {span}"
        console.print(line, markup=False, soft_wrap=True)
    if not rows:
        console.print("Nothing waits.", style="dim")


def approve(
    request_id: Annotated[str, typer.Argument(metavar="REQUEST", help="Id of somebody else's request.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Approve another person's request, as the second person."""
    with connected() as client:
        print_facts(client.post(f"/v1/requests/{request_id}/approve"), as_json=as_json)


# --- shared with the other commands of an investigator ---


@contextmanager
def connected() -> Iterator[GateClient]:
    """Yield the gate of the stored login. What is saved from there on is for this person alone; what exports
    that broke off have left is looked after first."""
    os.umask(0o077)
    look_after(composition.host_time())
    with GateClient.of(Session.load()) as client:
        yield client


def find_incident(client: GateClient, incident: str) -> str:
    """Return the incident that was named, else the only one that is open."""
    if incident:
        return incident
    found = client.get("/v1/incidents")
    if len(found) == 1:
        return str(found[0]["incident_id"])
    if not found:
        raise RequestInvalid(
            "no incident is open", hint="videostore incident open search 'fire alarm, building B'"
        )
    raise RequestInvalid(f"{len(found)} incidents are open", hint="Name one: --incident ID")


def granted(
    client: GateClient, cameras: list[str], span: dict[str, str], mode: Mode, incident: str, request: str
) -> str:
    """Return the grant of an approved request, or of a new one. Exits if a second person has to approve."""
    if request:
        return str(client.get(f"/v1/requests/{request}/grant")["grant_id"])
    answer = ask(client, cameras, span, mode, incident)
    if answer["grant"]:
        return str(answer["grant"]["grant_id"])
    _say_second_person(answer["request_id"])
    raise typer.Exit(_WAITS)


def ask(
    client: GateClient,
    cameras: list[str],
    span: dict[str, str],
    mode: Mode,
    incident: str,
    break_glass: str = "",
) -> dict[str, Any]:
    """Ask for footage; the answer has the request and, if there is one already, its grant."""
    body = {"incident_id": find_incident(client, incident), "cameras": cameras, **span, "mode": mode.value}
    body["break_glass"] = break_glass
    answer: dict[str, Any] = client.post("/v1/requests", body)
    return answer


def read_span(when: str, start: str, end: str) -> dict[str, str]:
    """Return begin and end as the gate takes them, from ``--when`` or from ``--from`` and ``--to``."""
    now = composition.host_time()
    if bool(when) == bool(start):
        raise RequestInvalid(
            "nothing says when" if not when else "--when says begin and end already",
            hint="Give --from 10m, --from 14:00 --to 14:20 or --when 'yesterday 14:00-14:20 Europe/Zurich'.",
        )
    if when:
        begin, until = parse_span(when, now=now)
    else:
        begin, until = parse_time(start, now=now), parse_time(end or "now", now=now)
    return {"start": begin.isoformat(), "end": until.isoformat()}


# --- pieces ---

_WAITS = 3
"""Exit code of a command that waits for a second person."""


def _say_second_person(request_id: str) -> None:
    console.print(f"requested: {request_id}", markup=False)
    console.print(
        f"  -> a second approved person types: videostore approve {request_id}\n"
        f"     then you go on with --request {request_id}",
        markup=False,
        soft_wrap=True,
    )


def read_time(text: str) -> datetime:
    """Return a time as the gate writes it."""
    return datetime.fromisoformat(text)
