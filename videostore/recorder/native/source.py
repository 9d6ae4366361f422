"""Port CameraSource over TCP and TLS: opens a stream, then leaves it to the loop.

Its packets are handed over a group at a time, so that the thread which seals and writes them wakes seldom.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock
from typing import TypeAlias
from urllib.parse import urlsplit

from videostore.domain.camera import Camera
from videostore.domain.errors import CameraStreamInvalid, CameraUnreachable, VideostoreError
from videostore.ports import Packet, StreamInfo
from videostore.recorder.knock import reach
from videostore.recorder.native import parameters, rtcp, rtsp, sdp
from videostore.recorder.native.connection import Connection
from videostore.recorder.native.feed import Feed
from videostore.recorder.native.frames import Doubt, Frame, H264Frames, H265Frames
from videostore.recorder.native.loop import Loop, arrival
from videostore.recorder.native.sound import heard

_CODECS = {"H264": ("h264", H264Frames), "H265": ("hevc", H265Frames)}
_SETS = {"h264": ("sprop-parameter-sets",), "hevc": ("sprop-vps", "sprop-sps", "sprop-pps")}
_OPENING = timedelta(seconds=10)
_REDIRECTS = 3
_REPORT = 5.0  # seconds between receiver reports (RFC 3550, 6.2: five at least)
_PATIENCE = 10.0  # seconds beyond the stall after which the loop itself is in question
_HAND_OVER = 1.0  # seconds a frame waits at most; to wake a thread is not cheap
_MOST_WAITING = 32 * 1024 * 1024
"""Bytes of frames that nobody took: beyond it the camera has to wait, which TCP tells it."""
_MOST_SKIPPED = 64 * 1024
"""Bytes between packets that are no packets: beyond it this is not understood."""

_Batch: TypeAlias = list[Packet] | BaseException


class NativeSource:
    """Opens what it understands; raises Doubt if libav is to try. ``stall`` is the silence after which a
    camera counts as gone, ``root`` the directory that a camera's files are relative to."""

    def __init__(self, *, stall: timedelta, now: Callable[[], datetime], root: Path) -> None:
        self._stall = stall
        self._root = root
        self._now = now
        self._loop = Loop(now=now)

    def open(
        self,
        camera: Camera,
        credentials: tuple[str, str] | None,
        *,
        doubted: Callable[[str], None] = lambda _: None,
    ) -> NativeStream:
        """``doubted`` is told the reason, should a doubt come up while the stream runs."""
        for _ in range(_REDIRECTS):
            connection = Connection(
                reach(camera, root=self._root),
                camera.url,
                credentials,
                patience=_OPENING.total_seconds(),
            )
            try:
                knows = connection.ask("OPTIONS", camera.url).header("public")
                said = connection.ask("DESCRIBE", camera.url, {"Accept": "application/sdp"})
                if said.status < 300:
                    stream = NativeStream(self._loop, connection, camera, self._stall, self._now(), doubted)
                    stream.begin(said, keepalive="GET_PARAMETER" if "GET_PARAMETER" in knows else "OPTIONS")
                    return stream
                camera, credentials = _redirected(camera, credentials, said.header("location"))
            except BaseException:
                connection.hang_up(camera.url)
                raise
            connection.hang_up(camera.url)
        raise CameraStreamInvalid(f"{camera.url} sends us in circles", hint="Give the URL it leads to.")


def _redirected(
    camera: Camera, credentials: tuple[str, str] | None, to: str
) -> tuple[Camera, tuple[str, str] | None]:
    """Return where the camera sends us. A password is not taken to another host, nor out of TLS."""
    here, there = urlsplit(camera.url), urlsplit(to)
    if there.scheme not in {"rtsp", "rtsps"} or (here.scheme == "rtsps" and there.scheme == "rtsp"):
        raise CameraStreamInvalid(
            f"{camera.url} sends us elsewhere", hint="Give the URL of the stream itself."
        )
    try:
        elsewhere = replace(camera, url=to)
    except VideostoreError as error:
        raise CameraStreamInvalid(f"{camera.url} sends us to no RTSP URL") from error
    return elsewhere, credentials if there.hostname == here.hostname else None


