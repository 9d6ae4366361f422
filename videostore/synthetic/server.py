"""A small RTSP server: RTP over TCP (interleaved), RTCP sender reports, digest authentication.

Sources: RFC 2326 (RTSP 1.0), RFC 3550 (RTP, RTCP), RFC 6184 (H.264), RFC 7616 (digest). For tests and
the demonstration; what real cameras do wrong can be switched on while it runs.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
import secrets
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event, Thread

from videostore.synthetic.stream import FRAME_RATE, GOP, Stream

_CLOCK_HZ = 90_000
_PAYLOAD_TYPE = 96
_MTU = 1400
_REPORT_SECONDS = 1.0
_NTP_EPOCH = 2_208_988_800
_REALM = "synthetic camera"


@dataclass(slots=True)
class SyntheticCamera:
    """One camera of the server, and what is wrong with it.

    ``clock_offset_seconds`` is added to the wall clock of its sender reports; ``silent`` keeps the
    connection but sends nothing; ``away`` refuses new connections and hangs up on the present ones.
    ``stream`` may be exchanged while it runs. Without ``describes`` its SDP has no parameter sets, as with
    many cameras.
    ``sent`` is what really left: ``(number of the frame in the loop, Unix time)``.
    """

    path: str
    stream: Stream
    user: str = ""
    password: str = ""
    clock_offset_seconds: float = 0.0
    silent: bool = False
    away: bool = False
    reports: bool = True
    describes: bool = True
    sent: list[tuple[int, float]] = field(default_factory=list)


class SyntheticServer:
    """Serves ``cameras`` from a thread; a context manager. Port 0 takes a free one."""

    def __init__(self, cameras: Sequence[SyntheticCamera], *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.cameras = {camera.path: camera for camera in cameras}
        self.host, self.port = host, port
        self._nonce = secrets.token_hex(16)
        self._started = Event()
        self._failure: BaseException | None = None
        self._thread = Thread(target=self._run, name="synthetic cameras", daemon=True)

    def url(self, path: str) -> str:
        return f"rtsp://{self.host}:{self.port}/{path}"

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
            server = await asyncio.start_server(self._accept, self.host, self.port)
            self.port = server.sockets[0].getsockname()[1]
        except OSError as error:
            self._failure = error
            return
        finally:
            self._started.set()
        await self._stop.wait()
        server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                await _Connection(self, reader, writer).serve()
        finally:
            self._clients.discard(task)
            writer.close()

    def frame_at(self, number: int) -> float:
        """Return the Unix time at which frame ``number`` since the start is due."""
        return self._epoch + number / FRAME_RATE

    def next_keyframe(self) -> int:
        return (int((time.time() - self._epoch) * FRAME_RATE) // GOP + 1) * GOP

    def authorised(self, camera: SyntheticCamera, method: str, header: str) -> bool:
        """Check a digest answer (MD5 without qop, as cameras use it)."""
        if not camera.user:
            return True
        given = dict(re.findall(r'(\w+)="?([^",]*)"?', header.partition("Digest ")[2]))
        secret = _md5(f"{camera.user}:{_REALM}:{camera.password}")
        request = _md5(f"{method}:{given.get('uri', '')}")
        expected = _md5(f"{secret}:{self._nonce}:{request}")
        return given.get("username") == camera.user and hmac.compare_digest(
            given.get("response", ""), expected
        )

    @property
    def challenge(self) -> str:
        return f'Digest realm="{_REALM}", nonce="{self._nonce}"'


class _Connection:
    def __init__(
        self, server: SyntheticServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._channel = 0

    async def serve(self) -> None:
        playing: asyncio.Task[None] | None = None
        try:
            while True:
                request = await self._request()
                if request is None:
                    return
                method, path, headers = request
                camera = self._server.cameras.get(path)
                if camera is None or camera.away:
                    self._reply(headers, "404 Not Found")
                    continue
                if not self._server.authorised(camera, method, headers.get("authorization", "")):
                    self._reply(headers, "401 Unauthorized", **{"WWW-Authenticate": self._server.challenge})
                    continue
                self._answer(method, camera, headers)
                if method == "PLAY":
                    playing = asyncio.create_task(self._play(camera))
                elif method == "TEARDOWN":
                    return
        finally:
            if playing is not None:
                playing.cancel()
                with suppress(asyncio.CancelledError, ConnectionError):
                    await playing

    async def _request(self) -> tuple[str, str, dict[str, str]] | None:
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
        path = re.sub(r"^rtsp://[^/]*/?", "", words[1]).removesuffix("/trackID=0").strip("/")
        return words[0], path, headers

    def _answer(self, method: str, camera: SyntheticCamera, headers: dict[str, str]) -> None:
        match method:
            case "OPTIONS":
                self._reply(headers, Public="OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER")
            case "DESCRIBE":
                body = _sdp(camera)
                self._reply(headers, body=body, **{"Content-Type": "application/sdp"})
            case "SETUP":
                transport = headers.get("transport", "")
                channels = re.search(r"interleaved=(\d+)-", transport)
                if "RTP/AVP/TCP" not in transport:
                    self._reply(headers, "461 Unsupported Transport")
                    return
                self._channel = int(channels[1]) if channels else 0
                chosen = f"RTP/AVP/TCP;unicast;interleaved={self._channel}-{self._channel + 1}"
                self._reply(headers, Session="1;timeout=60", Transport=chosen)
            case "PLAY" | "TEARDOWN" | "GET_PARAMETER":
                self._reply(headers, Session="1", Range="npt=now-")
            case _:
                self._reply(headers, "501 Not Implemented")

    def _reply(
        self, request: dict[str, str], status: str = "200 OK", *, body: str = "", **headers: str
    ) -> None:
        fields = {"CSeq": request.get("cseq", "0"), **headers}
        if body:
            fields["Content-Length"] = str(len(body))
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._writer.write(f"RTSP/1.0 {status}\r\n{head}\r\n{body}".encode())

    async def _play(self, camera: SyntheticCamera) -> None:
        ssrc, sequence = secrets.randbits(32), secrets.randbits(16)
        offset = secrets.randbits(31)
        packets = octets = 0
        report_at = 0.0
        number = self._server.next_keyframe()
        while not camera.away:
            frames = camera.stream.frames
            due = self._server.frame_at(number)
            await asyncio.sleep(max(0.0, due - time.time()))
            if camera.silent:
                number += 1
                continue
            timestamp = (offset + number * _CLOCK_HZ // FRAME_RATE) % 2**32
            if camera.reports and due >= report_at:
                wall = due + camera.clock_offset_seconds + _NTP_EPOCH
                self._send(1, _sender_report(ssrc, wall, timestamp, packets, octets))
                report_at = due + _REPORT_SECONDS
            for payload, last in _payloads(frames[number % len(frames)]):
                mark = 0x80 if last else 0
                head = struct.pack(">BBHII", 0x80, mark | _PAYLOAD_TYPE, sequence, timestamp, ssrc)
                self._send(0, head + payload)
                sequence = (sequence + 1) % 2**16
                packets, octets = packets + 1, octets + len(payload)
            camera.sent.append((number % len(frames), due))
            await self._writer.drain()
            number += 1
        self._writer.close()

    def _send(self, channel: int, packet: bytes) -> None:
        self._writer.write(struct.pack(">cBH", b"$", self._channel + channel, len(packet)) + packet)


def _payloads(units: Sequence[bytes]) -> Iterator[tuple[bytes, bool]]:
    """RFC 6184, sections 5.6 and 5.8: a NAL unit by itself, or in fragments (FU-A)."""
    for index, unit in enumerate(units):
        final = index == len(units) - 1
        if len(unit) <= _MTU:
            yield unit, final
            continue
        indicator = unit[0] & 0xE0 | 28
        for at in range(1, len(unit), _MTU):
            piece = unit[at : at + _MTU]
            ends = at + _MTU >= len(unit)
            header = unit[0] & 0x1F | (0x80 if at == 1 else 0) | (0x40 if ends else 0)
            yield bytes([indicator, header]) + piece, final and ends


def _sender_report(ssrc: int, ntp_seconds: float, timestamp: int, packets: int, octets: int) -> bytes:
    """RFC 3550, section 6.4.1, with the source description that 6.1 demands beside it."""
    ntp = int(ntp_seconds * 2**32)
    report = struct.pack(
        ">BBHIQIII", 0x80, 200, 6, ssrc, ntp % 2**64, timestamp, packets % 2**32, octets % 2**32
    )
    name = struct.pack(">BB", 1, 6) + b"camera"
    name += b"\x00" * (4 - len(name) % 4)
    return report + struct.pack(">BBHI", 0x81, 202, 1 + len(name) // 4, ssrc) + name


def _sdp(camera: SyntheticCamera) -> str:
    """RFC 8866, with the H.264 parameters of RFC 6184, section 8.2."""
    parameters = "packetization-mode=1"
    if camera.describes:
        units = camera.stream.sps, camera.stream.pps
        sets = ",".join(base64.b64encode(unit).decode() for unit in units)
        parameters += f";profile-level-id={camera.stream.sps[1:4].hex()};sprop-parameter-sets={sets}"
    lines = (
        "v=0",
        "o=- 1 1 IN IP4 127.0.0.1",
        "s=synthetic camera",
        "c=IN IP4 0.0.0.0",
        "t=0 0",
        "a=control:*",
        "a=range:npt=now-",
        f"m=video 0 RTP/AVP {_PAYLOAD_TYPE}",
        f"a=rtpmap:{_PAYLOAD_TYPE} H264/{_CLOCK_HZ}",
        f"a=fmtp:{_PAYLOAD_TYPE} {parameters}",
        f"a=framerate:{FRAME_RATE}",
        "a=control:trackID=0",
    )
    return "".join(f"{line}\r\n" for line in lines)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
