"""Exports on their way to this machine: into a directory, where they go on, or into an archive."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shlex
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import IO, Any

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from videostore import app as composition
from videostore.cli.client import GateClient
from videostore.cli.output import errors
from videostore.cli.unfinished import MARK, Mark, erase, under_way
from videostore.domain.errors import AccessRefused, GateUnavailable, IntegrityError, RequestInvalid
from videostore.durable import disk_errors, sync_directory
from videostore.sealing import seal_stream

_PAUSES_SECONDS = (1, 2, 4, 8, 16)
"""Before a download that broke off is asked for again."""
_ENCODED_SECONDS = 600.0
"""Within which a segment of a viewing copy is made, with others that wait for the same."""


def to_directory(
    client: GateClient,
    servings: Sequence[Mapping[str, Any]],
    directory: Path,
    asked: Mapping[str, Any],
    bar: Progress,
) -> list[dict[str, Any]]:
    """Fetch films and manifests into a directory. Returns what was written for each camera.

    Raises RequestInvalid if the directory holds files of these names.
    """
    names = [_name(one) for one in servings]
    patterns = [f"{hidden}{name}{rest}" for name in names for hidden, rest in _FILES]
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        if not (directory / MARK).exists() and any(
            found for one in patterns for found in directory.glob(one)
        ):
            raise RequestInvalid(f"{directory} holds an export of {', '.join(names)}", hint="Name a new one.")
    mark = Mark(asked, servings, patterns, _again(asked, directory), _delete_by(servings))
    with under_way(directory / MARK, mark):
        rows = [_export(client, one, _Files(directory), bar) for one in servings]
        with disk_errors(directory):
            sync_directory(directory)
    return [{**row, "files": [str(directory / name) for name in row["files"]]} for row in rows]


_FILES = [
    ("", ".mp4"),
    ("", "+*.mp4"),
    ("", ".json"),
    (".", ".mp4.part"),
    (".", "+*.mp4.part"),
    (".", ".json.part"),
]
"""What stands before and after the name of an export in the names of its files."""


def going_on(client: GateClient, directory: Path, asked: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the servings of an export that broke off in a directory, empty if it has to begin.

    What the gate gives no more is erased. Raises RequestInvalid if something else was asked for there.
    """
    mark = Mark.read(directory / MARK)
    if mark is None:
        return []
    if dict(mark.asked) != dict(asked):
        raise RequestInvalid(
            f"{directory} holds another export, which broke off",
            hint=f"Name a new directory, or go on with that: {mark.again}",
        )
    try:
        for one in mark.servings:
            client.get(f"/v1/servings/{one['serving_id']}/films")
    except AccessRefused:
        erase(directory / MARK, mark)
        errors.print(f"{directory}: the gate does not go on with what broke off; it is erased", markup=False)
        return []
    return list(mark.servings)


def to_archive(
    client: GateClient, servings: Sequence[Mapping[str, Any]], path: Path, recipient: str, bar: Progress
) -> list[dict[str, Any]]:
    """Fetch films and manifests into one zip file. Returns what was written for each camera."""
    part = glob.escape(_part(path).name)
    mark = Mark({}, [], [part], "", _delete_by(servings))
    with under_way(path.with_name(f".{path.name}{MARK}"), mark), archive(path, recipient) as zipped:
        return [_export(client, one, _Entries(zipped), bar) for one in servings]


@contextmanager
def archive(path: Path, recipient: str) -> Iterator[zipfile.ZipFile]:
    """Yield a zip file that appears whole or not at all; for a recipient no clear byte reaches the disk."""
    part = _part(path)
    with disk_errors(path):
        if path.exists():
            raise RequestInvalid(f"{path} exists already", hint="Name a new file.")
        try:
            with part.open("wb") as file:
                if recipient:
                    with _sealed(file, recipient) as pipe, zipfile.ZipFile(pipe, "w") as zipped:
                        yield zipped
                else:
                    with zipfile.ZipFile(file, "w") as zipped:
                        yield zipped
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            sync_directory(path.absolute().parent)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def progress(*, hidden: bool) -> Iterator[Progress]:
    """Show how far it is, on a terminal; nothing in a pipe."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, disable=hidden or not errors.is_terminal) as bar:
        yield bar


# --- where it goes ---


class _Files:
    """Films as files of a directory; one that is not whole goes on where it broke off."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, name: str, chunks: Callable[[int], Iterator[bytes]]) -> bool:
        """Write a file, or what is left of it; say whether there is anything of it."""
        path = self._directory / name
        part = _part(path)
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

    def check(self, name: str, sha256: str) -> None:
        """A power cut leaves a part of which the end was never written. Raises IntegrityError."""
        path = self._directory / name
        with disk_errors(path):
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found == sha256:
                return
            path.unlink()
        raise IntegrityError(
            f"{path} is not the film that left the gate", hint="Type it again: it is fetched anew."
        )


class _Entries:
    """Films as entries of an archive."""

    def __init__(self, zipped: zipfile.ZipFile) -> None:
        self._zipped = zipped

    def write(self, name: str, chunks: Callable[[int], Iterator[bytes]]) -> bool:
        body = chunks(0)
        first = next(body, b"")
        if first:
            with self._zipped.open(name, "w", force_zip64=True) as entry:
                entry.write(first)
                for chunk in body:
                    entry.write(chunk)
        return bool(first)

    def check(self, name: str, sha256: str) -> None:
        """An archive never goes on: what was written is what came."""


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


def _name(serving: Mapping[str, Any]) -> str:
    """Return what the files of an export are called: whoever sees a copy's name knows that it is one."""
    return f"{serving['camera']}{'.viewing-copy' if serving['viewing_copy'] else ''}"


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _delete_by(servings: Sequence[Mapping[str, Any]]) -> str:
    return min((one["delete_by"] for one in servings if one["delete_by"]), default="")


def _again(asked: Mapping[str, Any], directory: Path) -> str:
    """Return what to type in order to go on."""
    words = ["videostore", "export", *(word for one in asked["cameras"] for word in ("--camera", one))]
    for name, option in (
        ("request", "--request"),
        ("start", "--from"),
        ("end", "--to"),
        ("incident", "--incident"),
    ):
        words += [option, asked[name]] if asked.get(name) else []
    return shlex.join([*words, *(["--viewing-copy"] if asked["viewing_copy"] else []), "-o", str(directory)])


def _export(
    client: GateClient, serving: Mapping[str, Any], place: _Files | _Entries, bar: Progress
) -> dict[str, Any]:
    """Fetch the films of one camera and their manifest. Returns what was written."""
    name, path = _name(serving), f"/v1/servings/{serving['serving_id']}"
    task = bar.add_task(name, total=sum(part["size_bytes"] for part in serving["parts"]) or None)
    patience = _ENCODED_SECONDS if serving["viewing_copy"] else None
    files: list[str] = []
    while True:
        number = len(files)

        def chunks(offset: int, number: int = number) -> Iterator[bytes]:
            bar.advance(task, offset)
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
    manifest = signed["manifest"]
    for film, facts in zip(files, manifest["films"], strict=True):
        place.check(film, facts["sha256"])
    place.write(f"{name}.json", lambda offset: iter([text[offset:]]))
    size = sum(film["size_bytes"] for film in manifest["films"])
    bar.update(task, completed=size, total=size)  # with parts that had come before, or were not known of
    return {
        "camera": serving["camera"],
        "files": [*files, f"{name}.json"],
        "frames": sum(film["frames"] for film in manifest["films"]),
        "size_bytes": size,
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