class NativeStream:
    """Port CameraStream. ``begin`` waits for the camera; then the loop calls, and ``packets`` hands on."""

    info: StreamInfo

    def __init__(
        self,
        loop: Loop,
        connection: Connection,
        camera: Camera,
        stall: timedelta,
        now: datetime,
        doubted: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._connection = connection
        self._url = camera.url
        self._control = camera.url
        self._listens = camera.sound
        self._stall = stall.total_seconds()
        self._doubted = doubted
        self._lock = Lock()  # of the connection, between the loop and close()
        self._closed = False
        self._batches: SimpleQueue[_Batch] = SimpleQueue()
        self._batch: list[Packet] = []
        self._put_bytes = self._taken_bytes = 0
        self._since = self._read_at = now
        self._first: int | None = None  # time stamp of the first frame of a read
        self._behind = False  # what comes next to be read may have come before
        self._ours = secrets.randbits(32)
        self._feeds: list[Feed] = []  # the picture, and maybe its sound
        self._due = False  # a group is whole
        self._handed = self._framed = self._spoke = self._told = time.monotonic()
        self._keepalive = 30.0

    # --- opening ---

    def begin(self, described: rtsp.Message, *, keepalive: str) -> None:
        """Set the stream up and have it played."""
        self._keepalive_method = keepalive
        base = described.header("content-base") or described.header("content-location") or self._url
        description = sdp.parse(described.body.decode("utf-8", "replace"), base=base)
        media = _video(description)
        sound = heard(description.media) if self._listens else None
        self._control = description.control
        codec, frames = _CODECS[media.encoding]
        self._set_up(Feed(media, frames(lambda frame: self._framed_one(self._feeds[0], frame))))
        if sound is not None:
            self._set_up(Feed(sound.media, sound.units(lambda unit: self._heard_one(self._feeds[1], unit))))
        self._connection.ask("PLAY", self._control, {"Range": "npt=0.000-"})
        self.info = replace(self._describe(codec, media), sound=sound.info if sound else None)
        self._handed = self._framed = self._spoke = time.monotonic()
        self._connection.go_live()
        self._loop.add(self)

    def _set_up(self, feed: Feed) -> None:
        ours = 2 * len(self._feeds)
        transport = f"RTP/AVP/TCP;unicast;interleaved={ours}-{ours + 1}"
        answer = self._connection.ask("SETUP", feed.media.control, {"Transport": transport})
        channels = rtsp.channels(answer)
        if channels is None or not self._connection.free(*channels):
            raise Doubt("transport")
        if not self._connection.session:
            self._connection.session, seconds = rtsp.session(answer)
            self._keepalive = max(1.0, min(30.0, seconds / 2))
        self._feeds.append(feed)
        self._connection.listen(channels[0], feed.receiver.packets, feed.keep)
        self._connection.listen(channels[1], lambda *packet: self._heard_report(feed, *packet))
        feed.report_channel = channels[1]

    def _describe(self, codec: str, media: sdp.Media) -> StreamInfo:
        """By the parameter sets of the description, else by those of the first keyframe."""
        sets = _sprop(media, _SETS[codec])
        while not sets:
            first = next((packet for packet in self._batch if not packet.sound), None)
            if first is not None and first.keyframe:
                sets = parameters.sets(codec, first.data)
                if not sets:
                    raise Doubt("no-parameter-sets")
            else:
                self._batch.clear()
                self._connection.wait()
        wanted = parameters.SETS[codec][-2]
        sps = next((one for one in sets if parameters.kind(codec, one) == wanted), b"")
        try:
            picture = parameters.picture(codec, sps)
        except parameters.Unreadable as error:
            raise Doubt("parameter-sets") from error
        extradata = b"".join(b"\x00\x00\x00\x01" + one for one in sets)
        return StreamInfo(codec, picture.width, picture.height, Fraction(1, media.clock_hz), extradata)

    # --- what the loop calls ---

    def fileno(self) -> int:
        return self._connection.fileno()

    def readable(self, buffer: memoryview, since: datetime, now: datetime) -> None:
        with self._lock:
            if self._closed:
                return
            if not self._behind:
                self._since, self._first = max(since, self._since), None
            if self._put_bytes - self._taken_bytes > _MOST_WAITING:
                self._behind = True
                return
            self._read_at = now
            try:
                there = self._connection.read(buffer)
                self._behind = self._connection.full
                if not there:
                    self._fail(self._gone("ended its stream"))
                elif self._connection.broken:
                    self._fail(self._gone(f"ended its stream: {self._connection.broken}"))
                elif self._connection.skipped > _MOST_SKIPPED:
                    raise Doubt("framing")  # noqa: TRY301 - told where all others are
            except Doubt as doubt:
                self._doubted(doubt.reason)
                self._fail(CameraStreamInvalid(f"{self._url} is not understood: {doubt.reason}"))
            except OSError as error:
                self._fail(self._gone(f"hung up: {error}"))
            except Exception as error:  # noqa: BLE001 - one camera never ends the loop
                self._fail(error)

    def rest(self, monotonic: float) -> None:
        with self._lock:
            if self._due and not self._closed:
                self._hand_over(monotonic)

    def look_after(self, monotonic: float) -> None:
        with self._lock:
            if self._closed:
                return
            if self._batch and monotonic - self._handed >= _HAND_OVER:
                self._hand_over(monotonic)
            if self._put_bytes - self._taken_bytes > _MOST_WAITING:
                self._framed = monotonic  # it is not the camera that is late
            elif monotonic - self._framed > self._stall:
                self._fail(self._gone(f"sent no frame for {self._stall:.0f} s"))
                return
            try:
                if monotonic - self._spoke >= self._keepalive:
                    self._spoke = monotonic
                    self._connection.say(self._keepalive_method, self._control)
                if monotonic - self._told >= _REPORT:
                    self._told = monotonic
                    for feed in self._feeds:
                        self._connection.send(feed.report(self._ours, monotonic))
            except OSError as error:
                self._fail(self._gone(f"hung up: {error}"))

    # --- what the connection calls ---

    def _framed_one(self, feed: Feed, frame: Frame) -> None:
        at = frame.timestamp
        self._first = at if self._first is None else self._first
        arrived_at = arrival(self._since, self._read_at, (at - self._first) / feed.media.clock_hz)
        self._batch.append(
            Packet(
                frame.data,
                at,
                frame.keyframe,
                arrived_at,
                feed.claimed(at),
                frame.lost,
                units=frame.units,
            )
        )
        self._framed = time.monotonic()
        self._due = self._due or frame.keyframe

    def _heard_one(self, feed: Feed, unit: Frame) -> None:
        """What was lost is counted, and becomes silence: nothing is missing of the picture."""
        at = unit.timestamp
        self._batch.append(Packet(unit.data, at, True, self._since, feed.claimed(at), unit.lost, sound=True))

    def _heard_report(self, feed: Feed, data: memoryview, start: int, end: int) -> int:
        for one in rtcp.parse(bytes(data[start:end])):
            if isinstance(one, rtcp.SenderReport):
                feed.told(one)
            elif feed is self._feeds[0]:
                self._connection.broken = "it says goodbye"
        return end

    def _hand_over(self, monotonic: float) -> None:
        self._handed, self._due = monotonic, False
        self._put_bytes += sum(len(packet.data) for packet in self._batch)
        self._batches.put(self._batch)
        self._batch = []

    def _fail(self, error: BaseException) -> None:
        """Hand over what came, then the error; read no more. The file is closed by ``close``."""
        self._closed = True
        self._loop.remove(self)
        self._hand_over(time.monotonic())
        self._batches.put(error)

    def _gone(self, what: str) -> CameraUnreachable:
        return CameraUnreachable(f"{self._url} {what}", hint="The recorder connects again by itself.")

    # --- what the recorder calls ---

    def __enter__(self) -> NativeStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def packets(self) -> Iterator[Packet]:
        while True:
            try:
                batch = self._batches.get(timeout=self._stall + _PATIENCE)
            except Empty:
                raise self._gone("is not read any more") from None
            if isinstance(batch, BaseException):
                raise batch
            batch.reverse()
            while batch:
                self._taken_bytes += len(batch[-1].data)
                yield batch.pop()  # which the generator does not hold: a group is let go of once it is kept

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                self._loop.remove(self)
        self._connection.hang_up(self._control)


def _video(description: sdp.Description) -> sdp.Media:
    """Return the stream to record: the first of video. Raises Doubt if it is not one for us."""
    found = next((one for one in description.media if one.kind == "video"), None)
    if found is None:
        raise Doubt("no-video")
    if found.encoding not in _CODECS:
        raise Doubt("codec")
    if found.profile not in sdp.PROFILES:
        raise Doubt("profile")
    donl = found.parameters.get("sprop-max-don-diff", "0") or "0"
    if found.clock_hz <= 0 or found.parameters.get("packetization-mode") == "2" or donl != "0":
        raise Doubt("packetization-mode")
    return found


def _sprop(media: sdp.Media, names: tuple[str, ...]) -> list[bytes]:
    """Return the parameter sets of a description, empty unless all are there."""
    sets: list[bytes] = []
    for name in names:
        text = media.parameters.get(name, "")
        try:
            found = [base64.b64decode(part, validate=True) for part in text.split(",") if part]
        except (binascii.Error, ValueError):
            return []
        if not found:
            return []
        sets += [one for one in found if one]
    kinds = {parameters.kind(_CODECS[media.encoding][0], one) for one in sets}
    return sets if kinds >= set(parameters.SETS[_CODECS[media.encoding][0]]) else []
