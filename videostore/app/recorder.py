"""The role that records."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from threading import Event as Stop

from videostore import telemetry
from videostore.app import crew
from videostore.app.disks import existing, show_disks
from videostore.app.endpoints import announce, asked_of, metrics_of
from videostore.app.host import clock_synchronised, keep_memory_whole, return_free_memory, watchdog
from videostore.app.parts import Parts, must_stand
from videostore.config.credentials import resolve_credentials
from videostore.config.follow import Followed
from videostore.domain.camera import Camera, CameraId
from videostore.domain.retention import Kind
from videostore.domain.segment import SITE_KEEP, KeyId, Span
from videostore.ports import Packet, StreamInfo
from videostore.recorder.choice import ChosenSource
from videostore.recorder.dropped import Folder
from videostore.recorder.folder import DropFolder
from videostore.recorder.health import PictureHealth
from videostore.recorder.session import Recording
from videostore.recorder.supervisor import Recorder
from videostore.recorder.upload import Bandwidth, Uploader

log = telemetry.logger("app")


def run_recorder(parts: Parts, stop: Stop) -> None:
    must_stand(parts)
    keep_memory_whole()
    site, settings = parts.site, parts.site.settings.recorder
    share = parts.share
    pictures = PictureHealth(parts.ledger, interval=settings.look)
    recording = recording_of(parts, look=pictures.offer)
    heart = _Heart()
    recorder = Recorder(
        recording,
        Uploader(
            parts.spool,
            parts.store,
            parts.catalogue,
            parts.ledger,
            now=parts.clock.now,
            at_once=settings.uploads,
            bandwidth=Bandwidth(settings.upload_limit // (share.of if share else 1)),
        ),
        cameras=_cameras(parts),
        credentials=lambda camera: resolve_credentials(camera.credentials, root=site.root),
        beat=heart.beat,
        pictures=pictures,
        folders=[
            _drop_folder(parts, folder, recording)
            for folder in parts.folders
            if share is None or share.number == 0
        ],
    )
    show_disks({"spool": existing(parts.site.path(settings.spool))})
    telemetry.SPOOL_LIMIT.set(settings.spool_limit // (share.of if share else 1))
    asked = asked_of(parts, "recorder", heart.hangs)
    with metrics_of(site, "recorder", asked=asked, address=_ANY_PORT if share else "") as metrics:
        announce(site, crew.part_name(share.number) if share else "recorder", {"metrics": metrics})
        recorder.run(stop)


_ANY_PORT = "127.0.0.1:0"


def recording_of(parts: Parts, *, look: Callable[[CameraId, StreamInfo, Packet], None]) -> Recording:
    """Return what a recorder records with. Its time is the earliest it can be: a host set ahead would give
    what it records a later deadline."""
    settings = parts.site.settings.recorder
    return Recording(
        source=ChosenSource(stall=settings.stall, now=parts.clock.received, root=parts.site.root),
        spool=parts.spool,
        keys=parts.published(Kind.VIDEO),
        key_id=_key_for(parts),
        segment=settings.segment,
        max_clock_offset=settings.max_clock_offset,
        now=parts.clock.received,
        look=look,
    )


def _cameras(parts: Parts) -> Callable[[], Iterable[Camera]]:
    """Return what tells the cameras to record: all, or the share of this process."""
    share, cameras = parts.share, Followed(parts.site.root / "cameras.yaml", parts.site.cameras.all)
    return cameras if share is None else lambda: [one for one in cameras() if share.holds(one.id)]


def _key_for(parts: Parts) -> Callable[[CameraId, datetime], KeyId]:
    """Return which key a frame is sealed to. Until the first key of a new keep is published it is that of the
    site: no footage is lost to a change of the policy, and what outlives the camera's own keep is swept."""
    keys, policy = parts.published(Kind.VIDEO), parts.policy(Kind.VIDEO)

    def key_for(camera_id: CameraId, moment: datetime) -> KeyId:
        key_id = policy().key_id(camera_id, moment)
        return key_id if key_id.keep == SITE_KEEP or keys.has(key_id) else replace(key_id, keep=SITE_KEEP)

    return key_for


def _drop_folder(parts: Parts, folder: Folder, recording: Recording) -> DropFolder:
    def there(camera: Camera, span: Span) -> list[Span]:
        waits = parts.spool.whole(camera.id, span)  # before the catalogue, as footage moves
        held = [*waits, *parts.catalogue.segments([camera.id], span)]
        return [segment.span for segment in held]

    return DropFolder(
        folder,
        recording,
        cameras=Followed(parts.site.root / "cameras.yaml", parts.site.cameras.all),
        there=there,
        keep=lambda camera_id: parts.policies()[Kind.VIDEO].keep_of(camera_id),
    )


class _Heart:
    """What the recorder does about once a second: say that it lives; now and then, look after its host's
    clock and its own memory."""

    def __init__(self) -> None:
        self._alive = watchdog()
        self._looked, self._beaten = float("-inf"), time.monotonic()
        self._said = True

    def beat(self) -> None:
        self._alive()
        self._beaten = time.monotonic()
        if self._beaten - self._looked < _HOUSEKEEPING_SECONDS:
            return
        self._looked = self._beaten
        return_free_memory()
        synchronised = clock_synchronised()
        if synchronised is None:  # the kernel does not say: neither 0 nor 1
            telemetry.HOST_CLOCK_SYNCHRONISED.set(float("nan"))
            return
        telemetry.HOST_CLOCK_SYNCHRONISED.set(synchronised)
        if not synchronised and self._said:
            log.warning("clock.not-synchronised", hint="Run chrony or another time service on this host.")
        self._said = synchronised

    def hangs(self) -> str:
        silent = time.monotonic() - self._beaten
        return f"no sign of life for {silent:.0f} s" if silent > _HOUSEKEEPING_SECONDS else ""


_HOUSEKEEPING_SECONDS = 60
