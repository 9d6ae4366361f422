"""cameras.yaml: the cameras of a site, by UUID.

Removed cameras stay listed as removed: their footage is still searched and swept, and their name
can be given to a new camera without giving it their footage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import yaml

from videostore.config.files import read_yaml
from videostore.config.settings import CameraEntry, CamerasFile, State
from videostore.domain.camera import Camera
from videostore.domain.errors import CameraExists, CameraUnknown, ConfigInvalid
from videostore.durable import locked, write_file

_HEAD = "# Cameras of this site. Written by `videostore camera …`; the recorder follows changes.\n"


class CameraList:
    """The file, read anew at every call; changes are atomic and serialised between processes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def all(self) -> list[Camera]:
        """Return every camera, removed ones included, in the order they were added."""
        entries = read_yaml(self._path, CamerasFile).cameras
        cameras = [_camera(entry, self._path) for entry in entries]
        for what, seen in (
            ("id", [str(camera.id) for camera in cameras]),
            ("name", [camera.name for camera in cameras if not camera.removed]),
        ):
            twice = next((value for value, count in Counter(seen).items() if count > 1), None)
            if twice:
                raise ConfigInvalid(f"{self._path}: two cameras have the {what} {twice}", hint="Correct one.")
        return cameras

    def present(self) -> list[Camera]:
        """Return the cameras that are not removed."""
        return [camera for camera in self.all() if not camera.removed]

    def find(self, name_or_id: str) -> Camera:
        """Return the camera of that name or UUID. Raises CameraUnknown."""
        return find_camera(self.all(), name_or_id)

    def add(self, camera: Camera) -> Camera:
        """Add a new camera. Raises CameraExists if its name or UUID is taken."""

        def change(cameras: list[Camera]) -> list[Camera]:
            if any(
                (other.name == camera.name and not other.removed) or other.id == camera.id
                for other in cameras
            ):
                raise CameraExists(f"there is a camera {camera.name!r} already", hint="Choose another name.")
            return [*cameras, camera]

        self._change(change)
        return camera

    def update(self, camera: Camera) -> None:
        """Replace the entry with the same UUID."""
        self._change(lambda cameras: [camera if other.id == camera.id else other for other in cameras])

    def disable(self, name_or_id: str, *, enabled: bool = False) -> Camera:
        """Switch recording off or on. Footage already stored keeps its deadline."""
        camera = replace(self.find(name_or_id), enabled=enabled)
        self.update(camera)
        return camera

    def remove(self, name_or_id: str) -> Camera:
        """Take a camera out of use for good. Footage already stored keeps its deadline."""
        camera = replace(self.find(name_or_id), enabled=False, removed=True)
        self.update(camera)
        return camera

    def _change(self, change: Callable[[list[Camera]], list[Camera]]) -> None:
        with locked(self._path.with_name(f".{self._path.name}.lock")):
            write_cameras(self._path, change(self.all()))


def find_camera(cameras: Sequence[Camera], name_or_id: str) -> Camera:
    """Return the camera of that name or UUID. Raises CameraUnknown."""
    identity = _uuid(name_or_id)
    for camera in reversed(cameras):
        if camera.id == identity or (camera.name == name_or_id and not camera.removed):
            return camera
    raise CameraUnknown(
        f"there is no camera {name_or_id!r}",
        hint="`videostore camera list` shows the cameras of this site.",
    )


def _uuid(text: str) -> UUID | None:
    """Return the UUID that is written so, in the one way that we write it."""
    try:
        identity = UUID(text)
    except ValueError:
        return None
    return identity if str(identity) == text else None


def write_cameras(path: Path, cameras: list[Camera]) -> None:
    """Write the whole file, durably."""
    entries = [_entry(camera).model_dump(mode="json", exclude_defaults=True) for camera in cameras]
    text = yaml.safe_dump({"version": 1, "cameras": entries}, sort_keys=False, allow_unicode=True)
    write_file(path, (_HEAD + text).encode())


def _camera(entry: CameraEntry, path: Path) -> Camera:
    try:
        identity = UUID(entry.id)
    except ValueError as error:
        raise ConfigInvalid(
            f"{path}: {entry.id!r} is not a UUID",
            hint="A camera's id never changes; restore it from a backup.",
        ) from error
    facts = entry.model_dump(exclude={"id", "state"})
    return Camera(identity, **facts, enabled=entry.state == "enabled", removed=entry.state == "removed")


def _entry(camera: Camera) -> CameraEntry:
    state: State = "removed" if camera.removed else "enabled" if camera.enabled else "disabled"
    facts = {name: getattr(camera, name) for name in CameraEntry.model_fields if name not in {"id", "state"}}
    return CameraEntry(id=str(camera.id), state=state, **facts)
