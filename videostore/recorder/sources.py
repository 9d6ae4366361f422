"""RTSP cameras, by libav (FFmpeg's libraries): RTP over TCP, TLS or UDP, basic and digest authentication.

The wall clock of a frame comes from the camera's RTCP sender reports; libav hands it out as side data
(``AVProducerReferenceTime``: microseconds since the Unix epoch).
"""

from __future__ import annotations

import logging
import re
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import av
import av.audio
import av.container
import av.error
import av.logging

from videostore.domain.camera import Camera, Transport, redact
from videostore.domain.errors import (
    CameraError,
    CameraRefused,
    CameraStreamInvalid,
    CameraUnreachable,
)
from videostore.domain.segment import EPOCH, MICROSECOND
from videostore.ports import Packet, SoundInfo, StreamInfo
from videostore.recorder.aac import can_be_kept, config
from videostore.recorder.knock import knock

CODECS = frozenset({"h264", "hevc", "mjpeg"})
_OPENING = timedelta(seconds=10)
_AT_ONCE = {"probesize": "32"}
"""Believe the SDP: frames are handed out as they arrive, the first keyframe among them."""
_LOOK_FIRST = {"analyzeduration": "1000000"}
"""For cameras whose SDP says too little: look at a second of the stream before handing it out."""

_A_DAY = 86_400.0
"""Seconds; a step of time stamps beyond it says nothing."""
_WANTED = {False: "video", True: "video+audio"}
"""By ``Camera.sound``: what is not wanted is not asked for."""
_IN_ORDER = {"reorder_queue_size": "2"}
"""Over TCP libav does not look at sequence numbers unless it may reorder."""

av.logging.set_level(av.logging.WARNING)
av.logging.set_skip_repeated(False)
logging.getLogger("libav").addHandler(logging.NullHandler())
logging.getLogger("libav").propagate = False


class RtspSource:
    """Port CameraSource. ``stall`` is the silence after which a camera counts as gone, ``root`` the directory
    that a camera's files are relative to."""

    def __init__(self, *, stall: timedelta, now: Callable[[], datetime], root: Path) -> None:
        self._stall = stall
        self._now = now
        self._root = root

    def open(self, camera: Camera, credentials: tuple[str, str] | None) -> RtspStream:
        with knock(camera, root=self._root) as trust:
            options = {
                "rtsp_transport": camera.transport.value,
                "allowed_media_types": _WANTED[camera.sound],
                **trust,
            }
            if camera.transport is Transport.TCP:
                options |= _IN_ORDER
            began = time.monotonic()
            try:
                return self._open(camera.url, credentials, {**options, **_AT_ONCE})
            except CameraStreamInvalid as error:
                if time.monotonic() - began >= _OPENING.total_seconds():  # libav calls a silence invalid data
                    raise CameraUnreachable(
                        f"{camera.url} does not say what it sends", hint="Restart the camera."
                    ) from error
                return self._open(camera.url, credentials, {**options, **_LOOK_FIRST})

    def _open(self, url: str, credentials: tuple[str, str] | None, options: Mapping[str, str]) -> RtspStream:
        with _translated(url), av.logging.Capture(local=True) as said:
            container = av.open(
                _with_credentials(url, credentials),
                options=dict(options),
                timeout=(_OPENING.total_seconds(), self._stall.total_seconds()),
            )
        try:
            return RtspStream(container, url, self._now, stall=self._stall, lost=_lost(said))
        except CameraError:
            container.close()
            raise


class RtspStream:
    """Port CameraStream; a context manager."""

    def __init__(
        self,
        container: av.container.InputContainer,
        url: str,
        now: Callable[[], datetime],
        *,
        stall: timedelta,
        lost: int,
    ) -> None:
        """``lost`` is how many packets were missed while it was opened: it waits for both tracks."""
        videos = container.streams.video
        if not videos:
            raise CameraStreamInvalid(f"{url} sends no video", hint="Choose another stream of the camera.")
        self._container, self._stream, self._url, self._now = container, videos[0], url, now
        self._stall, self._lost = stall, lost
        context = self._stream.codec_context
        if context.name not in CODECS:
            raise CameraStreamInvalid(
                f"{url} sends {context.name}, which cannot be recorded",
                hint="Set the camera to H.264, H.265 or MJPEG.",
            )
        if not context.width or self._stream.time_base is None:
            raise CameraStreamInvalid(
                f"{url} sends a stream that cannot be read", hint="Set the camera to H.264, or restart it."
            )
        self._sound = next((one for one in container.streams.audio if sound_of(one)), None)
        self.info = StreamInfo(
            codec=context.name,
            width_px=context.width,
            height_px=context.height,
            time_base=Fraction(self._stream.time_base),
            extradata=bytes(context.extradata or b""),
            sound=sound_of(self._sound) if self._sound else None,
        )

    def __enter__(self) -> RtspStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._container.close()

    def packets(self) -> Iterator[Packet]:
        steady, lost, pts, heard = _Steady(self.info.time_base), self._lost, None, 0
        wanted = [self._stream, self._sound] if self._sound else [self._stream]
        seen = self._now()
        with _translated(self._url), av.logging.Capture(local=True) as said:
            for packet, at in _Arrivals(self._now).each(self._container.demux(wanted)):
                if not packet.size:
                    break
                claimed = _claimed(packet)
                lost += _lost(said)  # of which track is not said: the picture bears it
                if packet.stream is self._sound:
                    if at - seen > self._stall:
                        break  # it is heard, and not seen
                    heard = heard if packet.pts is None else packet.pts
                    yield Packet(bytes(packet), heard, True, at, claimed, sound=True)
                    heard += packet.duration or 0  # further units of one RTP packet have no time of their own
                    continue
                seen = at
                if packet.pts is None and pts is not None:
                    continue  # nothing says when it was: the cutter sees the hole
                pts = packet.pts or 0  # libav gives the very first packet no time: it is time zero
                shown = steady.follow(pts, claimed) if self._sound else pts
                yield Packet(bytes(packet), shown, packet.is_keyframe, at, claimed, lost)
                lost = 0
        raise CameraUnreachable(
            f"{self._url} ended its stream", hint="The recorder connects again by itself."
        )


