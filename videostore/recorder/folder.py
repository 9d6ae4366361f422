"""Drop folders: files that an NVR leaves are taken in as segments, and then gone from there.

A file is taken when it did not change for a while. Its footage is cut, sealed and spooled like that of a
stream, under its capture time; then it is removed. What cannot be taken is moved to ``.refused/REASON/``,
where retention deletes it like everything else when its time has come. Nothing is noted down on the way:
what a file holds that is there already is left out, so that whatever was interrupted is simply done again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event
from typing import Any

import av
import av.error
import av.stream
from av.bitstream import BitStreamFilterContext
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from videostore import telemetry
from videostore.domain.camera import Camera, CameraId
from videostore.domain.errors import (
    CameraStreamInvalid,
    KeyDestroyed,
    KeyUnavailable,
    VideostoreError,
)
from videostore.domain.segment import GapReason, Segment, Span
from videostore.durable import disk_errors, make_directory, remove_file, sync_directory
from videostore.ports import Packet, StreamInfo
from videostore.recorder.dropped import (
    REFUSED,
    Folder,
    Outcome,
    in_zone,
    judge,
    received_at,
    sidecar_of,
    sidecar_time,
)
from videostore.recorder.growing import Growth
from videostore.recorder.session import CameraSession, Recording
from videostore.recorder.sources import CODECS, sound_of

log = telemetry.logger("recorder")

_ANNEX_B = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}
_REMOVED = {Outcome.TAKEN, Outcome.DUPLICATE, Outcome.PAST_DEADLINE}
_PAUSE_SECONDS = 1.0
_KEYRING_LATE = timedelta(hours=1)


class DropFolder:
    """Takes in what lies in a folder. ``there`` returns the spans of a camera's footage that exist."""

    def __init__(
        self,
        folder: Folder,
        recording: Recording,
        *,
        cameras: Callable[[], Iterable[Camera]],
        there: Callable[[Camera, Span], Sequence[Span]],
        keep: Callable[[CameraId], timedelta],
    ) -> None:
        self._folder = folder
        self._recording = recording
        self._cameras = cameras
        self._there = there
        self._keep = keep
        self._changed: SimpleQueue[Path] = SimpleQueue()
        self._waiting: dict[Path, tuple[tuple[int, int], datetime]] = {}
        self._log = log.bind(folder=folder.name)

    def run(self, stop: Event) -> None:
        """Take files in until ``stop`` is set."""
        with disk_errors(self._folder.path):
            self._folder.path.mkdir(parents=True, exist_ok=True)
        observer = Observer()
        observer.schedule(_Teller(self._changed), str(self._folder.path), recursive=True)
        observer.start()
        looked: datetime | None = None
        try:
            while not stop.is_set():
                now = self._recording.now()
                if looked is None or abs(now - looked) >= self._folder.look:
                    looked = now
                    self.look()
                self.take(stop)
                stop.wait(_PAUSE_SECONDS)
        finally:
            observer.stop()
            observer.join()

    def look(self) -> None:
        """Look at the whole tree."""
        for path in self._folder.files():
            self._changed.put(path)

    def take(self, stop: Event | None = None) -> int:
        """Take in every file that is complete now, in order of their names. Returns how many there were."""
        self._note_changes()
        done = 0
        waiting = telemetry.FOLDER_WAITING.labels(folder=self._folder.name)
        for path in sorted(self._complete()):
            waiting.set(len(self._waiting))  # while many are taken, too
            if stop is not None and stop.is_set():
                break
            try:
                outcome = self._deal_with(path)
            except FileNotFoundError:
                outcome = None  # somebody took it back
            except VideostoreError as error:
                self._log.error("file.left", file=path.name, error=str(error), hint=error.hint)
                break  # the disk or the keyring: the next round tries again
            self._waiting.pop(path, None)
            if outcome is not None:
                done += 1
                telemetry.FOLDER_FILES.labels(folder=self._folder.name, outcome=outcome.value).inc()
        waiting.set(len(self._waiting))
        return done

    def _note_changes(self) -> None:
        with suppress(Empty):
            while True:
                path = self._changed.get_nowait()
                if path not in self._waiting and self._folder.waits(path):
                    self._waiting[path] = (-1, -1), self._recording.now()

    def _complete(self) -> list[Path]:
        """Return the files whose size and time did not change for long enough."""
        now, found = self._recording.now(), []
        for path, (before, since) in list(self._waiting.items()):
            try:
                status = path.stat()
            except OSError:
                del self._waiting[path]
                continue
            state = status.st_size, status.st_mtime_ns
            quiet = now - datetime.fromtimestamp(status.st_mtime, UTC)
            if state != before:
                self._waiting[path] = state, now
                since = now
            if max(now - since, quiet) >= self._folder.settle:
                found.append(path)
        return found

    def _deal_with(self, path: Path) -> Outcome:
        outcome, why = self._import(path)
        sidecar = sidecar_of(path)
        if outcome in _REMOVED:
            remove_file(path)
            remove_file(sidecar)
            self._log.info("file.done", file=path.name, outcome=outcome.value)
        else:
            for one in (path, sidecar):
                _move(one, self._folder.path / REFUSED / outcome.value / one.relative_to(self._folder.path))
            self._log.error("file.refused", file=path.name, outcome=outcome.value, error=why)
        return outcome

    def _import(self, path: Path) -> tuple[Outcome, str]:
        claim = self._folder.claim(path)
        camera = self._camera(claim[0]) if claim else None
        if claim is None or camera is None:
            return Outcome.NO_CAMERA, f"no camera records folder://{self._folder.name}/{claim and claim[0]}"
        received = received_at(path)
        try:
            with closing(DroppedFile(path, sound=camera.sound)) as file:
                local = claim[1]
                zone = self._folder.pattern.zone
                claims = (
                    sidecar_time(path),
                    in_zone(local, zone, complete=received - file.duration) if local else None,
                    file.created,
                )
                now = self._recording.now()
                keep = self._keep(camera.id)
                outcome, start = judge(claims, duration=file.duration, received=received, now=now, keep=keep)
                if start is None:
                    return outcome, ""
                file.begins_at(start)
                session = _Import(camera, self._recording, self._there(camera, file.span))
                session.take(file)
                return (Outcome.TAKEN if session.new else Outcome.DUPLICATE), ""
        except CameraStreamInvalid as error:
            return Outcome.UNREADABLE, str(error)
        except KeyDestroyed:
            return Outcome.PAST_DEADLINE, ""
        except KeyUnavailable as error:
            if self._recording.now() - received < _KEYRING_LATE:
                raise  # it may come yet
            return Outcome.NO_KEY, str(error)

    def _camera(self, part: str) -> Camera | None:
        url = f"folder://{self._folder.name}/{part}"
        return next(
            (one for one in self._cameras() if one.url == url and one.enabled and not one.removed), None
        )


