"""``videostore login | search | request | approve | play | export``: an investigator at the gate."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from videostore import app as composition
from videostore.cli.client import GateClient, Session
from videostore.cli.output import AsJson, console, print_facts, print_rows, show_size, show_time
from videostore.cli.staff import PasswordFile, StaffId, read_code, read_password
from videostore.cli.times import parse_time
from videostore.domain import cmaf
from videostore.domain.access import Mode
from videostore.domain.errors import GateUnavailable, IntegrityError, RequestInvalid
from videostore.durable import disk_errors
from videostore.gate.papers import sign_acknowledgement
from videostore.signing import SigningKey

GATE = "http://127.0.0.1:8470"

Incident = Annotated[
    str, typer.Option("--incident", help="Id of the incident; not needed while only one is open.")
]
Cameras = Annotated[
    list[str], typer.Option("--camera", help="Name or UUID; give it again for more.", show_default=False)
]
From = Annotated[str, typer.Option("--from", help="Begin, such as 14:00, 'yesterday 14:00' or 10m (ago).")]
To = Annotated[str, typer.Option("--to", help="End.")]
Asked = Annotated[
    str, typer.Option("--request", help="Go on with a request that was approved, instead of asking.")
]
MaybeFrom = Annotated[
    str, typer.Option("--from", help="Begin, such as 14:00 or 10m (ago); not needed with --request.")
]


def register(app: typer.Typer) -> None:
    for command in (login, logout, whoami, acknowledge, search, request, requests, approve, play, export):
        app.command()(command)


def login(
    staff_id: StaffId,
    *,
    gate: Annotated[str, typer.Option("--gate", envvar="VIDEOSTORE_GATE", help="URL of the gate.")] = GATE,
    ca_file: Annotated[
        Path | None, typer.Option("--ca-file", help="PEM file of a private certificate authority.")
    ] = None,
    password_file: PasswordFile = None,
    authenticator: Annotated[
        Path | None,
        typer.Option("--authenticator", help="File with the authenticator's secret, for tests."),
    ] = None,
) -> None:
    """Log in at a gate. It opens nothing by itself: approval and notice are asked at every step."""
    authority = str(ca_file.absolute()) if ca_file else ""
    with GateClient(gate, ca_file=authority) as client:
        password = read_password(password_file)
        body = {"staff_id": staff_id, "password": password, "code": read_code(authenticator)}
        answer = client.post("/v1/login", body)
    session = Session(gate=gate, staff_id=staff_id, token=answer["token"], ca_file=authority)
    session.save()
    with GateClient.of(session) as client:
        right = client.get("/v1/whoami")
    console.print(f"logged in as {staff_id} until {show_time(_time(answer['ends_at']))}", markup=False)
    if not right["may_see_footage"]:
        console.print(f"  -> you cannot see footage: {right['reason']}", markup=False)


def logout() -> None:
    """End the login."""
    with connected() as client:
        client.post("/v1/logout")
    Session.forget()


def whoami(*, as_json: AsJson = False) -> None:
    """Show who is logged in, and whether that person may see footage now, or why not."""
    with connected() as client:
        print_facts({**client.get("/v1/whoami"), "gate": client.gate}, as_json=as_json)


def acknowledge(
    *,
    key: Annotated[Path, typer.Option("--key", help="Your signing key; it does not leave this machine.")],
    yes: Annotated[bool, typer.Option("--yes", help="You have read the notice; do not ask.")] = False,
) -> None:
    """Read the notice of paragraph 27 and sign it."""
    with connected() as client:
        asked = client.get("/v1/notice")
        console.print(asked["notice"], markup=False)
        if hashlib.sha256(asked["notice"].encode()).hexdigest() != asked["notice_sha256"]:
            raise IntegrityError("the gate asks to sign another text than it shows", hint="Do not sign.")
        if not yes:
            typer.confirm(f"{asked['staff_id']}: I have read this and I sign it", abort=True)
        paper = sign_acknowledgement(
            asked["staff_id"],
            SigningKey.load(key),
            notice_sha256=asked["notice_sha256"],
            login_sha256=asked["login_sha256"],
            now=composition.host_time(),
        )
        client.post("/v1/acknowledgements", paper)
    console.print(f"{asked['staff_id']} acknowledged the notice {asked['notice_sha256'][:12]}…", markup=False)


def search(
    *,
    camera: Cameras = [],  # noqa: B006 - typer copies it
    start: From = "1h",
    end: To = "now",
    incident: Incident = "",
    as_json: AsJson = False,
) -> None:
    """Show what footage and which gaps there are."""
    with connected() as client:
        body = {"incident_id": find_incident(client, incident), "cameras": camera, **_span(start, end)}
        rows = client.post("/v1/search", body)
    if as_json:
        print_rows(rows, as_json=True, empty="")
        return
    merged = list(_merged(rows))
    print_rows(merged, as_json=False, empty="No footage and no gap in that span.")


def request(
    *,
    camera: Cameras,
    start: From,
    end: To = "now",
    mode: Annotated[Mode, typer.Option("--mode", help="What for.")] = Mode.VIEW,
    incident: Incident = "",
    as_json: AsJson = False,
) -> None:
    """Ask for footage; an export waits for a second approved person."""
    with connected() as client:
        answer = _request(client, camera, start, end, mode, incident)
    if as_json:
        print_facts(answer, as_json=True)
    elif answer["grant"]:
        grant = answer["grant"]
        until = show_time(_time(grant["expires_at"]))
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
        span = f"{show_time(_time(row['start']))} to {show_time(_time(row['end']))}"
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


def play(
    camera: Annotated[str, typer.Argument(help="Name or UUID.")],
    *,
    start: MaybeFrom = "",
    end: To = "now",
    incident: Incident = "",
    request: Asked = "",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where the film goes: a new file, or - for a player.")
    ] = Path("-"),
) -> None:
    """View footage: `videostore play CAMERA --from … | ffplay -`. Nothing is kept unless you keep it."""
    with connected() as client:
        grant = _grant(client, request) or _granted(client, [camera], start, end, Mode.VIEW, incident)
        serving = client.post(f"/v1/grants/{grant}/viewings", {"camera": camera})
        if str(output) == "-":
            sink = typer.get_binary_stream("stdout")
            for chunk in _movie(client, serving):
                sink.write(chunk)
            sink.flush()
            return
        facts = _save(client, serving, output)
    console.print(_film({"file": output, **facts}), markup=False, soft_wrap=True)


def export(
    camera: Cameras,
    *,
    start: MaybeFrom = "",
    end: To = "now",
    directory: Annotated[
        Path, typer.Option("--to-dir", "-o", help="Directory for film and manifest.")
    ] = Path("export"),
    incident: Incident = "",
    request: Asked = "",
    as_json: AsJson = False,
) -> None:
    """Export footage: a film and a manifest for each camera. A second person approves it first."""
    with connected() as client:
        grant = _grant(client, request) or _granted(client, camera, start, end, Mode.EXPORT, incident)
        with disk_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
        rows = [_export(client, grant, one, directory) for one in camera]
    if as_json:
        print_rows(rows, as_json=True, empty="")
        return
    for row in rows:
        console.print(f"{_film(row)}\n  sha256 {row['sha256']}", markup=False, soft_wrap=True)
    gone_by = min(_time(row["delete_by"]) for row in rows)
    console.print(
        Text(f"Delete every copy by {show_time(gone_by)}: an export extends no deadline.", style="bold"),
        soft_wrap=True,
    )


# --- shared with incident and presence ---


@contextmanager
def connected() -> Iterator[GateClient]:
    """Yield the gate of the stored login."""
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


# --- pieces ---


def _export(client: GateClient, grant: str, camera: str, directory: Path) -> dict[str, Any]:
    serving = client.post(f"/v1/grants/{grant}/exports", {"camera": camera})
    film = directory / f"{serving['camera']}.mp4"
    facts = {"camera": serving["camera"], "file": str(film), **_save(client, serving, film)}
    facts["delete_by"] = serving["delete_by"]
    manifest = directory / f"{serving['camera']}.json"
    with disk_errors(manifest), manifest.open("x", encoding="utf-8") as file:
        json.dump({**serving, **facts, "file": film.name}, file, indent=1)
    return facts


def _film(facts: dict[str, Any]) -> str:
    return f"{facts['file']}: {facts['frames']} frames, {show_size(facts['size_bytes'])}"


def _save(client: GateClient, serving: dict[str, Any], path: Path) -> dict[str, Any]:
    """Write a film to a new file, whole or not at all. Returns what was written."""
    digest = hashlib.sha256()
    part = path.with_name(f".{path.name}.part")
    with disk_errors(path):
        if path.exists():
            raise RequestInvalid(f"{path} exists already", hint="Name a new file or directory.")
        try:
            with part.open("wb") as file:
                for chunk in _movie(client, serving):
                    file.write(chunk)
                    digest.update(chunk)
            frames = cmaf.parse(part.read_bytes()).frames
            size_bytes = part.stat().st_size
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    return {"frames": frames, "size_bytes": size_bytes, "sha256": digest.hexdigest()}


def _movie(client: GateClient, serving: dict[str, Any]) -> Iterator[bytes]:
    with client.stream(f"/v1/servings/{serving['serving_id']}/movie") as response:
        try:
            yield from response.iter_bytes()
        except GateUnavailable as error:
            raise IntegrityError(
                "the film broke off", hint="Ask again: footage may have reached its deadline meanwhile."
            ) from error


def _request(
    client: GateClient, cameras: list[str], start: str, end: str, mode: Mode, incident: str
) -> dict[str, Any]:
    body = {
        "incident_id": find_incident(client, incident),
        "cameras": cameras,
        **_span(start, end),
        "mode": mode.value,
    }
    answer: dict[str, Any] = client.post("/v1/requests", body)
    return answer


def _grant(client: GateClient, request: str) -> str:
    return str(client.get(f"/v1/requests/{request}/grant")["grant_id"]) if request else ""


def _granted(client: GateClient, cameras: list[str], start: str, end: str, mode: Mode, incident: str) -> str:
    if not start:
        raise RequestInvalid("nothing says where to begin", hint="Give --from, such as --from 10m.")
    answer = _request(client, cameras, start, end, mode, incident)
    if answer["grant"]:
        return str(answer["grant"]["grant_id"])
    _say_second_person(answer["request_id"])
    raise typer.Exit(_WAITS)


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


def _span(start: str, end: str) -> dict[str, str]:
    now = composition.host_time()
    return {
        "start": parse_time(start, now=now).isoformat(),
        "end": parse_time(end, now=now).isoformat(),
    }


def _merged(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Join footage that goes on without a hole, for a person."""
    line: dict[str, Any] | None = None
    for row in rows:
        start, end = _time(row["start"]), _time(row["end"])
        same = line is not None and all(line[name] == row[name] for name in ("camera", "kind", "reason"))
        if line is not None and same and (start - line["end"]).total_seconds() < 1:
            line["end"] = max(line["end"], end)
            continue
        if line is not None:
            yield line
        line = {
            "camera": row["camera"],
            "kind": row["kind"],
            "start": start,
            "end": end,
            "reason": row["reason"],
        }
    if line is not None:
        yield line


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
