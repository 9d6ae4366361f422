"""A backup as one file: a tar of the site's files, sealed by age to a key that is kept elsewhere.

It is sealed while it is written, so that no disk ever holds it in the open, and a file that was cut or
altered gives nothing at all: the last bytes are authenticated before a restore is believed.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import IO

from videostore.domain.errors import BackupInvalid, VideostoreError
from videostore.durable import TEMPORARY, disk_errors, sync_directory
from videostore.sealing import open_stream, seal_stream

Content = Path | bytes


def pack(members: Iterable[tuple[str, Content]], file: Path, *, recipient: str) -> int:
    """Write ``members``, by name, sealed to the age ``recipient``, durably or not at all.

    Returns how many. A file that grows meanwhile is taken as long as it was when its turn came.
    """
    if file.exists():
        raise BackupInvalid(f"{file} exists already", hint="Name a new file; a backup is never overwritten.")
    temporary = file.with_name(f".{file.name}{TEMPORARY}")
    with disk_errors(file):
        try:
            with temporary.open("wb") as sealed, ThreadPoolExecutor(1) as other:
                temporary.chmod(0o600)
                reading, writing = os.pipe()
                work = other.submit(_seal, reading, sealed, recipient)
                try:
                    with os.fdopen(writing, "wb") as sink, tarfile.open(fileobj=sink, mode="w|") as tar:
                        count = sum(_add(tar, name, content) for name, content in members)
                except BrokenPipeError:
                    work.result()  # says why nobody reads
                    raise
                work.result()
                sealed.flush()
                os.fsync(sealed.fileno())
            temporary.replace(file)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(file.absolute().parent)
    return count


def unpack(file: Path, into: Path, *, identity: str) -> int:
    """Put what ``file`` holds under ``into``. Returns how many files.

    Raises BackupInvalid if ``identity`` is not its key, or it is not whole: then what lies under ``into`` is
    not to be believed.
    """
    count = 0
    with ThreadPoolExecutor(1) as other:
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as source:
            work = other.submit(_open, file, writing, identity)
            try:
                with tarfile.open(fileobj=source, mode="r|") as tar:
                    for member in tar:
                        tar.extract(member, into, filter="data")
                        count += 1
            except tarfile.TarError as error:
                _drain(source)
                work.result()  # the seal says better what is wrong
                raise BackupInvalid(f"{file} is not a backup: {error}") from error
            _drain(source)
            work.result()
    return count


def _add(tar: tarfile.TarFile, name: str, content: Content) -> int:
    if isinstance(content, bytes):
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(content), 0o600
        tar.addfile(info, BytesIO(content))
        return 1
    with content.open("rb") as file:
        info = tarfile.TarInfo(name)
        found = os.fstat(file.fileno())
        info.size, info.mode, info.mtime = found.st_size, found.st_mode & 0o700, int(found.st_mtime)
        tar.addfile(info, file)
    return 1


def _seal(reading: int, sealed: IO[bytes], recipient: str) -> None:
    with os.fdopen(reading, "rb") as source:
        seal_stream(source, sealed, recipient=recipient)


def _open(file: Path, writing: int, identity: str) -> None:
    with os.fdopen(writing, "wb") as sink:
        try:
            with file.open("rb") as sealed:
                open_stream(sealed, sink, identity=identity)
        except (OSError, VideostoreError) as error:
            raise BackupInvalid(
                f"{file} cannot be opened: {error}",
                hint="Give the key that it was made for; if it is that, the file was harmed: take another.",
            ) from error


def _drain(source: IO[bytes]) -> None:
    while source.read(1 << 20):
        pass
