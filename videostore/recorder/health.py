"""Looks at a picture of each camera now and then, in a thread of its own, one keyframe at a time."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from threading import Event, Lock

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from videostore import telemetry
from videostore.domain.camera import CameraId
from videostore.domain.errors import VideostoreError
from videostore.domain.ledger import Event as Noted
from videostore.ports import Ledger, Packet, StreamInfo
from videostore.recorder.muxer import parameter_sets
from videostore.recorder.pictures import Fault, Watch, look

log = telemetry.logger("recorder")

_ACTOR = "recorder"
_PAUSE_SECONDS = 0.5


class PictureHealth:
    """Measures a keyframe of each camera every ``interval``, and says when a fault begins or ends."""

    def __init__(self, ledger: Ledger, *, interval: timedelta) -> None:
        self._ledger = ledger
        self._interval = interval
        self._lock = Lock()
        self._offered: dict[CameraId, tuple[StreamInfo, Packet]] = {}
        self._next: dict[CameraId, datetime] = {}
        self._watches: dict[CameraId, Watch] = {}

    def offer(self, camera_id: CameraId, info: StreamInfo, keyframe: Packet) -> None:
        """Take note of a keyframe, if it is time for one: not in step with other cameras, or with a picture
        that repeats itself."""
        with self._lock:
            due = self._next.get(camera_id)
            if due is None or keyframe.received_at >= due or due - keyframe.received_at > 2 * self._interval:
                self._offered[camera_id] = info, keyframe
                self._next[camera_id] = keyframe.received_at + self._interval * random.uniform(0.9, 1.1)  # noqa: S311 - no secret

    def run(self, stop: Event) -> None:
        """Look at what is offered until ``stop`` is set."""
        while not stop.wait(_PAUSE_SECONDS):
            self.look()

    def look(self) -> None:
        """Look at everything that was offered."""
        with self._lock:
            offered, self._offered = self._offered, {}
        for camera_id, (info, keyframe) in offered.items():
            try:
                picture = decode(info, keyframe)
            except av.error.FFmpegError as error:
                log.warning("picture.unreadable", camera_id=str(camera_id), error=error.strerror)
                continue
            watch = self._watches.setdefault(camera_id, Watch())
            if watch.see(look(picture)):
                self._say(camera_id, watch.fault)

    def _say(self, camera_id: CameraId, fault: Fault | None) -> None:
        for one in Fault:
            telemetry.CAMERA_PICTURE_FAULT.labels(camera_id=str(camera_id), fault=one.value).set(one is fault)
        state = fault.value if fault else "well"
        (log.warning if fault else log.info)("camera.picture", camera_id=str(camera_id), state=state)
        try:
            self._ledger.append(
                Noted.CAMERA_PICTURE, actor=_ACTOR, body={"camera_id": str(camera_id), "state": state}
            )
        except VideostoreError as error:
            log.error("picture.not-noted", camera_id=str(camera_id), error=str(error), hint=error.hint)


def decode(info: StreamInfo, keyframe: Packet) -> NDArray[np.uint8]:
    """Decode one keyframe to grey, of shape (height, width)."""
    decoder = av.CodecContext.create(info.codec, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.thread_count = 1
    frames = []
    head = b"" if parameter_sets(info.codec, keyframe.data) else info.extradata
    for data in (head + keyframe.data, None):
        frames += decoder.decode(av.Packet(data) if data else None)
    if not frames:
        raise av.error.InvalidDataError(0, "no picture in a keyframe")
    return np.asarray(frames[0].reformat(format="gray").to_ndarray(), dtype=np.uint8)