class _Import(CameraSession):
    """Cuts a file like a stream. The file itself is the durable copy until its last segment is spooled."""

    def __init__(self, camera: Camera, recording: Recording, there: Sequence[Span]) -> None:
        super().__init__(camera, recording, credentials=lambda: None)
        self._there = there
        self._why = GapReason.CAMERA_UNREACHABLE
        self._sealed: list[bytes] = []
        self.new = 0

    def take(self, file: DroppedFile) -> None:
        self._record(file, Event())

    def grow(self, start: datetime) -> Growth:
        begun, recipient = self.begun(start)
        self._sealed = []
        return Growth(begun, recipient=recipient, write=lambda sealed: self._sealed.append(bytes(sealed)))

    def keep_group(self, group: Segment, sealed: bytes) -> None:
        pass

    def commit(
        self, growth: Growth, span: Span, groups: list[Segment], clock: timedelta | None = None
    ) -> None:
        del groups, clock  # none was kept; a file has no clock that could be compared
        segment, sealed = growth.finish(span), b"".join(self._sealed)
        if not any(span.contains(segment.span) for span in self._there):
            self._recording.spool.commit(segment, sealed, groups=[])
            self.committed(segment)
            self._why = GapReason.CAMERA_UNREACHABLE
            self.new += 1

    def give_back(self, growth: Growth) -> None:
        """The file is there still."""


