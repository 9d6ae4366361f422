"""A site at a glance: what its files and catalogue say, and what its running roles say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from videostore import telemetry
from videostore.app.host import host_time
from videostore.app.ledger import restored_mark
from videostore.app.parts import Parts
from videostore.app.roles import ROLES
from videostore.domain.camera import Camera, is_dropped
from videostore.domain.retention import Kind

_Seen = Mapping[tuple[str, ...], float]

# As in deploy/prometheus/alerts.yml: what wakes somebody there stands here in red.
_NO_SWEEP, _WAITS, _KEYS_AHEAD = timedelta(minutes=15), timedelta(minutes=10), timedelta(hours=6)


def status(parts: Parts) -> dict[str, Any]:
    """Return what runs, what is recorded, what goes next, and what is wrong, each with its alert."""
    site, now = parts.site, host_time()
    running = site.running()
    seen: dict[tuple[str, ...], float] = {}
    for facts in running.values():
        seen |= telemetry.read_metrics(str(facts.get("metrics", "")))
    totals = parts.catalogue.totals()
    keys = [key for ring in (parts.published(kind) for kind in Kind) for key in ring.keys()]
    live = [key for key in parts.published(Kind.VIDEO).keys() if key.destroyed_at is None]
    policy = parts.policies()[Kind.VIDEO]
    oldest = next(iter(parts.catalogue.key_ids(until=now)), None)
    found: dict[str, Any] = {
        "site": site.settings.site,
        "at": now,
        "problems": [],
        "running": {role: _where(running.get(role)) for role in ROLES},
        "footage": {
            "segments": totals.segments,
            "size_bytes": totals.size_bytes,
            "condemned": totals.condemned,
            "overdue": _number(seen, "overdue_objects"),
            "oldest": totals.oldest,
            "next_due": policy.due_at(oldest) if oldest else None,
        },
        "keys": {
            "live": sum(key.destroyed_at is None for key in keys),
            "destroyed": sum(key.destroyed_at is not None for key in keys),
            "ahead_until": max((key.key_id.span.end for key in live), default=None),
        },
        "spool_bytes": parts.spool.size_bytes(),
        "spool_limit_bytes": int(site.settings.recorder.spool_limit),
        "waits_since": _moment(seen, "spool_oldest_timestamp_seconds"),
        "last_sweep": _moment(seen, "last_successful_sweep_timestamp_seconds"),
        "clock_in_doubt": parts.clock.read().doubt is not None,
        "restored": restored_mark(site.root).exists(),
        "cameras": [_camera(parts, camera, seen) for camera in site.cameras.present()],
    }
    found["problems"] = _problems(found, now)
    return found


def _where(facts: Mapping[str, Any] | None) -> str:
    return "" if facts is None else ", ".join(str(facts[key]) for key in ("gate", "metrics") if key in facts)


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


def _problems(found: Mapping[str, Any], now: datetime) -> list[dict[str, str]]:
    """Return what is wrong, and the alert whose page says what to do."""
    keys, footage = found["keys"]["ahead_until"], found["footage"]
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
        (_long_ago(found["waits_since"], now, _WAITS), "SpoolNotDraining", "segments wait for the store"),
        (found["spool_bytes"] * 2 > found["spool_limit_bytes"], "SpoolFilling", "the spool is half full"),
        *(
            (camera["state"] == "silent", "CameraDown", f"camera {camera['camera']} sends nothing")
            for camera in found["cameras"]
        ),
    ]
    return [{"alert": alert, "what": what} for wrong, alert, what in alarms if wrong]


def _long_ago(moment: datetime | None, now: datetime, patience: timedelta) -> bool:
    return moment is not None and now - moment > patience
