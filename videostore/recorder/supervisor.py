"""A recorder: one thread a camera, one for uploads; follows the list of cameras while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from threading import Event, Thread

from videostore import telemetry
from videostore.domain.camera import Camera, CameraId, is_dropped
from videostore.domain.errors import StoreUnavailable, VideostoreError
from videostore.recorder.folder import DropFolder
from videostore.recorder.health import PictureHealth
from videostore.recorder.session import CameraSession, Recording
from videostore.recorder.upload import Uploader

log = telemetry.logger("recorder")

_FOLLOW_SECONDS = 1.0
_PATIENCE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class _Running:
    camera: Camera
    session: CameraSession
    stop: Event


class Recorder:
    """Records all enabled cameras. ``credentials`` resolves those of a camera, at each connection; ``beat``
    is called about once a second for as long as all is well."""

    def __init__(
        self,
        recording: Recording,
        uploader: Uploader,
        *,
        cameras: Callable[[], Iterable[Camera]],
        credentials: Callable[[Camera], tuple[str, str] | None],
        beat: Callable[[], None] = lambda: None,
        folders: Sequence[DropFolder] = (),
        pictures: PictureHealth | None = None,
    ) -> None:
        self._recording = recording
        self._uploader = uploader
        self._cameras = cameras
        self._credentials = credentials
        self._beat = beat
        self._besides = [*(one.run for one in folders), *([pictures.run] if pictures else [])]
        self._running: dict[CameraId, _Running] = {}

    def run(self, stop: Event) -> None:
        """Record until ``stop`` is set, then upload what is left."""
        promoted = self._recording.spool.recover()
        if promoted:
            log.info("spool.recovered", groups=promoted)
        end_upload = Event()
        uploads = Thread(target=self._uploader.run, args=[end_upload], name="upload")
        uploads.start()
        besides = [Thread(target=run, args=[stop], name="besides", daemon=True) for run in self._besides]
        for one in besides:
            one.start()
        try:
            while not stop.is_set():
                self._follow()
                if uploads.is_alive():
                    self._beat()
                stop.wait(_FOLLOW_SECONDS)
        finally:
            self._stop(list(self._running.values()))
            for one in besides:
                one.join(_PATIENCE_SECONDS)
            end_upload.set()
            uploads.join(_PATIENCE_SECONDS)
            self._upload_the_rest(uploads)

    def _upload_the_rest(self, uploads: Thread) -> None:
        """Not beside a thread that the store still holds: what both handed over would be on record twice."""
        try:
            if uploads.is_alive():
                raise StoreUnavailable("the store still takes what is on its way")
            self._uploader.upload_all()
        except VideostoreError as error:
            log.warning("upload.left", error=str(error), hint="The next start goes on from the spool.")

    def _follow(self) -> None:
        wanted = {camera.id: camera for camera in self._cameras() if _is_stream(camera)}
        self._stop([one for one in self._running.values() if _differs(one.camera, wanted.get(one.camera.id))])
        for camera in wanted.values():
            if camera.id not in self._running:
                self._start(camera)

    def _start(self, camera: Camera) -> None:
        session = CameraSession(camera, self._recording, credentials=lambda: self._credentials(camera))
        stop = Event()
        thread = Thread(target=session.run, args=[stop], name=f"camera {camera.name}", daemon=True)
        self._running[camera.id] = _Running(camera, session, stop)
        thread.start()
        log.info("camera.started", camera_id=str(camera.id), name=camera.name)

    def _stop(self, running: list[_Running]) -> None:
        for one in running:
            one.stop.set()
        for one in running:
            one.session.finish()
            del self._running[one.camera.id]
            telemetry.forget_camera(str(one.camera.id))
            log.info("camera.stopped", camera_id=str(one.camera.id))


def _is_stream(camera: Camera) -> bool:
    return camera.enabled and not camera.removed and not is_dropped(camera)


def _differs(running: Camera, wanted: Camera | None) -> bool:
    """Say whether a camera has to be connected anew. Name, group and place are nothing to it."""
    if wanted is None:
        return True
    return replace(wanted, name=running.name, group=running.group, place=running.place) != running
