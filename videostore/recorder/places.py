"""Where the files of a spool are, and what their names say; and what becomes of those that a crash left."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from videostore.domain.camera import CameraId
from videostore.domain.segment import Segment
from videostore.durable import TEMPORARY, disk_errors, make_directory, remove_file, sync_directory
from videostore.recorder.growing import ENDS, GROWS, end_again, last_end

OPEN = (("open", ""), ("open", GROWS), ("open", ENDS))
PLACES = (*OPEN, ("ready", ""), ("lost", ""))
"""Directories, and what stands behind the name of a segment in them."""


class Places:
    """``mine`` says whose files are to be seen; None: all."""

    def __init__(self, root: Path, *, mine: Callable[[CameraId], bool] | None) -> None:
        self.root = root
        self._mine = mine

    def sees(self, camera_id: str) -> bool:
        return self._mine is None or self._mine(UUID(camera_id))

    def path(self, place: str, segment: Segment) -> Path:
        return self.root / place / str(segment.camera_id) / segment.name

    def open_cameras(self) -> list[CameraId]:
        found: list[CameraId] = []
        for path in (self.root / "open").glob("*"):
            with suppress(ValueError):  # no camera's
                if self.sees(path.name):
                    found.append(UUID(path.name))
        return found

    def files(self, place: str, suffix: str = "", *, camera: str = "*") -> list[tuple[Path, Segment]]:
        """Return what is in a directory, by start. ``suffix`` stands behind the names."""
        found: list[tuple[Path, Segment]] = []
        for path in (self.root / place).glob(f"{camera}/*.age{suffix}"):
            with suppress(OSError, ValueError):
                if not self.sees(path.parent.name):
                    continue
                size_bytes, name = path.stat().st_size, path.name.removesuffix(suffix)
                found.append((path, Segment.from_name(path.parent.name, name, size_bytes=size_bytes)))
        return sorted(found, key=lambda item: (item[1].span.start, item[1].object_key))

    def all(self, *places: tuple[str, str]) -> Iterator[tuple[Path, Segment]]:
        for place in places:
            yield from self.files(*place)

    def remove_half_written(self) -> None:
        """Remove what nobody is writing any more."""
        for leftover in self.root.glob(f"**/.*{TEMPORARY}"):
            if self._mine is None or not _is_being_written(leftover):
                remove_file(leftover)

    def promote(self, camera_id: CameraId, whole: Sequence[Segment]) -> list[Segment]:
        """Move what of the camera is in ``open``, and in none of ``whole``, to ``ready``."""
        directory = self.root / "open" / str(camera_id)
        found: list[Segment] = []
        for path in sorted(directory.glob(f"*{GROWS}")):
            ended = last_end(path)
            if ended is not None and path.stat().st_nlink == 1 and not _in(ended, whole):
                end_again(path)
                self.move(path, ended)
                found.append(ended)
            remove_file(path)
        for path in directory.glob(f"*{ENDS}"):
            remove_file(path)
        for path, group in self.files("open", camera=str(camera_id)):
            if _in(group, [*whole, *found]):
                remove_file(path)
            else:
                self.move(path, group)
                found.append(group)
        return found

    def move(self, path: Path, segment: Segment) -> None:
        """Move a file from ``open`` to ``ready``, durably on both sides before anybody links or takes it."""
        target = self.path("ready", segment)
        make_directory(target.parent)
        with disk_errors(target):
            path.replace(target)
        sync_directory(target.parent)
        sync_directory(path.parent)

    def drop(self, paths: Sequence[Path]) -> None:
        """Unlink files, durably together."""
        for path in paths:
            with disk_errors(path):
                path.unlink(missing_ok=True)
        for directory in {path.parent for path in paths}:
            sync_directory(directory)


def _is_being_written(temporary: Path) -> bool:
    """Say whether the process that ``durable.write_file`` names in a temporary file still lives."""
    try:
        os.kill(int(temporary.name.removesuffix(TEMPORARY).rpartition(".")[2]), 0)
    except (ValueError, OSError):
        return False
    return True


def _in(segment: Segment, whole: Sequence[Segment]) -> bool:
    return any(one.span.contains(segment.span) for one in whole)
