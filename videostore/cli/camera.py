"""``videostore camera``: which cameras a site records."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer

from videostore import app as composition
from videostore.cli.output import AsJson, SiteDir, console, load_site, print_facts, print_rows
from videostore.config.durations import parse_duration
from videostore.config.site import Site
from videostore.domain.camera import Camera, Transport
from videostore.domain.errors import CredentialsInvalid
from videostore.domain.ledger import Event

app = typer.Typer(help="Add, list, check, disable and remove cameras.", no_args_is_help=True)

CredentialsFile = Annotated[
    Path | None,
    typer.Option(
        "--credentials-file", help="File (mode 0600) that holds user:password; relative to the site."
    ),
]
CredentialsEnv = Annotated[
    str | None, typer.Option("--credentials-env", help="Environment variable that holds user:password.")
]
TransportOption = Annotated[Transport, typer.Option("--transport", help="How RTP travels.")]
CaFile = Annotated[
    Path | None,
    typer.Option("--ca-file", help="Authorities (PEM) of an rtsps:// camera; relative to the site."),
]
Fingerprint = Annotated[
    str,
    typer.Option("--fingerprint", help="SHA-256 of an rtsps:// camera's certificate: this one and no other."),
]
Group = Annotated[
    str | None, typer.Option("--group", help="Name of the cameras it belongs to, such as building-b.")
]
Where = Annotated[
    str | None, typer.Option("--place", help="Where it hangs, such as 'building B, 2nd floor, stairs'.")
]


@app.command()
def add(
    name: str,
    url: Annotated[
        str, typer.Argument(help="rtsp[s]://HOST[:PORT]/PATH without user or password, or folder://NVR/NAME.")
    ] = "",
    *,
    onvif: Annotated[
        str,
        typer.Option("--onvif", metavar="HOST[:PORT]", help="Ask the camera there for its URL, by ONVIF."),
    ] = "",
    stream: Annotated[
        str, typer.Option(help="With --onvif: main (largest picture), sub (smallest) or a profile.")
    ] = "main",
    credentials_file: CredentialsFile = None,
    credentials_env: CredentialsEnv = None,
    transport: TransportOption = Transport.TCP,
    ca_file: CaFile = None,
    fingerprint: Fingerprint = "",
    group: Group = None,
    where: Where = None,
    sound: Annotated[bool, typer.Option(help="Record what the camera hears, too.")] = False,
    check: Annotated[bool, typer.Option(help="Connect first, and add only a camera that answers.")] = True,
    site: SiteDir = None,
    as_json: AsJson = False,
) -> None:
    """Add a camera under a new UUID; a running recorder starts it within seconds."""
    place = load_site(site)
    credentials = _reference(credentials_file, credentials_env)
    if bool(url) == bool(onvif):
        raise typer.BadParameter("give either a URL or --onvif HOST", param_hint="URL")
    if onvif:
        url = composition.choose_stream(composition.camera_streams(place, onvif, credentials), stream).url
    camera = Camera(
        uuid4(),
        name,
        url,
        credentials,
        transport,
        *_trust(ca_file, fingerprint),
        group or "",
        where or "",
        sound,
    )
    if check:
        composition.check_camera(place, camera)
    place.cameras.add(camera)
    composition.record(place, Event.CAMERA_ADDED, camera_id=str(camera.id), sound=sound)
    if as_json:
        print_facts(_facts(camera), as_json=True)
    else:
        console.print(f"added {camera.name} ({camera.id})", markup=False)


@app.command()
def discover(
    *,
    wait: Annotated[
        timedelta,
        typer.Option(parser=parse_duration, metavar="DURATION", help="How long to listen for answers."),
    ] = timedelta(seconds=3),
    as_json: AsJson = False,
) -> None:
    """Ask the network which cameras there are, by ONVIF (WS-Discovery); reaches the own segment only."""
    found = [asdict(one) for one in composition.discover_cameras(wait)]
    print_rows(
        found, as_json=as_json, empty="No camera answered. Ask one directly: `videostore camera streams HOST`"
    )


@app.command()
def streams(
    host: Annotated[str, typer.Argument(metavar="HOST[:PORT]", help="A camera that speaks ONVIF.")],
    *,
    credentials_file: CredentialsFile = None,
    credentials_env: CredentialsEnv = None,
    site: SiteDir = None,
    as_json: AsJson = False,
) -> None:
    """Ask a camera, by ONVIF, which streams it has; the largest picture first."""
    credentials = _reference(credentials_file, credentials_env)
    offers = composition.camera_streams(load_site(site), host, credentials)
    print_rows([asdict(one) for one in offers], as_json=as_json, empty="")


@app.command("list")
def list_(
    *,
    everything: Annotated[bool, typer.Option("--all", help="Show removed cameras too.")] = False,
    site: SiteDir = None,
    as_json: AsJson = False,
) -> None:
    """List the cameras of the site."""
    cameras = load_site(site).cameras
    rows = [_facts(camera) for camera in (cameras.all() if everything else cameras.present())]
    print_rows(rows, as_json=as_json, empty="No cameras yet: `videostore camera add NAME rtsp://…`")


@app.command()
def check(
    camera: Annotated[str, typer.Argument(help="Name, UUID, or an rtsp:// URL not yet added.")],
    *,
    credentials_file: CredentialsFile = None,
    credentials_env: CredentialsEnv = None,
    transport: TransportOption = Transport.TCP,
    ca_file: CaFile = None,
    fingerprint: Fingerprint = "",
    site: SiteDir = None,
    as_json: AsJson = False,
) -> None:
    """Connect to a camera, look at its stream and its clock, store nothing."""
    place = load_site(site)
    reference = _reference(credentials_file, credentials_env)
    if "://" in camera:
        subject = Camera(uuid4(), "unnamed", camera, reference, transport, *_trust(ca_file, fingerprint))
    else:
        subject = place.cameras.find(camera)
        subject = replace(subject, credentials=reference or subject.credentials)
    print_facts(composition.check_camera(place, subject), as_json=as_json)


@app.command()
def disable(camera: str, *, site: SiteDir = None) -> None:
    """Stop recording a camera. Its footage keeps its deadline."""
    _change(load_site(site), camera, enabled=False)


@app.command()
def enable(camera: str, *, site: SiteDir = None) -> None:
    """Record a disabled camera again."""
    _change(load_site(site), camera, enabled=True)


@app.command()
def rename(camera: str, name: str, *, site: SiteDir = None) -> None:
    """Give a camera another name. Its UUID and its footage stay."""
    place = load_site(site)
    renamed = replace(place.cameras.find(camera), name=name)
    place.cameras.update(renamed)
    composition.record(place, Event.CAMERA_CHANGED, camera_id=str(renamed.id), change="renamed")
    console.print(f"{camera} is now called {renamed.name}", markup=False)


@app.command("place")
def place_(camera: str, *, group: Group = None, where: Where = None, site: SiteDir = None) -> None:
    """Say which group a camera belongs to, or where it hangs; '' takes it away."""
    at = load_site(site)
    known = at.cameras.find(camera)
    changed = replace(
        known,
        group=known.group if group is None else group,
        place=known.place if where is None else where,
    )
    at.cameras.update(changed)
    composition.record(at, Event.CAMERA_CHANGED, camera_id=str(changed.id), change="placed")
    console.print(f"{changed.name}: group {changed.group or '-'}, place {changed.place or '-'}", markup=False)


@app.command()
def sound(
    camera: str,
    *,
    on: Annotated[bool, typer.Option("--on/--off", help="Whether to record what the camera hears.")],
    site: SiteDir = None,
) -> None:
    """Record sound beside the picture, or no more. What is recorded keeps its deadline."""
    place = load_site(site)
    changed = replace(place.cameras.find(camera), sound=on)
    if on:
        composition.check_camera(place, changed)
    place.cameras.update(changed)
    change = "sound-on" if on else "sound-off"
    composition.record(place, Event.CAMERA_CHANGED, camera_id=str(changed.id), change=change)
    console.print(f"{changed.name} is recorded {'with' if on else 'without'} sound", markup=False)


@app.command()
def remove(camera: str, *, site: SiteDir = None) -> None:
    """Take a camera out of use for good. Its footage keeps its deadline."""
    place = load_site(site)
    removed = place.cameras.remove(camera)
    composition.record(place, Event.CAMERA_REMOVED, camera_id=str(removed.id))
    console.print(f"removed {removed.name}; what it recorded is deleted at its deadline", markup=False)


def _change(place: Site, camera: str, *, enabled: bool) -> None:
    changed = place.cameras.disable(camera, enabled=enabled)
    composition.record(
        place, Event.CAMERA_CHANGED, camera_id=str(changed.id), change="enabled" if enabled else "disabled"
    )
    console.print(f"{changed.name} is {'recorded' if enabled else 'not recorded any more'}", markup=False)


def _reference(file: Path | None, variable: str | None) -> str:
    if file and variable:
        raise CredentialsInvalid(
            "--credentials-file and --credentials-env exclude each other", hint="Give one of them."
        )
    return f"file:{file}" if file else f"env:{variable}" if variable else ""


def _trust(ca_file: Path | None, fingerprint: str) -> tuple[str, str]:
    return str(ca_file) if ca_file else "", fingerprint.replace(":", "").lower()


def _facts(camera: Camera) -> dict[str, Any]:
    state = "removed" if camera.removed else "enabled" if camera.enabled else "disabled"
    return {
        "name": camera.name,
        "id": str(camera.id),
        "url": camera.url,
        "credentials": camera.credentials,
        "transport": camera.transport.value,
        "group": camera.group,
        "place": camera.place,
        "sound": camera.sound,
        "state": state,
    }
