"""``videostore export``: footage for somebody outside this room, once a second person has agreed."""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import IO, Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from videostore import app as composition
from videostore.cli.access import Cameras, From, Incident, To, When, connected, granted, read_span, read_time
from videostore.cli.client import GateClient
from videostore.cli.footage import Asked
from videostore.cli.output import AsJson, console, errors, print_rows, show_size, show_time
from videostore.domain.access import Mode
from videostore.domain.errors import GateUnavailable, IntegrityError, RequestInvalid
from videostore.durable import disk_errors
from videostore.sealing import seal_stream

app = typer.Typer(invoke_without_command=True)

_GOING_ON = ".export.json"
"""In the directory of an export that is not whole: what to ask the gate for."""
_PAUSES_SECONDS = (1, 2, 4, 8, 16)
"""Before a download that broke off is asked for again."""
_ENCODED_SECONDS = 600.0
"""Within which a segment of a viewing copy is made, with others that wait for the same."""


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
        typer.Option("--viewing-copy", help="To look at: time, requester and reference in every frame."),
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
    with connected() as client, _progress(as_json) as bar:
        servings = _going_on(directory) if archive is None else []
        if not servings:
            span = {} if request else read_span(when, start, end)
            grant = granted(client, camera, span, Mode.EXPORT, incident, request)
            bodies = [{"camera": one, "viewing_copy": viewing_copy} for one in camera]
            servings = [client.post(f"/v1/grants/{grant}/exports", body) for body in bodies]
        if archive is not None:
            with _archive(archive, recipient) as zipped:
                rows = [_export(client, one, _Entries(zipped), bar) for one in servings]
        else:
            rows = _to_directory(client, servings, directory, bar)
    _report(rows, as_json)


