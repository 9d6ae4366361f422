"""``videostore export``: footage for somebody outside this room, once a second person has agreed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from videostore import app as composition
from videostore.cli.access import Cameras, From, Incident, To, When, connected, granted, read_span, read_time
from videostore.cli.client import Session
from videostore.cli.download import going_on, progress, to_archive, to_directory
from videostore.cli.footage import Asked
from videostore.cli.output import AsJson, console, print_rows, show_size, show_time
from videostore.domain.access import Mode
from videostore.domain.errors import IntegrityError

app = typer.Typer(invoke_without_command=True)


@app.callback()
def export(
    context: typer.Context,
    *,
    camera: Cameras = [],  # noqa: B006 - typer copies it
    when: When = "",
    start: From = "",
    end: To = "",
    directory: Annotated[
        Path, typer.Option("--to-dir", "-o", help="Directory for films and manifests; run again, it goes on.")
    ] = Path("export"),
    archive: Annotated[
        Path | None, typer.Option("--archive", help="One zip file instead, for all cameras.")
    ] = None,
    recipient: Annotated[
        str, typer.Option("--recipient", help="age1…: encrypt the archive to this key as it is written.")
    ] = "",
    viewing_copy: Annotated[
        bool,
        typer.Option(
            "--viewing-copy",
            help="To look at: time, requester and reference in every frame. "
            "A download that goes on encodes again what it has.",
        ),
    ] = False,
    incident: Incident = "",
    request: Asked = "",
    as_json: AsJson = False,
) -> None:
    """Export footage: signed films, cut to the frame, and a manifest. A second person approves it first."""
    if context.invoked_subcommand:
        return
    if not camera:
        raise typer.BadParameter("name a camera", param_hint="--camera")
    if recipient and archive is None:
        raise typer.BadParameter(
            "only an archive is encrypted: give --archive FILE", param_hint="--recipient"
        )
    about: dict[str, Any] = {"cameras": camera, "viewing_copy": viewing_copy, "incident": incident}
    about |= {"request": request} if request else read_span(when, start, end)
    with connected() as client, progress(hidden=as_json) as bar:
        about |= {"gate": client.gate, "person": Session.load().staff_id}
        servings = going_on(client, directory, about) if archive is None else []
        if not servings:
            span = {} if request else {"start": about["start"], "end": about["end"]}
            grant = granted(client, camera, span, Mode.EXPORT, incident, request)
            bodies = [{"camera": one, "viewing_copy": viewing_copy} for one in camera]
            servings = [client.post(f"/v1/grants/{grant}/exports", body) for body in bodies]
        if archive is not None:
            rows = to_archive(client, servings, archive, recipient, bar)
        else:
            rows = to_directory(client, servings, directory, about, bar)
    _report(rows, as_json)


@app.command()
def verify(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            help="A manifest with its films beside it, a film, or an archive, sealed or not.",
        ),
    ],
    *,
    certificate: Annotated[
        Path | None, typer.Option("--certificate", help="The site's ledger/export.crt, got from the site.")
    ] = None,
    recorder_key: Annotated[
        str,
        typer.Option("--recorder-key", metavar="ed25519:…", help="The site's ledger/recorder.public.key."),
    ] = "",
    signer: Annotated[
        list[Path],
        typer.Option(
            "--signer", help="Certificate of one who signed it too; may be repeated.", show_default=False
        ),
    ] = [],  # noqa: B006 - typer copies it
    identity: Annotated[
        Path | None,
        typer.Option("--identity", help="Key file (AGE-SECRET-KEY-1…) that a sealed archive is for."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify an export: needs no server and no site. Exit code 43 if anything does not hold."""
    found = composition.verify_export(
        file, certificate=certificate, recorder_key=recorder_key, signers=signer, identity=identity
    )
    rows = [{"holds": one.holds, "question": one.question, "detail": one.detail} for one in found]
    print_rows(rows, as_json=as_json, empty="")
    broken = next((one for one in found if not one.holds), None)
    if broken:
        raise IntegrityError(
            f"{file}: {broken.question} No: {broken.detail}",
            hint="Do not rely on it; ask the site for the original.",
        )


@app.command()
def sign(
    films: Annotated[
        list[Path],
        typer.Argument(metavar="FILM...", exists=True, dir_okay=False, help="Films (.mp4) of an export."),
    ],
    *,
    key: Annotated[Path, typer.Option("--key", help="Your RSA key (PEM).")],
    certificate: Annotated[Path, typer.Option("--certificate", help="Your certificate (PEM) of that key.")],
    remark: Annotated[
        str, typer.Option("--remark", help="What you sign for; your time of day is added.")
    ] = "",
) -> None:
    """Sign films too, as whoever received them: each signature covers the film with those before it."""
    for film in films:
        when = show_time(composition.host_time())
        composition.sign_export(film, key=key, certificate=certificate, remark=f"{remark} {when}".strip())
        console.print(f"{film}: signed", markup=False, soft_wrap=True)


def _report(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_rows(rows, as_json=True, empty="")
        return
    for row in rows:
        facts = f"{row['frames']} frames, {show_size(row['size_bytes'])}"
        missing = f", {row['missing']} spans missing: see the manifest" if row["missing"] else ""
        console.print(f"{', '.join(row['files'])}: {facts}{missing}", markup=False, soft_wrap=True)
    gone_by = min((read_time(row["delete_by"]) for row in rows if row["delete_by"]), default=None)
    if gone_by:
        text = f"Delete every copy by {show_time(gone_by)}: an export extends no deadline."
        console.print(Text(text, style="bold"), soft_wrap=True)
