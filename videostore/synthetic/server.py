"""A small RTSP server: RTP over TCP, TLS or UDP, RTCP sender reports, basic and digest authentication.

Sources: RFC 2326 (RTSP 1.0), RFC 3550 (RTP, RTCP), RFC 7616 (digest), RFC 7617 (basic). For tests and the
demonstration; what real cameras do wrong can be switched on while it runs.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import random
import re
import secrets
import struct
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from ssl import SSLContext
from threading import Event, Thread

from videostore.synthetic.rtp import (
    CLOCK_HZ,
    NTP_EPOCH,
    PAYLOAD_TYPES,
    payloads,
    sdp,
    sender_report,
    sound_payload,
)
from videostore.synthetic.stream import FRAME_RATE, GOP, Stream
from videostore.synthetic.tone import Tone

_REPORT_SECONDS = 1.0
_REALM = "synthetic camera"


@dataclass(slots=True)
class SyntheticCamera:
    """One camera of the server, and what is wrong with it.

    ``clock_offset_seconds`` is added to the wall clock of its sender reports; ``silent`` keeps the
    connection but sends nothing, ``blind`` it sends no picture; ``away`` refuses new connections and hangs up
    on the present ones; ``hangs`` names an RTSP method it never answers. ``loss`` is the share of RTP packets
    that never arrive, ``sound_loss`` that of the sound alone; ``jump_seconds`` is added to the RTP time
    stamps; with ``mid_gop`` it does not wait for a keyframe to begin. ``stream`` may be exchanged while it
    runs. Without ``describes`` its SDP has no parameter sets, as with many cameras. With a ``tone`` it hears,
    too: the beeps go with a picture of ``LOOP_SECONDS``.
    ``sent`` is what it sent: ``(number of the picture in the loop, Unix time of capture)``; ``heard`` counts
    the packets of sound; ``asked`` is every method of RTSP it answered.
    """

    path: str
    stream: Stream
    user: str = ""
    password: str = ""
    clock_offset_seconds: float = 0.0
    silent: bool = False
    blind: bool = False
    away: bool = False
    reports: bool = True
    describes: bool = True
    basic: bool = False
    hangs: str = ""
    loss: float = 0.0
    sound_loss: float = 0.0
    jump_seconds: float = 0.0
    mid_gop: bool = False
    tone: Tone | None = None
    heard: int = 0
    asked: list[str] = field(default_factory=list)
    sent: list[tuple[int, float]] = field(default_factory=list)


class SyntheticServer:
    """Serves ``cameras`` from a thread; a context manager. Port 0 takes a free one; ``tls`` is for RTSPS."""

    def __init__(
        self,
        cameras: Sequence[SyntheticCamera],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: SSLContext | None = None,
    ) -> None:
        self.cameras = {camera.path: camera for camera in cameras}
        self.host, self.port = host, port
        self._tls = tls
        self._nonce = secrets.token_hex(16)
        self._started = Event()
        self._failure: BaseException | None = None
        self._thread = Thread(target=self._run, name="synthetic cameras", daemon=True)

    def url(self, path: str) -> str:
        return f"{'rtsps' if self._tls else 'rtsp'}://{self.host}:{self.port}/{path}"

    def __enter__(self) -> SyntheticServer:
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._epoch = time.time()
        self._clients: set[asyncio.Task[None]] = set()
        try:
            server = await asyncio.start_server(self._accept, self.host, self.port, ssl=self._tls)
            self.port = server.sockets[0].getsockname()[1]
        except OSError as error:
            self._failure = error
            return
        finally:
            self._started.set()
        await self._stop.wait()
        # Nobody more is let in first: asyncio loses the socket of whom it lets in while its server closes.
        for listener in server.sockets:
            self._loop.remove_reader(listener)
        while asyncio.all_tasks() - {asyncio.current_task()}:
            self._send_away()
            await asyncio.sleep(0)
        server.close()
        self._send_away()
        await asyncio.sleep(0)  # what was told to close does so in the next round

    def _send_away(self) -> None:
        """Only the loop knows of a client that has not agreed on TLS yet, or does not end it."""
        for client in self._clients:
            client.cancel()
        for transport in list(getattr(self._loop, "_transports", {}).values()):
            transport.abort()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._talk(reader, writer))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(
                asyncio.CancelledError,
                ConnectionError,
                asyncio.IncompleteReadError,
                asyncio.LimitOverrunError,
            ):
                await _Connection(self, reader, writer).serve()
        finally:
            writer.close()

    def frame_at(self, number: int) -> float:
        """Return the Unix time at which frame ``number`` since the start is due."""
        return self._epoch + number / FRAME_RATE

    def heard_at(self, sample: int, rate_hz: int) -> float:
        """Return the Unix time at which ``sample`` since the start is heard."""
        return self._epoch + sample / rate_hz

    def next_frame(self) -> int:
        return int((time.time() - self._epoch) * FRAME_RATE) + 1

    def authorised(self, camera: SyntheticCamera, method: str, header: str) -> bool:
        """Check a basic answer, or a digest (MD5 without qop, as cameras use it)."""
        if not camera.user:
            return True
        if camera.basic:
            login = base64.b64encode(f"{camera.user}:{camera.password}".encode()).decode()
            return hmac.compare_digest(header.encode(), f"Basic {login}".encode())
        given = dict(re.findall(r'(\w+)="?([^",]*)"?', header.partition("Digest ")[2]))
        secret = _md5(f"{camera.user}:{_REALM}:{camera.password}")
        request = _md5(f"{method}:{given.get('uri', '')}")
        expected = _md5(f"{secret}:{self._nonce}:{request}")
        return given.get("username") == camera.user and hmac.compare_digest(
            given.get("response", ""), expected
        )

    def challenge(self, camera: SyntheticCamera) -> str:
        if camera.basic:
            return f'Basic realm="{_REALM}"'
        return f'Digest realm="{_REALM}", nonce="{self._nonce}"'


class _Loss:
    """Chance, but of twice as many packets as hold a lost one by their share one is: where few are sent, none
    might be lost for seconds. Nor are two in a row: with two packets of AAC most of a beep would be gone."""

    def __init__(self) -> None:
        self._since = 0

    def __call__(self, share: float) -> bool:
        self._since += 1
        by_chance = random.random() < share and self._since > 1  # noqa: S311 - no secret
        lost = by_chance or self._since * share >= 2
        self._since = 0 if lost else self._since
        return lost


class _Connection:
    def __init__(
        self, server: SyntheticServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._channels: dict[int, int] = {}  # by track: 0 the picture, 1 the sound
        self._datagrams: dict[int, list[tuple[asyncio.DatagramTransport, tuple[str, int]]]] = {}

    async def serve(self) -> None:
        playing: list[asyncio.Task[None]] = []
        try:
            while True:
                request = await self._request()
                if request is None:
                    return
                method, path, track, headers = request
                camera = self._server.cameras.get(path)
                if camera is None or camera.away:
                    self._reply(headers, "404 Not Found")
                    continue
                if not self._server.authorised(camera, method, headers.get("authorization", "")):
                    self._reply(
                        headers, "401 Unauthorized", **{"WWW-Authenticate": self._server.challenge(camera)}
                    )
                    continue
                if method == camera.hangs:
                    await asyncio.sleep(3600)
                camera.asked.append(method)
                await self._answer(method, camera, track, headers)
                if method == "PLAY":
                    playing += [asyncio.create_task(track) for track in self._tracks(camera)]
                elif method == "TEARDOWN":
                    return
        finally:
            for task in playing:
                task.cancel()
                with suppress(asyncio.CancelledError, ConnectionError):
                    await task
            for transport, _ in chain.from_iterable(self._datagrams.values()):
                transport.close()

    async def _request(self) -> tuple[str, str, int, dict[str, str]] | None:
        while True:
            first = await self._reader.readexactly(1)
            if first != b"$":
                break
            await self._reader.readexactly(int.from_bytes((await self._reader.readexactly(3))[1:], "big"))
        lines = (first + await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        words = lines[0].split()
        if len(words) != 3 or not words[2].startswith("RTSP/"):
            return None
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (x.partition(":") for x in lines[1:])
        }
        if length := int(headers.get("content-length", 0)):
            await self._reader.readexactly(length)
        path, _, track = re.sub(r"^rtsps?://[^/]*/?", "", words[1]).partition("/trackID=")
        return words[0], path.strip("/"), int(track or 0), headers

    async def _answer(
        self, method: str, camera: SyntheticCamera, track: int, headers: dict[str, str]
    ) -> None:
        match method:
            case "OPTIONS":
                self._reply(headers, Public="OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER")
            case "DESCRIBE":
                body = sdp(camera.stream, camera.tone, parameters=camera.describes)
                self._reply(headers, body=body, **{"Content-Type": "application/sdp"})
            case "SETUP":
                transport = await self._set_up(headers["transport"], track)
                self._reply(headers, Session="1;timeout=60", Transport=transport)
            case "PLAY" | "TEARDOWN" | "GET_PARAMETER":
                self._reply(headers, Session="1", Range="npt=now-")
            case _:
                self._reply(headers, "501 Not Implemented")

    async def _set_up(self, wanted: str, track: int) -> str:
        if "RTP/AVP/TCP" in wanted:
            channels = re.search(r"interleaved=(\d+)-", wanted)
            self._channels[track] = channel = int(channels[1]) if channels else 2 * track
            return f"RTP/AVP/TCP;unicast;interleaved={channel}-{channel + 1}"
        host = self._writer.get_extra_info("peername")[0]
        ports = re.search(r"client_port=(\d+)-(\d+)", wanted)
        assert ports is not None
        loop = asyncio.get_running_loop()
        for port in ports.groups():
            transport, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, local_addr=(self._server.host, 0)
            )
            self._datagrams.setdefault(track, []).append((transport, (host, int(port))))
        ours = "-".join(str(one.get_extra_info("sockname")[1]) for one, _ in self._datagrams[track])
        return f"{wanted.split(',')[0]};server_port={ours}"

    def _reply(
        self, request: dict[str, str], status: str = "200 OK", *, body: str = "", **headers: str
    ) -> None:
        fields = {"CSeq": request.get("cseq", "0"), **headers}
        if body:
            fields["Content-Length"] = str(len(body))
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._writer.write(f"RTSP/1.0 {status}\r\n{head}\r\n{body}".encode())

    def _tracks(self, camera: SyntheticCamera) -> Iterator[Coroutine[None, None, None]]:
        yield self._play(camera)
        if camera.tone is not None and 1 in self._channels | self._datagrams:
            yield self._sound(camera, camera.tone)

    async def _play(self, camera: SyntheticCamera) -> None:
        ssrc, sequence = secrets.randbits(32), secrets.randbits(16)
        offset = secrets.randbits(31)
        is_lost = _Loss()
        packets = octets = 0
        report_at = 0.0
        at = self._server.next_frame()
        if not camera.mid_gop:
            at += -at % GOP
        while not camera.away:
            stream = camera.stream
            frames, numbers = stream.frames, stream.numbers
            place = at % len(frames)
            delay = max(number - index for index, number in enumerate(numbers)) / FRAME_RATE
            shown = at - place + numbers[place]
            due = self._server.frame_at(at) + delay
            await asyncio.sleep(max(0.0, due - time.time()))
            at += 1
            if camera.silent or camera.blind:
                continue
            captured = self._server.frame_at(shown)
            jump = int(camera.jump_seconds * CLOCK_HZ)
            timestamp = (offset + jump + shown * CLOCK_HZ // FRAME_RATE) % 2**32
            if camera.reports and due >= report_at:
                wall = captured + camera.clock_offset_seconds + NTP_EPOCH
                self._send(0, 1, sender_report(ssrc, wall, timestamp, packets, octets))
                report_at = due + _REPORT_SECONDS
            for payload, last in payloads(stream, frames[place]):
                mark = 0x80 if last else 0
                kind = PAYLOAD_TYPES[stream.codec]
                head = struct.pack(">BBHII", 0x80, mark | kind, sequence, timestamp, ssrc)
                if not is_lost(camera.loss):
                    self._send(0, 0, head + payload)
                sequence = (sequence + 1) % 2**16
                packets, octets = packets + 1, octets + len(payload)
            camera.sent.append((numbers[place], captured))
            await self._writer.drain()
        self._writer.close()

    async def _sound(self, camera: SyntheticCamera, tone: Tone) -> None:
        """Send what is heard, each packet when its last sample was. Time stamps count samples."""
        ssrc, sequence = secrets.randbits(32), secrets.randbits(16)
        offset = secrets.randbits(31)
        is_lost = _Loss()
        packets = octets = 0
        report_at = 0.0
        at = int((time.time() - self._server.heard_at(0, tone.rate_hz)) * tone.rate_hz / tone.samples)
        while not camera.away:
            captured = self._server.heard_at(at * tone.samples, tone.rate_hz)
            due = self._server.heard_at((at + 1) * tone.samples, tone.rate_hz)
            await asyncio.sleep(max(0.0, due - time.time()))
            unit = tone.units[at % len(tone.units)]
            jump = int(camera.jump_seconds * tone.rate_hz)
            timestamp = (offset + jump + at * tone.samples) % 2**32
            at += 1
            if camera.silent:
                continue
            if camera.reports and due >= report_at:
                wall = captured + camera.clock_offset_seconds + NTP_EPOCH
                self._send(1, 1, sender_report(ssrc, wall, timestamp, packets, octets))
                report_at = due + _REPORT_SECONDS
            head = struct.pack(">BBHII", 0x80, 0x80 | PAYLOAD_TYPES[tone.codec], sequence, timestamp, ssrc)
            if not is_lost(max(camera.loss, camera.sound_loss)):
                self._send(1, 0, head + sound_payload(tone, unit))
            sequence = (sequence + 1) % 2**16
            packets, octets = packets + 1, octets + len(unit)
            camera.heard += 1
            await self._writer.drain()

    def _send(self, track: int, channel: int, packet: bytes) -> None:
        if self._datagrams:
            transport, address = self._datagrams[track][channel]
            transport.sendto(packet, address)
        else:
            head = struct.pack(">cBH", b"$", self._channels[track] + channel, len(packet))
            self._writer.write(head + packet)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