@app.command()
def verify(
    file: Annotated[
        Path,
        typer.Argument(help="A manifest with its films beside it, a film, or an archive, sealed or not."),
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
    films: Annotated[list[Path], typer.Argument(metavar="FILM...", help="Films (.mp4) of an export.")],
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


# --- where it goes ---


class _Files:
    """Films as files of a directory; one that is not whole goes on where it broke off."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, name: str, chunks: Callable[[int], Iterator[bytes]]) -> bool:
        """Write a file, or what is left of it; say whether there is anything of it."""
        path = self._directory / name
        part = path.with_name(f".{name}.part")
        with disk_errors(path):
            if path.exists():
                return True
            with part.open("ab") as file:
                for chunk in chunks(file.tell()):
                    file.write(chunk)
                there = file.tell() > 0
                os.fsync(file.fileno())
            if there:
                part.replace(path)
            else:
                part.unlink()
        return there


class _Entries:
    """Films as entries of an archive."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def write(self, name: str, chunks: Callable[[int], Iterator[bytes]]) -> bool:
        body = chunks(0)
        first = next(body, b"")
        if first:
            with self._archive.open(name, "w", force_zip64=True) as entry:
                entry.write(first)
                for chunk in body:
                    entry.write(chunk)
        return bool(first)


def _to_directory(
    client: GateClient, servings: list[dict[str, Any]], directory: Path, bar: Progress
) -> list[dict[str, Any]]:
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        for one in servings:
            if (directory / f"{_name(one)}.json").exists():
                raise RequestInvalid(
                    f"{directory} holds an export of {one['camera']}", hint="Name a new one."
                )
        (directory / _GOING_ON).write_text(json.dumps(servings), encoding="utf-8")
        rows = [_export(client, one, _Files(directory), bar) for one in servings]
        (directory / _GOING_ON).unlink()
    return [{**row, "files": [str(directory / name) for name in row["files"]]} for row in rows]


def _going_on(directory: Path) -> list[dict[str, Any]]:
    """Return the servings of an export that broke off."""
    try:
        servings: list[dict[str, Any]] = json.loads((directory / _GOING_ON).read_bytes())
    except (OSError, ValueError):
        return []
    errors.print(f"{directory}: going on where the export broke off", markup=False)
    return servings


@contextmanager
def _archive(path: Path, recipient: str) -> Iterator[zipfile.ZipFile]:
    """Yield a zip file that appears whole or not at all; for a recipient no clear byte reaches the disk."""
    part = path.with_name(f".{path.name}.part")
    with disk_errors(path):
        if path.exists():
            raise RequestInvalid(f"{path} exists already", hint="Name a new file.")
        try:
            with part.open("wb") as file:
                if recipient:
                    with _sealed(file, recipient) as pipe, zipfile.ZipFile(pipe, "w") as archive:
                        yield archive
                else:
                    with zipfile.ZipFile(file, "w") as archive:
                        yield archive
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def _sealed(file: IO[bytes], recipient: str) -> Iterator[IO[bytes]]:
    """Yield a pipe; what is written to it comes out sealed in ``file``."""
    reading, writing = os.pipe()
    failed: list[BaseException] = []

    def run() -> None:
        with os.fdopen(reading, "rb") as source:
            try:
                seal_stream(source, file, recipient=recipient)
            except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
                failed.append(error)

    thread = Thread(target=run, name="seal")
    thread.start()
    try:
        with os.fdopen(writing, "wb") as pipe:
            yield pipe
    finally:
        thread.join()
    if failed:
        raise failed[0]


# --- pieces ---


def _name(serving: dict[str, Any]) -> str:
    """Return what the files of an export are called: whoever sees a copy's name knows that it is one."""
    return f"{serving['camera']}{'.viewing-copy' if serving['viewing_copy'] else ''}"


def _export(
    client: GateClient, serving: dict[str, Any], place: _Files | _Entries, bar: Progress
) -> dict[str, Any]:
    """Fetch the films of one camera and their manifest. Returns what was written."""
    name, path = _name(serving), f"/v1/servings/{serving['serving_id']}"
    task = bar.add_task(name, total=sum(part["size_bytes"] for part in serving["parts"]) or None)
    patience = _ENCODED_SECONDS if serving["viewing_copy"] else None
    files: list[str] = []
    while True:
        number = len(files)

        def chunks(offset: int, number: int = number) -> Iterator[bytes]:
            for chunk in _film(client, f"{path}/films/{number}", offset, patience):
                bar.advance(task, len(chunk))
                yield chunk

        film = composition.film_name(name, number + 1)
        if number and number >= len(client.get(f"{path}/films")):
            break
        if not place.write(film, chunks):
            break
        files.append(film)
    signed = client.get(f"{path}/manifest")
    text = json.dumps(signed, ensure_ascii=False, indent=1).encode()
    place.write(f"{name}.json", lambda offset: iter([text[offset:]]))
    bar.update(task, completed=1, total=1)
    manifest = signed["manifest"]
    return {
        "camera": serving["camera"],
        "files": [*files, f"{name}.json"],
        "frames": sum(film["frames"] for film in manifest["films"]),
        "size_bytes": sum(film["size_bytes"] for film in manifest["films"]),
        "sha256": [film["sha256"] for film in manifest["films"]],
        "missing": len(manifest["missing"]),
        "delete_by": manifest["delete_by"],
    }


def _film(client: GateClient, path: str, offset: int, patience: float | None) -> Iterator[bytes]:
    """Yield a film from ``offset`` on; a connection that breaks is made again where it broke."""
    pauses = iter(_PAUSES_SECONDS)
    whole = False
    while not whole:
        try:
            with client.stream(path, {"offset": offset}, patience_seconds=patience) as response:
                for chunk in response.iter_bytes():
                    offset += len(chunk)
                    yield chunk
                whole = True
        except GateUnavailable:
            pause = next(pauses, None)
            if pause is None:
                raise
            time.sleep(pause)


@contextmanager
def _progress(as_json: bool) -> Iterator[Progress]:
    """Show how far it is, on a terminal; nothing in a pipe."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, disable=as_json or not errors.is_terminal) as bar:
        yield bar


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
