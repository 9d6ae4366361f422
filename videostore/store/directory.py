"""The embedded store: a directory on this machine.

The root holds a marker, so that a disk that is not mounted is "unavailable" and never "empty": an empty
answer would certify footage as gone that comes back with the mount.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from videostore.domain.errors import (
    DiskError,
    DiskNotWritable,
    IntegrityError,
    ObjectMissing,
    StoreRefused,
    StoreUnavailable,
)
from videostore.domain.segment import ObjectKey, Sha256Hex
from videostore.durable import TEMPORARY, make_directory, remove_file, sync_directory, write_file
from videostore.ports import StoredObject

MARKER = ".videostore-store"
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_STALE_SECONDS = 3600
_ATTEMPTS = 3


class DirectoryStore:
    """Port SegmentStore over files. Listings remove what a crash left half-written an hour ago or earlier."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @classmethod
    def create(cls, root: Path) -> DirectoryStore:
        """Make a new, empty store at ``root``."""
        write_file(root / MARKER, b"The sealed segments of a videostore site. See `videostore status`.\n")
        return cls(root)

    def put(self, key: ObjectKey, body: bytes, *, sha256: Sha256Hex) -> None:
        path = self._path(key)
        if hashlib.sha256(body).hexdigest() != sha256:
            raise IntegrityError(
                f"the bytes for {key} are not those of its hash", hint="They were not stored."
            )
        for attempt in range(_ATTEMPTS):
            try:
                write_file(path, body)
            except DiskNotWritable as error:
                # A delete may have removed the empty directory between its making and its use.
                if isinstance(error.__cause__, FileNotFoundError) and attempt < _ATTEMPTS - 1:
                    continue
                raise
            return

    def link(self, key: ObjectKey, file: Path, /) -> bool:
        path = self._path(key)
        try:
            make_directory(path.parent)
            os.link(file, path)
            sync_directory(path.parent)
        except (OSError, DiskError):
            return False  # another file system, one without links, no room: a put does it, or says why
        return True

    def get(self, key: ObjectKey) -> bytes:
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            raise ObjectMissing(f"there is no object {key}") from None
        except OSError as error:
            raise self._failed(error) from error

    def size(self, key: ObjectKey) -> int | None:
        try:
            return self._path(key).stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed(error) from error

    def delete(self, keys: Collection[ObjectKey]) -> Mapping[ObjectKey, str]:
        self._mounted()
        failures: dict[ObjectKey, str] = {}
        for key in keys:
            try:
                self._remove(self._path(key))
            except (DiskError, StoreRefused) as error:
                failures[key] = str(error)
        return failures

    def _remove(self, path: Path) -> None:
        try:
            removed = remove_file(path)
        except DiskNotWritable as error:
            if isinstance(error.__cause__, FileNotFoundError):  # not even its directory is there
                return
            raise
        with suppress(OSError):  # the first parent that is not empty ends it
            for parent in path.parents if removed else ():
                if parent == self._root:
                    break
                parent.rmdir()

    def objects(self, prefix: str = "") -> Iterator[StoredObject]:
        return self.remains(prefix)

    def remains(self, prefix: str = "", *, after: str = "") -> Iterator[StoredObject]:
        self._mounted()
        head = prefix.rpartition("/")[0]
        yield from self._walk(self._root / head, f"{head}/" if head else "", prefix, after)

    def prefixes(self, prefix: str = "") -> list[str]:
        self._mounted()
        head, _, tail = prefix.rpartition("/")
        directory, base = self._root / head, f"{head}/" if head else ""
        names = sorted(f"{entry.name}/" for entry in self._scan(directory) if entry.is_dir())
        found = (f"{base}{name}" for name in names if name.startswith(tail))
        return [one for one in found if next(self.objects(one), None)]

    def time(self) -> datetime | None:
        return None

    def _walk(self, directory: Path, base: str, prefix: str, after: str) -> Iterator[StoredObject]:
        """Yield in byte order of the whole key: a directory sorts as if its name ended in a slash."""
        entries = sorted(
            self._scan(directory), key=lambda entry: f"{entry.name}/" if entry.is_dir() else entry.name
        )
        for entry in entries:
            key = f"{base}{entry.name}"
            if entry.is_dir():
                inside = f"{key}/"
                if (inside.startswith(prefix) or prefix.startswith(inside)) and (
                    inside > after or after.startswith(inside)
                ):
                    yield from self._walk(directory / entry.name, inside, prefix, after)
            elif entry.name.startswith("."):
                self._remove_stale(entry)
            elif key.startswith(prefix) and key > after:
                with suppress(FileNotFoundError):  # deleted since it was listed
                    found = entry.stat()
                    stored_at = datetime.fromtimestamp(found.st_mtime, UTC)
                    yield StoredObject(ObjectKey(key), found.st_size, stored_at)

    def _scan(self, directory: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(directory) as entries:
                return list(entries)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._failed(error) from error

    def _remove_stale(self, entry: os.DirEntry[str]) -> None:
        with suppress(OSError):
            if entry.name.endswith(TEMPORARY) and time.time() - entry.stat().st_mtime > _STALE_SECONDS:
                Path(entry.path).unlink()

    def _path(self, key: str) -> Path:
        self._mounted()
        if not all(_PART.fullmatch(part) for part in key.split("/")):
            raise StoreRefused(f"{key!r} is not a key", hint="Keys are plain names separated by '/'.")
        return self._root / key

    def _mounted(self) -> None:
        if not (self._root / MARKER).is_file():
            raise StoreUnavailable(
                f"{self._root} is not a store: it has no {MARKER}",
                hint="Is the disk mounted? Nothing is taken for absent until it is.",
            )

    def _failed(self, error: OSError) -> StoreUnavailable | StoreRefused:
        if isinstance(error, PermissionError):
            return StoreRefused(
                f"{self._root}: {error.strerror}", hint="This user needs rights on the store."
            )
        return StoreUnavailable(f"{self._root}: {error.strerror or error}", hint="Look at the disk.")