class DroppedFile:
    """Port CameraStream, of a file; its frames bear the time of their capture. Sound is read only with
    ``sound``. Raises CameraStreamInvalid."""

    def __init__(self, path: Path, *, sound: bool) -> None:
        self._start = datetime.now(UTC)
        try:
            self._container = av.open(str(path), "r")
        except (av.error.FFmpegError, OSError) as error:
            raise CameraStreamInvalid(f"{path.name} cannot be read: {error.strerror}") from error
        videos = self._container.streams.video
        name = videos[0].codec_context.name if videos else "no video"
        if name not in CODECS or videos[0].time_base is None:
            self._container.close()
            raise CameraStreamInvalid(
                f"{path.name} holds {name}", hint="H.264, H.265 and MJPEG can be taken."
            )
        self._name, self._stream = path.name, videos[0]
        context = self._stream.codec_context
        heard = self._container.streams.audio if sound else ()
        self._sound = next((one for one in heard if sound_of(one)), None)
        self._filters: dict[av.stream.Stream, BitStreamFilterContext] = {}
        if name in _ANNEX_B:
            self._filters[videos[0]] = BitStreamFilterContext(_ANNEX_B[name], videos[0])
        if self._sound and self._sound.codec_context.name == "aac":
            self._filters[self._sound] = BitStreamFilterContext("aac_adtstoasc", self._sound)
        self.info = StreamInfo(
            name,
            context.width,
            context.height,
            Fraction(videos[0].time_base),
            bytes(context.extradata or b""),
            sound_of(self._sound) if self._sound else None,
        )

    @property
    def duration(self) -> timedelta:
        return timedelta(microseconds=self._container.duration or 0)

    @property
    def created(self) -> datetime | None:
        """What the container says of its time (ISO 8601), None if nothing or nothing with a zone."""
        with suppress(KeyError, ValueError):
            found = datetime.fromisoformat(self._container.metadata["creation_time"])
            if found.tzinfo is not None and found.year > _EPOCHS_OF_CLOCKS_NOT_SET:
                return found.astimezone(UTC)
        return None

    @property
    def span(self) -> Span:
        return Span(self._start, self._start + max(self.duration, timedelta(seconds=1)))

    def begins_at(self, start: datetime) -> None:
        self._start = start

    def close(self) -> None:
        self._container.close()

    def packets(self) -> Iterator[Packet]:
        first: Fraction | None = None  # seconds at which the picture begins
        for stream, packet in self._filtered():
            pts = packet.pts if packet.pts is not None else packet.dts
            if pts is None:
                raise CameraStreamInvalid(f"{self._name} does not say when its frames are")
            sounds = stream is not self._stream
            moment = pts * Fraction(stream.time_base or 0)
            if first is None and not sounds:
                first = moment
            if first is None:
                continue  # what is heard before the first picture
            at = self._start + timedelta(seconds=float(moment - first))
            yield Packet(bytes(packet), pts, packet.is_keyframe, at, at, sound=sounds)

    def _filtered(self) -> Iterator[tuple[av.stream.Stream, av.Packet[Any]]]:
        wanted = [self._stream, self._sound] if self._sound else [self._stream]
        try:
            for packet in self._container.demux(wanted):
                if packet.size:
                    stream, found = packet.stream, self._filters.get(packet.stream)
                    for one in found.filter(packet) if found else [packet]:
                        yield stream, one
        except av.error.FFmpegError as error:
            raise CameraStreamInvalid(f"{self._name} cannot be read: {error.strerror}") from error


_EPOCHS_OF_CLOCKS_NOT_SET = 2000


class _Teller(FileSystemEventHandler):
    def __init__(self, changed: SimpleQueue[Path]) -> None:
        self._changed = changed

    def on_any_event(self, event: FileSystemEvent) -> None:
        if not event.is_directory:
            self._changed.put(Path(os.fsdecode(event.dest_path or event.src_path)))


def _move(source: Path, target: Path) -> None:
    if source.exists():
        make_directory(target.parent)
        with disk_errors(target):
            source.replace(target)
            sync_directory(target.parent)
            sync_directory(source.parent)
