"""What a site needs from its machine: each look gives an answer, or what is wrong and how to mend it."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sqlite3
import ssl
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from videostore import __version__
from videostore.app.disks import disks, existing, places
from videostore.app.host import clock_synchronised, host_time
from videostore.app.keys import own_certificate
from videostore.app.parts import Parts
from videostore.app.recovery import last_backup, most_backup_age
from videostore.app.roles import ROLES
from videostore.config.durations import split_address
from videostore.config.settings import DirectoryAnchorSettings
from videostore.config.site import Site
from videostore.domain.errors import (
    ClockInDoubt,
    DiskNotWritable,
    GateUnavailable,
    KeyUnavailable,
    SiteError,
    VideostoreError,
)
from videostore.domain.retention import Kind
from videostore.durable import disk_errors
from videostore.keyring.master import try_out

_LEAST_FREE = 1_000_000_000  # bytes
_SLOWEST_SYNC = 0.1  # seconds; a camera that cuts every 2 s syncs a file and its directory as often
_SYNCS = 10
_CERTIFICATE = timedelta(days=14)


def diagnose(site: Site) -> list[dict[str, Any]]:
    """Look at what a site needs from its machine; a row for each, with what to do about it."""
    rows: list[dict[str, Any]] = []
    with Parts(site) as parts:
        for what, look in _LOOKS.items():
            try:
                rows.append({"what": what, "ok": True, "answer": look(parts), "hint": ""})
            except VideostoreError as error:
                rows.append({"what": what, "ok": False, "answer": str(error), "hint": error.hint})
    return rows


def _clock(parts: Parts) -> str:
    reading = parts.clock.read()
    if reading.doubt is not None:
        raise ClockInDoubt(
            f"not believed: {reading.doubt.value}", hint="`videostore retention confirm-clock`"
        )
    return reading.latest.isoformat(timespec="seconds")


def _time_service(_: Parts) -> str:
    synchronised = clock_synchronised()
    if synchronised is False:
        raise ClockInDoubt(
            "no time service disciplines the clock of this host",
            hint="Run chrony or another time service; in a virtual machine, on its host.",
        )
    return "synchronised" if synchronised else "the kernel does not say"


def _disks(parts: Parts) -> str:
    """Every disk that the site writes to, and room for what the spool may still take."""
    where = places(parts.site)
    wanted = max(_LEAST_FREE, parts.site.settings.recorder.spool_limit - parts.spool.size_bytes())
    free = {name: shutil.disk_usage(path).free for name, path in disks(where).items()}
    said = ", ".join(f"{name} {size / 1e9:.1f} GB free" for name, size in free.items())
    if min(free.values()) < _LEAST_FREE or shutil.disk_usage(existing(where["spool"])).free < wanted:
        raise SiteError(
            f"{said}; the spool may take {wanted / 1e9:.1f} GB more",
            hint="Free or enlarge the disk, or lower recorder.spool_limit.",
        )
    return said


def _sync(parts: Parts) -> str:
    """Time what the recorder waits for at each keyframe: a file of a disk block made durable."""
    place = existing(parts.site.path(parts.site.settings.recorder.spool))
    took = []
    with disk_errors(place), tempfile.TemporaryFile(dir=place) as file:
        for _ in range(_SYNCS):
            began = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    median = statistics.median(took)
    if median > _SLOWEST_SYNC:
        raise DiskNotWritable(
            f"a sync takes {median * 1000:.0f} ms",
            hint="Put the spool on a local SSD: not on a network share, an SD card or a busy disk.",
        )
    return f"{median * 1000:.1f} ms"


def _ports(parts: Parts) -> str:
    settings, running = parts.site.settings, parts.site.running()
    addresses = {f"metrics.{role}": (role, str(getattr(settings.metrics, role))) for role in ROLES}
    addresses["gate.listen"] = "gate", settings.gate.listen
    for name, (role, address) in addresses.items():
        host, port = split_address(address)
        if role in running or port == 0:
            continue
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise SiteError(
                    f"{name}: nobody can listen on {address}: {error.strerror}",
                    hint=f"Free the port, or choose another {name} in videostore.yaml.",
                ) from error
    return ", ".join(sorted(address for _, address in addresses.values()))


def _certificate(parts: Parts) -> str:
    settings = parts.site.settings.gate
    if settings.plain_http:
        return "none: plain HTTP"
    own = own_certificate(parts.site).certificate
    path = parts.site.path(settings.tls_certificate) if settings.tls_certificate else own
    if not path.exists() and path == own:
        return "made when the gate starts"
    from videostore.gate.certificates import ends_at

    end = ends_at(path)
    if end - host_time() < _CERTIFICATE:
        raise GateUnavailable(
            f"{path.name} ends at {end.isoformat(timespec='minutes')}",
            hint="Replace certificate and key: the gate takes the new ones while it runs.",
        )
    return f"until {end.isoformat(timespec='minutes')}"


def _versions(_: Parts) -> str:
    return (
        f"videostore {__version__}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        f"{ssl.OPENSSL_VERSION.partition('  ')[0]}"
    )


def _ffmpeg(_: Parts) -> str:
    from videostore.recorder.features import lacking, version

    missing = lacking()
    if missing:
        raise SiteError(
            f"this FFmpeg lacks {', '.join(missing)}", hint="Install the wheel of PyAV: pip install av"
        )
    return version()


def _keys(parts: Parts) -> str:
    live = [key for key in parts.published(Kind.VIDEO).keys() if key.destroyed_at is None]
    if not live or live[-1].key_id.span.end < host_time():
        raise KeyUnavailable("no hour key for now", hint="Start `videostore run retention`.")
    return f"ahead until {live[-1].key_id.span.end.isoformat(timespec='minutes')}"


def _anchors(parts: Parts) -> str:
    anchors = parts.site.settings.ledger.anchors
    if not anchors:
        raise SiteError(
            "checkpoints are kept nowhere else",
            hint="Name a share or a locked bucket in ledger.anchors, or print `ledger checkpoint --qr`.",
        )
    _, failures = parts.anchoring.once()
    for name, error in failures.items():
        raise SiteError(f"{name}: {error}", hint=error.hint)
    here = parts.site.root.stat().st_dev
    beside = [name for name, one in anchors.items() if isinstance(one, DirectoryAnchorSettings)
              and parts.site.path(one.path).stat().st_dev == here]  # fmt: skip
    if beside:
        raise SiteError(
            f"{beside[0]} is on the disk of the site",
            hint="Keep checkpoints where this host cannot change them.",
        )
    return ", ".join(anchors)


def _approvers(parts: Parts) -> str:
    approvers = parts.site.approvers()
    if not approvers:
        raise SiteError("nobody can approve", hint="Name an approver in policies/access.yaml.")
    return ", ".join(approvers)


def _backup(parts: Parts) -> str:
    made = last_backup(parts.site.root)
    if made is None or host_time() - made > most_backup_age(parts.site):
        raise SiteError(
            f"the last was made at {made.isoformat(timespec='minutes')}" if made else "there is none",
            hint="Each night: `videostore backup create FILE --recipient age1…` (docs/guide/recovery.md).",
        )
    return made.isoformat(timespec="minutes")


_LOOKS: Mapping[str, Callable[[Parts], str]] = {
    "clock": _clock,
    "time service": _time_service,
    "disk": _disks,
    "sync": _sync,
    "ports": _ports,
    "certificate": _certificate,
    "versions": _versions,
    "ffmpeg": _ffmpeg,
    "store": lambda parts: f"answers, {len(parts.store.prefixes())} prefixes",
    "catalogue": lambda parts: f"answers, oldest footage {parts.catalogue.oldest() or 'none'}",
    "hour keys": _keys,
    "master key": lambda parts: try_out(parts.master_key),
    "ledger": lambda parts: f"{sum(1 for _ in parts.ledger.records())} records",
    "checkpoints": _anchors,
    "approvers": _approvers,
    "backup": _backup,
}
