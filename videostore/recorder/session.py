"""Records one camera: connects, cuts, seals, spools; connects again for as long as it is told to."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event, Lock

from videostore import telemetry
from videostore.domain.camera import Camera, CameraId
from videostore.domain.cmaf import origin_of
from videostore.domain.errors import (
    CameraStreamInvalid,
    CameraUnreachable,
    DiskError,
    KeyringError,
    VideostoreError,
)
from videostore.domain.segment import Gap, GapReason, KeyId, Segment, Span
from videostore.ports import CameraSource, CameraStream, Packet, PublicKeys, StreamInfo
from videostore.recorder import packing
from videostore.recorder.cutter import SLEW, Group, Timeline, ticks_to_time
from videostore.recorder.growing import SMALLEST, GrowingFile, Growth, begin
from videostore.recorder.muxer import parameter_sets
from videostore.recorder.sound import Duet
from videostore.recorder.spool import Spool, facts_of
from videostore.sealing import seal

log = telemetry.logger("recorder")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds


@dataclass(frozen=True, slots=True)
class Recording:
    """What all cameras of a recorder share. ``key_id`` follows the policy, ``look`` gets keyframes."""

    source: CameraSource
    spool: Spool
    keys: PublicKeys
    key_id: Callable[[CameraId, datetime], KeyId]
    segment: timedelta
    max_clock_offset: timedelta
    now: Callable[[], datetime]
    look: Callable[[CameraId, StreamInfo, Packet], None] = lambda *_: None


class CameraSession:
    """One camera. ``credentials`` is asked at every connection: passwords change."""

    def __init__(
        self, camera: Camera, recording: Recording, *, credentials: Callable[[], tuple[str, str] | None]
    ) -> None:
        self._camera = camera
        self._recording = recording
        self._credentials = credentials
        progress = recording.spool.progress(camera.id)
        self._end = progress.end  # every second until then is footage or a gap
        self._sequence = progress.next_sequence
        self._why = GapReason.RECORDER_DOWN
        self._lock = Lock()  # of everything that changes; held while a packet is worked on
        self._live: tuple[Duet, _Assembly] | None = None
        self._finished = Event()
        self._meters = _Meters(str(camera.id))
        self._log = log.bind(camera_id=str(camera.id))

    def run(self, stop: Event) -> None:
        """Record until ``stop`` is set; what was received by then is spooled."""
        failures = 0
        with self._lock:
            if self._end is None:
                self._begin()
            else:
                self._account(GapReason.RECORDER_DOWN)
        while not stop.is_set():
            sequence = self._sequence
            why = self._record_once(stop)
            with self._lock:
                if self._finished.is_set():
                    return
                telemetry.CAMERA_UP.labels(camera_id=str(self._camera.id)).set(0)
                self._why = why
                self._account(why)
            if not stop.is_set():
                failures = 0 if self._sequence > sequence else failures + 1
                stop.wait(_pause(failures))
        self.finish()

    def finish(self) -> None:
        """Spool what was received, from any thread and however the camera hangs; then record no more."""
        with self._lock:
            if self._finished.is_set():
                return
            self._finished.set()
            why = self._why if self._live is None else GapReason.RECORDER_DOWN
            try:
                self._flush()
            except VideostoreError as error:
                self._log.error("camera.lost", error=str(error), hint=error.hint)
            self._account(why)

    def _record_once(self, stop: Event) -> GapReason:
        """Record one connection; return why it ended."""
        try:
            with closing(self._recording.source.open(self._camera, self._credentials())) as stream:
                telemetry.CAMERA_CONNECTS.labels(camera_id=str(self._camera.id)).inc()
                self._log.info("camera.connected", codec=stream.info.codec, width_px=stream.info.width_px)
                if self._camera.sound and stream.info.sound is None:
                    self._log.warning("camera.silent", hint="Switch sound on in the camera, AAC or G.711.")
                self._record(stream, stop)
        except VideostoreError as error:
            self._log.warning("camera.lost", error=str(error), hint=error.hint)
            return _reason(error)
        except Exception as error:  # noqa: BLE001 - one camera never ends the others
            self._log.error("camera.failed", error=f"{type(error).__name__}: {error}")
            return GapReason.STREAM_ERROR
        return GapReason.RECORDER_DOWN

    def _begin(self) -> None:
        """Note since when a new camera is to be recorded: no footage for a while yet is a gap too."""
        self._end = self._recording.now()
        try:
            self._recording.spool.begin(self._camera.id, self._end)
        except DiskError as error:
            self._log.error("gap.not-kept", error=str(error), hint=error.hint)

    def _account(self, reason: GapReason) -> None:
        """Put the time since the last footage on record: an outage is known while it goes on."""
        now = self._recording.now()
        if self._end is not None and now - self._end > SLEW:
            self._add_gap(Span(self._end, now), reason)

    def _add_gap(self, span: Span, reason: GapReason) -> None:
        if self._keep_gap(span, reason):  # if not, the next attempt covers it
            self._end = span.end

    def _keep_gap(self, span: Span, reason: GapReason) -> bool:
        try:
            self._recording.spool.add_gap(Gap(span, self._camera.id, reason))
        except DiskError as error:
            self._log.error("gap.not-kept", error=str(error), hint=error.hint)
            return False
        seconds = span.duration.total_seconds()
        telemetry.GAP_SECONDS.labels(camera_id=str(self._camera.id), reason=reason.value).inc(seconds)
        self._log.warning("footage.gap", reason=reason.value, seconds=seconds)
        return True

    def _record(self, stream: CameraStream, stop: Event) -> None:
        with self._lock:
            if self._finished.is_set():
                return
            duet = Duet(stream.info)
            assembly = _Assembly(self, duet.info)
            self._live = duet, assembly
        telemetry.CAMERA_UP.labels(camera_id=str(self._camera.id)).set(1)
        try:
            for packet in stream.packets():
                with self._lock:
                    if self._finished.is_set():
                        return
                    self._count(packet)
                    if packet.keyframe and not packet.lost and not packet.sound:
                        self._recording.look(self._camera.id, stream.info, packet)
                    self._assemble(assembly, duet.add(packet), packet.received_at)
                if stop.is_set():
                    return
        finally:
            with self._lock:
                self._flush()
                self._why = GapReason.RECORDER_DOWN  # unless run() is told another reason before finish()

    def _assemble(self, assembly: _Assembly, groups: Sequence[Group], received_at: datetime) -> None:
        """Keep groups that were whole at ``received_at``. Nobody holds their frames any more after it."""
        for group in groups:
            assembly.add(group)
            waited = self._recording.now() - received_at
            telemetry.DURABLE_SECONDS.observe(max(0.0, waited.total_seconds()))

    def _flush(self) -> None:
        """Make a segment of what is in memory."""
        if self._live is not None:
            (duet, assembly), self._live = self._live, None
            try:
                for group in duet.flush():
                    assembly.add(group)
            finally:
                assembly.close()

    def _count(self, packet: Packet) -> None:
        meters = self._meters
        meters.bytes.inc(len(packet.data))
        if packet.lost:
            meters.lost.inc(packet.lost)
        if packet.sound:
            return
        meters.frames.inc()
        meters.last.set(packet.received_at.timestamp())

    # --- what an assembly needs ---

    def sealed(self, span: Span, movie: bytes) -> tuple[Segment, bytes]:
        key_id = self._recording.key_id(self._camera.id, span.start)
        sealed = seal(movie, recipient=self._recording.keys.recipient(key_id))
        return (
            facts_of(sealed, camera_id=self._camera.id, span=span, sequence=self._sequence, key_id=key_id),
            sealed,
        )

    def begins(self, start: datetime) -> None:
        """Note that footage goes on at ``start``: what is missing before it is a gap."""
        if self._end is not None and start - self._end > SLEW:
            self._add_gap(Span(self._end, start), self._why)

    def lost_packets(self, span: Span) -> None:
        """Note that footage of ``span`` is damaged: it is kept, and said so."""
        self._keep_gap(span, GapReason.PACKET_LOSS)

    def begun(self, start: datetime) -> tuple[Segment, str]:
        """Return a segment that begins, and the recipient it is sealed to."""
        key_id = self._recording.key_id(self._camera.id, start)
        segment = begin(self._camera.id, start, sequence=self._sequence, key_id=key_id)
        return segment, self._recording.keys.recipient(key_id)

    def grow(self, start: datetime) -> Growth:
        begun, recipient = self.begun(start)
        return self._recording.spool.grow(begun, recipient=recipient)

    def keep_group(self, group: Segment, sealed: bytes) -> None:
        self._recording.spool.keep_group(group, sealed)

    def commit(
        self, growth: Growth, span: Span, groups: list[Segment], clock: timedelta | None = None
    ) -> None:
        assert isinstance(growth, GrowingFile)
        self.committed(self._recording.spool.end(growth, span, groups=groups, clock=clock))

    def give_back(self, growth: Growth) -> None:
        """Keep of a segment that can grow no more what was kept of it."""
        growth.close()
        try:
            for segment in self._recording.spool.promote(self._camera.id):
                self.committed(segment)
        except DiskError as error:
            self._log.error("segment.not-ended", error=str(error), hint=error.hint)  # the next start does it

    def committed(self, segment: Segment) -> None:
        self._sequence += 1
        self._end = max(self._end or segment.span.end, segment.span.end)
        self._why = GapReason.STREAM_ERROR  # of a hole before the next segment of this connection
        telemetry.SEGMENTS_SEALED.labels(camera_id=str(self._camera.id)).inc()

    @property
    def recording(self) -> Recording:
        return self._recording

    @property
    def camera(self) -> Camera:
        return self._camera


class _Meters:
    """What is counted of each frame of a camera; looked up once."""

    def __init__(self, camera_id: str) -> None:
        self.frames = telemetry.CAMERA_FRAMES.labels(camera_id=camera_id)
        self.lost = telemetry.CAMERA_LOST_PACKETS.labels(camera_id=camera_id)
        self.bytes = telemetry.CAMERA_BYTES.labels(camera_id=camera_id)
        self.last = telemetry.CAMERA_LAST_FRAME.labels(camera_id=camera_id)


class _Assembly:
    """The segment being recorded, of one connection: it grows in the spool, group by group."""

    def __init__(self, session: CameraSession, info: StreamInfo) -> None:
        self._session = session
        self._info = info
        self._packing: packing.Packing | None = None
        self._growth: Growth | None = None
        self._parameters: tuple[bytes, ...] = ()
        self._timeline = Timeline(max_offset=session.recording.max_clock_offset)
        self._start: datetime | None = None
        self._ticks = 0
        self._groups: list[Segment] = []
        self._clock: timedelta | None = None

    def add(self, group: Group) -> None:
        self._follow_format(group.packets[0])
        if self._packing is None:
            self._packing = packing.choose(self._info, group.packets[0])
        if self._growth is None:
            self._packing.begin()
        pieces = self._packing.pack(group)
        if self._growth is None:
            self._start = self._timeline.place(group, self._info.time_base)
            pieces.insert(1, origin_of(self._session.camera.id, self._start))
            self._session.begins(self._start)
            self._clock = self._measure_offset(group.packets[0])
            self._growth = self._session.grow(self._start)
        assert self._start is not None
        span = Span(self._at(self._ticks), self._at(self._ticks + group.duration))
        with self._growing():
            self._growth.add(pieces)
            self._ticks += group.duration
            if ticks_to_time(self._ticks, self._info.time_base) >= self._session.recording.segment:
                self.close()
            elif sum(map(len, pieces)) >= SMALLEST:
                self._growth.note_end(Span(self._start, span.end))
            else:
                alone = self._packing.alone(group) + origin_of(self._session.camera.id, span.start)
                facts, sealed = self._session.sealed(span, alone)
                self._session.keep_group(facts, sealed)
                self._groups.append(facts)
        if group.damaged is not None:
            lost_at = span.start + ticks_to_time(max(0, group.damaged), self._info.time_base)
            self._session.lost_packets(Span(lost_at, span.end))

    def _follow_format(self, keyframe: Packet) -> None:
        """Begin a new segment, with a header of its own, where the picture changes its format."""
        parameters = parameter_sets(self._info.codec, keyframe.data) or self._parameters
        if self._parameters and parameters != self._parameters:
            self.close()
            self._packing = None
        self._parameters = parameters

    def close(self) -> None:
        """Make a segment of the groups so far."""
        if self._start is None or self._growth is None:
            return
        span = Span(self._start, self._at(self._ticks))
        with self._growing():
            self._session.commit(self._growth, span, self._groups, self._clock)
        self._timeline.ended(span.end)
        self._begin_anew()

    @contextmanager
    def _growing(self) -> Iterator[None]:
        """Go on without the segment where it cannot grow: a full disk, a key that is gone."""
        try:
            yield
        except BaseException:
            growth = self._growth
            self._begin_anew()
            if growth is not None:
                self._session.give_back(growth)
            raise

    def _begin_anew(self) -> None:
        self._start = self._growth = None
        self._ticks, self._groups = 0, []

    def _at(self, ticks: int) -> datetime:
        assert self._start is not None
        return self._start + ticks_to_time(ticks, self._info.time_base)

    def _measure_offset(self, packet: Packet) -> timedelta | None:
        """Return how far the camera's clock lies behind the host's: evidence, believed or not."""
        if packet.claimed_at is None:
            return None
        offset = packet.received_at - packet.claimed_at
        name = str(self._session.camera.id)
        telemetry.CAMERA_CLOCK_OFFSET.labels(camera_id=name).set(offset.total_seconds())
        return offset


def _reason(error: VideostoreError) -> GapReason:
    match error:
        case CameraStreamInvalid():
            return GapReason.STREAM_ERROR
        case DiskError():
            return GapReason.SPOOL_OVERRUN
        case KeyringError():
            return GapReason.RECORDER_DOWN
        case CameraUnreachable() | _:
            return GapReason.CAMERA_UNREACHABLE


def _pause(failures: int) -> float:
    """Exponential, with full jitter, so that cameras of one switch do not return in step. Seconds."""
    ceiling = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(failures, 10))
    return random.uniform(_FIRST_PAUSE / 2, ceiling)  # noqa: S311 - no secret