class _Arrivals:
    """When packets were there, which may be before they are read: who reads may be held up, by a disk or a
    busy host. A packet may have come earlier by as long as nobody read, and did if its time stamp says so."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._unread_s = 0.0
        self._latest: dict[
            int, tuple[datetime, float]
        ] = {}  # of each track: arrival, and time stamp, seconds

    def each(self, packets: Iterator[av.Packet[Any]]) -> Iterator[tuple[av.Packet[Any], datetime]]:
        """Yield them, each with when it was there at the latest."""
        left = time.monotonic()
        while True:
            asked = time.monotonic()
            packet = next(packets, None)
            if packet is None:
                return
            came = time.monotonic()
            self._unread_s = max(0.0, self._unread_s + (asked - left) - (came - asked))
            yield packet, self._arrived(packet)
            left = came

    def _arrived(self, packet: av.Packet[Any]) -> datetime:
        at, track = self._now(), packet.stream_index
        if packet.pts is None or packet.time_base is None:
            return at
        stamp_s = float(packet.pts * packet.time_base)
        before, latest_s = self._latest.get(track, (at, stamp_s))
        said = before + timedelta(seconds=min(_A_DAY, max(0.0, stamp_s - latest_s)))
        at = max(at - timedelta(seconds=self._unread_s), min(at, said))
        if stamp_s >= latest_s:
            self._latest[track] = at, stamp_s
        return at


class _Steady:
    """The picture's time stamps where there is sound. From its first sender report on libav counts from the
    first report of any track, which is a step, and by the camera's wall clock, as this does without one."""

    def __init__(self, time_base: Fraction) -> None:
        self._time_base = time_base
        self._reported: tuple[int, datetime] | None = None
        self._last: list[int] = []

    def follow(self, pts: int, claimed: datetime | None) -> int:
        if claimed is None:
            shown = pts
        elif self._reported is None:
            shown = self._last[-1] + max(0, self._last[-1] - self._last[0]) if self._last else pts
            self._reported = shown, claimed
        else:
            since, clock = self._reported
            shown = since + round((claimed - clock) / timedelta(seconds=1) / self._time_base)
        self._last = [*self._last[-1:], shown]
        return shown


def sound_of(stream: av.audio.stream.AudioStream) -> SoundInfo | None:
    """Return what the sound of a camera or file is, None if it cannot be recorded."""
    context = stream.codec_context
    if stream.time_base is None:
        return None
    sound = SoundInfo(
        context.name,
        context.sample_rate,
        context.channels,
        Fraction(stream.time_base),
        bytes(context.extradata or b"") or config(context),
    )
    return sound if can_be_kept(sound) else None


def _lost(said: list[tuple[int, str, str]]) -> int:
    """Return how many RTP packets libav missed. Its log, of this thread alone, is where it says so."""
    found = [_MISSED.match(message) for _, _, message in said]
    said.clear()
    return sum(int(match[1]) for match in found if match)


_MISSED = re.compile(r"RTP: missed (\d+) packets")


def _claimed(packet: av.Packet[Any]) -> datetime | None:
    if not packet.has_sidedata("prft"):
        return None
    (wall_us,) = struct.unpack_from("<q", bytes(packet.get_sidedata("prft")))
    try:
        return EPOCH + int(wall_us) * MICROSECOND
    except OverflowError:
        return None


class _translated:  # noqa: N801 - reads as a phrase
    """Turns libav's errors into ours. libav names URLs with their password: nothing of them is kept."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if not isinstance(error, av.error.FFmpegError | OSError):
            return
        reason = redact(error.strerror or type(error).__name__)
        match error:
            case av.error.HTTPUnauthorizedError() | av.error.HTTPForbiddenError():
                raise CameraRefused(
                    f"{self._url} refuses the user or password",
                    hint="Put user:password in a file and name it with --credentials-file.",
                ) from None
            case av.error.HTTPClientError():
                raise CameraStreamInvalid(
                    f"{self._url} has no such stream: {reason}",
                    hint="Look up the path in the camera's manual.",
                ) from None
            case av.error.InvalidDataError() | av.error.ProtocolNotFoundError():
                raise CameraStreamInvalid(
                    f"{self._url} sends what cannot be read: {reason}", hint="Set the camera to H.264."
                ) from None
            case _:
                raise CameraUnreachable(
                    f"{self._url} does not answer: {reason}",
                    hint="Check address, port, cable and that the camera is on.",
                ) from None


def _with_credentials(url: str, credentials: tuple[str, str] | None) -> str:
    if credentials is None:
        return url
    user, password = (quote(part, safe="") for part in credentials)
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.netloc}"))
