"""What one pass of retention goes by, and what it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from videostore import telemetry
from videostore.domain.camera import CameraId
from videostore.domain.clock import Reading
from videostore.domain.retention import Kind, RetentionPolicy
from videostore.domain.segment import KeyId
from videostore.ports import HourKey

log = telemetry.logger("retention")
ACTOR = "retention"


@dataclass(slots=True)
class SweepReport:
    """What one pass did. ``errors`` are one line each; empty means that nothing was left undone, unless the
    pass was ``interrupted``: its time was up, and the next one goes on. ``next_due``: when a key is."""

    reading: Reading
    keys_created: int = 0
    keys_destroyed: list[HourKey] = field(default_factory=list)
    segments_condemned: int = 0
    segments_deleted: int = 0
    bytes_deleted: int = 0
    segments_adopted: int = 0
    strangers_deleted: int = 0
    segments_lost: int = 0
    copies_removed: int = 0
    certificates: list[str] = field(default_factory=list)
    interrupted: bool = False
    next_due: datetime | None = None
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Pass:
    """Clock, policies and keys are read once for a pass. ``go_on`` says whether there is time for more work
    that can wait: the deletion of bytes, never that of keys."""

    reading: Reading
    policies: Mapping[Kind, RetentionPolicy]
    keys: Mapping[Kind, dict[KeyId, HourKey]]
    go_on: Callable[[], bool]
    report: SweepReport

    @property
    def now(self) -> datetime:
        """What destruction goes by: the earliest time it may be."""
        return self.reading.earliest

    @property
    def video(self) -> RetentionPolicy:
        return self.policies[Kind.VIDEO]

    def due(self, key_id: KeyId, camera_id: CameraId | None = None) -> bool:
        """Say whether what is sealed to a key, or what of it is of one camera, must go: it is due, or its key
        is destroyed."""
        key = self.keys[Kind.VIDEO].get(key_id)
        if key is not None and key.destroyed_at is not None:
            return True
        promised = key.deadline if key else None
        return self.video.judge(key_id, now=self.now, promised=promised, camera_id=camera_id).due

    def failed(self, what: str, error: Exception) -> None:
        """Note what could not be done. The next pass tries again."""
        self.report.errors.append(f"{what}: {error}")
        hint = getattr(error, "hint", "")
        log.error("sweep.step-failed", step=what, error=f"{type(error).__name__}: {error}", hint=hint)

    def has_time(self) -> bool:
        if not self.go_on():
            self.report.interrupted = True
        return not self.report.interrupted
