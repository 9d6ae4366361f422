"""A site at a glance: what its files and catalogue say, and what its running roles say of themselves.

It is asked every two seconds while somebody watches, so it costs what it shows and not what is stored: how
much that is follows, once there is more than two hours of it, from the last whole one.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from videostore import telemetry
from videostore.app.disks import disks, places
from videostore.app.host import host_time
from videostore.app.ledger import restored_mark
from videostore.app.parts import Parts
from videostore.app.recovery import last_backup, most_backup_age
from videostore.app.roles import ROLES
from videostore.domain.camera import Camera, is_dropped
from videostore.domain.retention import Kind, RetentionPolicy, SegmentState
from videostore.domain.segment import KeyId

_Seen = Mapping[tuple[str, ...], float]

# As in deploy/prometheus/alerts.yml: what wakes somebody there stands here in red.
_NO_SWEEP, _WAITS, _KEYS_AHEAD = timedelta(minutes=15), timedelta(minutes=10), timedelta(hours=6)
_LEAST_FREE = 0.05
_SHARED = 12
"""How many names one line of a problem names."""


def status(parts: Parts) -> dict[str, Any]:
    """Return what runs, what is recorded, what goes next, and what is wrong, each with its alert. The worst
    camera comes first."""
    site, now = parts.site, host_time()
    running = site.running()
    seen: dict[tuple[str, ...], float] = {}
    for facts in running.values():
        seen |= telemetry.read_metrics(str(facts.get("metrics", "")))
    rings = {kind: list(parts.published(kind).keys()) for kind in Kind}
    living = [key for ring in rings.values() for key in ring if key.destroyed_at is None]
    ahead = [key.key_id.span.end for key in rings[Kind.VIDEO] if key.destroyed_at is None]
    held = _number(seen, "spool_bytes")
    found: dict[str, Any] = {
        "site": site.settings.site,
        "at": now,
        "problems": [],
        "running": {role: _where(running.get(role)) for role in ROLES},
        "footage": {**_footage(parts, now), "overdue": _number(seen, "overdue_objects")},
        "keys": {
            "live": len(living),
            "destroyed": sum(map(len, rings.values())) - len(living),
            "ahead_until": max(ahead, default=None),
        },
        "spool_bytes": parts.spool.size_bytes() if held is None else int(held),
        "spool_limit_bytes": int(site.settings.recorder.spool_limit),
        "waits_since": _moment(seen, "spool_oldest_timestamp_seconds"),
        "disks": _disks(parts),
        "last_backup": last_backup(site.root),
        "last_sweep": _moment(seen, "last_successful_sweep_timestamp_seconds"),
        "clock_in_doubt": parts.clock.read().doubt is not None,
        "restored": restored_mark(site.root).exists(),
        "cameras": _cameras(parts, seen),
    }
    made = found["last_backup"]
    wanted = made is not None or site.settings.backup.max_age is not None
    old = wanted and (made is None or now - made > most_backup_age(site))
    found["problems"] = _problems(found, now, backup_is_old=old)
    return found


def _footage(parts: Parts, now: datetime) -> dict[str, Any]:
    policy, oldest = parts.policies()[Kind.VIDEO], parts.catalogue.oldest()
    leaving = parts.catalogue.leaving().items()
    return {
        **_stored(parts, policy, oldest, now),
        "condemned": sum(count for (*_, state), count in leaving if state is SegmentState.CONDEMNED),
        "oldest": oldest,
        "next_due": policy.due_at(KeyId.covering(oldest, policy.key_period)) if oldest else None,
    }


def _stored(parts: Parts, policy: RetentionPolicy, oldest: datetime | None, now: datetime) -> dict[str, Any]:
    """Return how much is live: counted, or reckoned from the last whole hour."""
    this = KeyId.covering(now, policy.key_period).start
    last = this - policy.key_period
    segments, size_bytes = parts.catalogue.of_hour(last)
    if oldest is not None and oldest < last:
        hours = (now - oldest) / policy.key_period
        return {
            "segments": round(segments * hours),
            "size_bytes": round(size_bytes * hours),
            "counted": False,
        }
    more_segments, more_bytes = parts.catalogue.of_hour(this)
    return {"segments": segments + more_segments, "size_bytes": size_bytes + more_bytes, "counted": True}


def _disks(parts: Parts) -> dict[str, dict[str, int]]:
    used = {name: shutil.disk_usage(path) for name, path in disks(places(parts.site)).items()}
    return {name: {"free_bytes": one.free, "size_bytes": one.total} for name, one in used.items()}


def _where(facts: Mapping[str, Any] | None) -> str:
    return "" if facts is None else ", ".join(str(facts[key]) for key in ("gate", "metrics") if key in facts)


_WORST_FIRST = ("silent", "enabled", "sends", "files", "disabled")


def _cameras(parts: Parts, seen: _Seen) -> list[dict[str, Any]]:
    def badness(camera: Mapping[str, Any]) -> tuple[int, bool, float]:
        """In a state, whose footage ends first; none at all is worse."""
        until = camera["footage_until"]
        return _WORST_FIRST.index(camera["state"]), until is not None, until.timestamp() if until else 0.0

    return sorted((_camera(parts, one, seen) for one in parts.site.cameras.present()), key=badness)


def _camera(parts: Parts, camera: Camera, seen: _Seen) -> dict[str, Any]:
    up = seen.get(("videostore_camera_up", str(camera.id)))
    state = "disabled" if not camera.enabled else "enabled"
    if camera.enabled and up is not None:
        state = "sends" if up else "silent"
    return {
        "camera": camera.name,
        "state": "files" if camera.enabled and is_dropped(camera) else state,
        "last_frame": _moment(seen, "camera_last_frame_timestamp_seconds", str(camera.id)),
        "footage_until": parts.catalogue.last_end(camera.id),
        "url": camera.url,
    }


def _number(seen: _Seen, name: str, *labels: str) -> float | None:
    return seen.get((f"videostore_{name}", *labels))


def _moment(seen: _Seen, name: str, *labels: str) -> datetime | None:
    seconds = _number(seen, name, *labels)
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def _problems(found: Mapping[str, Any], now: datetime, *, backup_is_old: bool) -> list[dict[str, str]]:
    """Return what is wrong, and the alert whose page says what to do."""
    keys, footage = found["keys"]["ahead_until"], found["footage"]
    silent = [camera["camera"] for camera in found["cameras"] if camera["state"] == "silent"]
    full = [
        name for name, one in found["disks"].items() if one["free_bytes"] < _LEAST_FREE * one["size_bytes"]
    ]
    alarms = [
        (found["restored"], "", "restored and not reconciled: `videostore backup reconcile`"),
        *((not at, "RoleSilent", f"the {role} does not run") for role, at in found["running"].items()),
        (footage["overdue"], "FootagePastDeadline", "objects are past their deadline"),
        (found["clock_in_doubt"], "ClockInDoubt", "the clock is not believed; destruction waits"),
        (
            _long_ago(found["last_sweep"], now, _NO_SWEEP),
            "RetentionNotSweeping",
            "no sweep finished lately",
        ),
        (not keys or keys - now < _KEYS_AHEAD, "KeysRunOut", "hour keys end in less than six hours"),
        (full, "DiskFilling", f"the disk of {', '.join(full)} is nearly full"),
        (_long_ago(found["waits_since"], now, _WAITS), "SpoolNotDraining", "segments wait for the store"),
        (found["spool_bytes"] * 2 > found["spool_limit_bytes"], "SpoolFilling", "the spool is half full"),
        (silent, "CameraDown", _are_silent(silent)),
        (backup_is_old, "BackupTooOld", "the newest backup is too old, or there is none"),
    ]
    return [{"alert": alert, "what": what} for wrong, alert, what in alarms if wrong]


def _are_silent(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"camera {names[0]} sends nothing"
    more = ", …" if len(names) > _SHARED else ""
    return f"{len(names)} cameras send nothing: {', '.join(names[:_SHARED])}{more}"


def _long_ago(moment: datetime | None, now: datetime, patience: timedelta) -> bool:
    return moment is not None and now - moment > patience
