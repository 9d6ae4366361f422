"""Which receiver a camera gets: our own where it understands the camera, libav everywhere else.

The choice and its reason are in the metrics. A camera that our own receiver stopped understanding is left to
libav for a while, then tried again: firmware changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from videostore import telemetry
from videostore.domain.camera import Camera, CameraId, Transport
from videostore.ports import CameraStream
from videostore.recorder.native.frames import Doubt
from videostore.recorder.native.source import NativeSource
from videostore.recorder.sources import RtspSource

log = telemetry.logger("recorder")

_LEFT_TO_LIBAV_SECONDS = 3600.0


class ChosenSource:
    """Port CameraSource; its parameters are those of RtspSource and NativeSource."""

    def __init__(self, *, stall: timedelta, now: Callable[[], datetime], root: Path) -> None:
        self._libav = RtspSource(stall=stall, now=now, root=root)
        self._native = NativeSource(stall=stall, now=now, root=root)
        self._doubts: dict[tuple[CameraId, bool], tuple[str, float]] = {}  # by whether sound is wanted
        self._said: dict[CameraId, tuple[str, str]] = {}

    def chosen(self, camera: Camera) -> tuple[str, str]:
        """Return the receiver that a camera got last, ``native`` or ``libav``, and why."""
        return self._said[camera.id]

    def open(self, camera: Camera, credentials: tuple[str, str] | None) -> CameraStream:
        reason = self._why_libav(camera)
        if not reason:
            try:
                stream = self._native.open(
                    camera, credentials, doubted=lambda reason: self._doubt(camera, reason)
                )
            except Doubt as doubt:
                reason = doubt.reason
                self._doubt(camera, reason)
            else:
                self._say(camera, "native", "understood")
                return stream
        other = self._libav.open(camera, credentials)
        self._say(camera, "libav", reason)
        return other

    def _why_libav(self, camera: Camera) -> str:
        if camera.transport is Transport.UDP:
            return "udp"
        reason, until = self._doubts.get((camera.id, camera.sound), ("", 0.0))
        return reason if time.monotonic() < until else ""

    def _doubt(self, camera: Camera, reason: str) -> None:
        self._doubts[camera.id, camera.sound] = reason, time.monotonic() + _LEFT_TO_LIBAV_SECONDS

    def _say(self, camera: Camera, receiver: str, reason: str) -> None:
        name, before, now = str(camera.id), self._said.get(camera.id), (receiver, reason)
        if before is not None and before != now:
            telemetry.CAMERA_RECEIVER.remove(name, *before)
        telemetry.CAMERA_RECEIVER.labels(camera_id=name, receiver=receiver, reason=reason).set(1)
        if before != now:
            log.info("camera.receiver", camera_id=name, receiver=receiver, reason=reason)
        self._said[camera.id] = now
