"""Files that survive a power cut: written whole or not at all.

A rename is durable only when the directory is synced too; see "Files are hard" and the
``fsync(2)`` manual. OS errors become DiskFull or DiskNotWritable here, once.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from videostore.domain.errors import DiskError, DiskFull, DiskNotWritable, SiteBusy

TEMPORARY = ".tmp"
"""Suffix of a file that is being written. Whoever finds one at start may remove it."""


def write_file(path: Path, data: bytes, *, mode: int = 0o640) -> None:
    """Replace ``path`` by ``data``, durably and atomically. Parents are made as needed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    with disk_errors(path):
        make_directory(path.parent)
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that takes the place of ``path``, with its mode, durably, when it is whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    with disk_errors(path):
        try:
            with temporary.open("xb") as file:
                os.fchmod(file.fileno(), path.stat().st_mode & 0o777)
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(path.parent)


def remove_file(path: Path) -> bool:
    """Unlink ``path`` durably. Returns whether it was there."""
    with disk_errors(path):
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        sync_directory(path.parent)
        return True


def erase_file(path: Path) -> bool:
    """Overwrite ``path`` with zeros where it lies, sync, then unlink it. Returns whether it was there.

    What a disk or file system keeps of overwritten blocks is outside a program's reach; see
    docs/design/0002-hour-keys.md for why that is not enough to open anything.
    """
    with disk_errors(path):
        try:
            with path.open("r+b") as file:
                _overwrite(file)
        except FileNotFoundError:
            return False
        return remove_file(path)


def replace_secret(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` (mode 0600), durably and atomically, then overwrite what stood there."""
    with disk_errors(path):
        try:
            with path.open("r+b") as before:
                write_file(path, data, mode=0o600)
                _overwrite(before)
        except FileNotFoundError:
            write_file(path, data, mode=0o600)


def _overwrite(file: BinaryIO) -> None:
    file.write(bytes(os.fstat(file.fileno()).st_size))
    file.flush()
    os.fsync(file.fileno())


def make_directory(path: Path, *, mode: int = 0o750) -> None:
    """Make ``path`` and its parents, each durable in its parent."""
    with disk_errors(path):
        if path.is_dir():
            return
        make_directory(path.parent, mode=mode)
        path.mkdir(mode=mode, exist_ok=True)
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in ``path`` durable."""
    with disk_errors(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock between processes. ``path`` is made if needed and never removed.

    Without ``wait``, raises SiteBusy if another process holds it. The kernel frees the lock of a
    process that dies.
    """
    with disk_errors(path):
        make_directory(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o640)
    try:
        with disk_errors(path):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SiteBusy(
                    f"another process holds {path}",
                    hint="`videostore status` shows what runs; stop that first.",
                ) from None
        yield
    finally:
        os.close(descriptor)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Translate OS errors that mean "the disk", naming ``path``; let every other error pass."""
    try:
        yield
    except DiskError:
        raise
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskFull(
                f"no room left on the disk that holds {path}",
                hint="Free space or enlarge the disk; nothing already stored is lost.",
            ) from error
        raise DiskNotWritable(
            f"{path}: {error.strerror or error}",
            hint="Check that the disk is mounted read-write and that this user may write there.",
        ) from error
