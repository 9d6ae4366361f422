"""The disks that a site writes to, and how much room they have."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from videostore import telemetry
from videostore.config.settings import DirectoryStoreSettings
from videostore.config.site import Site


def places(site: Site) -> dict[str, Path]:
    """Return where a site writes to, by what lies there."""
    settings = site.settings
    found = {
        "site": site.root,
        "spool": site.path(settings.recorder.spool),
        "keyring": site.path(settings.keyring.path),
    }
    kind, _, database = settings.catalogue.url.partition(":///")
    if kind == "sqlite":
        found["catalogue"] = site.path(database)
    if isinstance(settings.store, DirectoryStoreSettings):
        found["store"] = site.path(settings.store.path)
    return found


def disks(of: Mapping[str, Path]) -> dict[str, Path]:
    """Return the disks of these places. One that several share counts once, by the first of them."""
    found: dict[int, tuple[str, Path]] = {}
    for name, path in of.items():
        there = existing(path)
        found.setdefault(there.stat().st_dev, (name, there))
    return dict(found.values())


def existing(path: Path) -> Path:
    """Return ``path``, or what of the way to it is there."""
    return next(one for one in (path, *path.parents) if one.exists())


def show_disks(of: Mapping[str, Path]) -> None:
    """Have the metrics tell the room of each disk, looked at whenever they are asked."""
    for name, path in of.items():
        telemetry.DISK_FREE.labels(disk=name).set_function(partial(_bytes, path, "free"))
        telemetry.DISK_SIZE.labels(disk=name).set_function(partial(_bytes, path, "total"))


def _bytes(path: Path, which: str) -> float:
    try:
        return float(getattr(shutil.disk_usage(path), which))
    except OSError:
        return float("nan")  # a disk that is gone has neither 0 free nor any other number
