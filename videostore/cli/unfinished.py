"""Exports under way: what of them lies on this machine in the clear, how they go on, and until when.

A mark is written before the first byte, beside it, and linked to from beside the login: so the next command
finds what one that was killed has left. Past its deadline, or where nothing can go on, it is erased; else it
is told. A mark is locked as long as its export lives.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from videostore.cli.client import Session
from videostore.cli.output import errors, show_time
from videostore.domain.errors import RequestInvalid
from videostore.durable import disk_errors, erase_file, make_directory

MARK = ".export.json"
"""In the directory of an export, until it is whole."""


@dataclass(frozen=True, slots=True)
class Mark:
    """``asked``: of whom, for what; ``files``: patterns of what it writes; ``again``: what to type, empty if
    it cannot go on; ``delete_by``: ISO 8601, empty if there is no footage."""

    asked: Mapping[str, Any]
    servings: Sequence[Mapping[str, Any]]
    files: Sequence[str]
    again: str
    delete_by: str

    @classmethod
    def read(cls, path: Path) -> Mark | None:
        """Return a mark, None if there is none: nothing was written before it."""
        try:
            return cls(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def told(self, place: Path) -> str:
        by = f" by {show_time(datetime.fromisoformat(self.delete_by))}" if self.delete_by else ""
        return f"{place}: an export broke off and has left footage. Go on, or delete it{by}:\n  {self.again}"


@contextmanager
def under_way(path: Path, mark: Mark) -> Iterator[None]:
    """Hold a mark at ``path`` while an export is written. What cannot go on is erased when it fails.

    Raises RequestInvalid if another command holds it.
    """
    with disk_errors(path):
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(file, "r+b") as held:
        if not _lock(file):
            raise RequestInvalid(f"another export is being written to {path.parent}", hint="Wait for it.")
        with disk_errors(path):
            if Mark.read(path) != mark:
                held.truncate()
                held.write(json.dumps(asdict(mark)).encode())
                held.flush()
                os.fsync(file)
            _link(path)
        try:
            yield
        except BaseException:
            if mark.again:
                errors.print(mark.told(path.parent), markup=False, soft_wrap=True)
            else:
                erase(path, mark)
            raise
        _forget(path)


def look_after(now: datetime) -> None:
    """Erase what exports that broke off must not leave any more, and tell what they left."""
    for link in sorted(_links().glob("*")):
        path = link.readlink()
        try:
            file = os.open(path, os.O_RDWR)
        except OSError:
            link.unlink(missing_ok=True)
            continue
        try:
            if not _lock(file):
                continue
            mark = Mark.read(path)
            if mark is None:
                _forget(path)
            elif not mark.again:
                erase(path, mark)
                _say(f"{path.parent}: an archive broke off; what was left of it is erased")
            elif mark.delete_by and now >= datetime.fromisoformat(mark.delete_by):
                erase(path, mark)
                _say(f"{path.parent}: an export that broke off has reached its deadline and is erased")
            else:
                _say(mark.told(path.parent))
        finally:
            os.close(file)


def erase(path: Path, mark: Mark) -> None:
    """Erase what an export has written, and its mark."""
    for pattern in mark.files:
        for found in path.parent.glob(pattern):
            erase_file(found)
    _forget(path)


def _say(text: str) -> None:
    errors.print(text, markup=False, soft_wrap=True)


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _links() -> Path:
    return Session.path().with_suffix(".exports")


def _link_of(path: Path) -> Path:
    return _links() / hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]


def _link(path: Path) -> None:
    make_directory(_links(), mode=0o700)
    with suppress(FileExistsError):
        _link_of(path).symlink_to(path.absolute())


def _forget(path: Path) -> None:
    with disk_errors(path):
        path.unlink(missing_ok=True)
        _link_of(path).unlink(missing_ok=True)
