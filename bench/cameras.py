"""Cheap cameras for the benchmarks: one encoded loop, sent to many connections by one process over RTSP/TCP.

Every camera sends H.264, 1920x1080, 25 frames a second at about 4 Mbit/s, a keyframe each ``GOP`` frames, a
sender report each 5 s. The loop is packed into RTP once; to send a frame only sequence numbers and time
stamps are written into it, so this costs little beside what receives it. Cameras are not in step. As from a
camera, each packet is sent by itself, in segments of 1448 bytes, paced as by a link of 100 Mbit/s; with
``--bursts`` a frame comes at once, as loopback carries it.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import os
import socket
import struct
import sys
import tempfile
import time
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

from videostore.synthetic.rtp import CLOCK_HZ, NTP_EPOCH, PAYLOAD_TYPES, payloads, sdp, sender_report
from videostore.synthetic.stream import FRAME_RATE, Stream, nal_units

WIDTH, HEIGHT, BITS_PER_SECOND = 1920, 1080, 4_000_000
GOP, LOOP = 50, 250  # frames
_SSRC = 0x5EED
_REPORT_SECONDS = 5.0
_SO_MAX_PACING_RATE = 47  # <asm-generic/socket.h>
_LINK_BYTES_PER_SECOND, _SEGMENT_BYTES = 100_000_000 // 8, 1448


def footage() -> Path:
    """Return the encoded loop, made once: a moving picture with noise, as a byte stream (annex B)."""
    path = Path(tempfile.gettempdir()) / f"bench-{WIDTH}x{HEIGHT}-{BITS_PER_SECOND}-{GOP}-{LOOP}.h264"
    if path.exists():
        return path
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    encoder.framerate, encoder.time_base = Fraction(FRAME_RATE), Fraction(1, FRAME_RATE)
    encoder.bit_rate = BITS_PER_SECOND
    encoder.options = {
        "preset": "veryfast",
        "tune": "zerolatency",
        "x264-params": f"keyint={GOP}:min-keyint={GOP}:scenecut=0:sliced-threads=0:vbv-maxrate=4000:"
        "vbv-bufsize=4000",
    }
    luck = np.random.default_rng(1)
    noise = luck.normal(0, 6, (HEIGHT, WIDTH)).astype(np.int16)
    x, y = np.arange(WIDTH), np.arange(HEIGHT)[:, None]
    out = b""
    for number in range(LOOP):
        image = ((x + y + 3 * number) // 8 % 96 + 64).astype(np.int16) + np.roll(noise, 7 * number, (0, 1))
        frame = av.VideoFrame.from_ndarray(np.clip(image, 0, 255).astype(np.uint8), format="gray")
        frame = frame.reformat(format="yuv420p")
        frame.pts, frame.time_base = number, encoder.time_base
        out += b"".join(bytes(packet) for packet in encoder.encode(frame))
    out += b"".join(bytes(packet) for packet in encoder.encode(None))
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_bytes(out)
    temporary.replace(path)
    return path


def frames_of(data: bytes) -> tuple[list[bytes], list[list[bytes]]]:
    """Return parameter sets and access units: each of these streams has one slice a frame."""
    sets: list[bytes] = []
    frames: list[list[bytes]] = [[]]
    for unit in nal_units(data):
        kind = unit[0] & 0x1F
        if kind in {6, 9}:
            continue
        if kind in {7, 8} and unit not in sets:
            sets.append(unit)
        frames[-1].append(unit)
        if kind in {1, 5}:
            frames.append([])
    return sets, frames[:-1]


class Film:
    """The loop as RTP packets, framed for a connection. A frame is one array, and where its packets begin."""

    def __init__(self) -> None:
        sets, frames = frames_of(footage().read_bytes())
        self.stream = Stream("h264", WIDTH, HEIGHT, sets, frames, list(range(len(frames))))
        self.count = len(frames)
        self.size_bytes = sum(len(unit) for frame in frames for unit in frame)
        self._frames, self._heads = [], []
        for frame in frames:
            data, heads = bytearray(), []
            for payload, last in payloads(self.stream, frame):
                heads.append(len(data))
                mark = (0x80 if last else 0) | PAYLOAD_TYPES["h264"]
                data += (
                    struct.pack(">cBHBBHII", b"$", 0, 12 + len(payload), 0x80, mark, 0, 0, _SSRC) + payload
                )
            self._frames.append(np.frombuffer(bytes(data), np.uint8).copy())
            self._heads.append(np.array(heads))

    def frame(self, number: int, sequence: int) -> tuple[list[memoryview], int]:
        """Return the packets of frame ``number`` of all time, and its RTP time stamp."""
        data, heads = self._frames[number % self.count], self._heads[number % self.count]
        stamp = number * (CLOCK_HZ // FRAME_RATE) & 0xFFFFFFFF
        numbers = (sequence + np.arange(len(heads))) & 0xFFFF
        data[heads + 6], data[heads + 7] = numbers >> 8, numbers & 0xFF
        for byte in range(4):
            data[heads + 8 + byte] = stamp >> (24 - 8 * byte) & 0xFF
        view = memoryview(data)
        return [view[at:end] for at, end in pairwise([*heads.tolist(), len(view)])], stamp


class Camera(asyncio.Protocol):
    """One connection. Answers RTSP; plays from the next keyframe on."""

    def __init__(self, cameras: Cameras) -> None:
        self._cameras = cameras
        self._heard = b""
        self.number = -1
        self.sequence = self.packets = self.octets = self.sent = 0
        self.reported = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(64 * 1024 * 1024)
        channel = transport.get_extra_info("socket")
        if not self._cameras.bursts:
            channel.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, _LINK_BYTES_PER_SECOND)

    def connection_lost(self, _: BaseException | None) -> None:
        self.number = -1

    def data_received(self, data: bytes) -> None:
        self._heard += data
        while self._heard:
            if self._heard[:1] == b"$":
                if len(self._heard) < 4 or len(self._heard) < (
                    size := 4 + int.from_bytes(self._heard[2:4], "big")
                ):
                    return
                self._heard = self._heard[size:]
                continue
            head, end, rest = self._heard.partition(b"\r\n\r\n")
            if not end:
                return
            self._heard = rest
            self._answer(head.decode("latin-1"))

    def _answer(self, head: str) -> None:
        lines = head.split("\r\n")
        method = lines[0].split(" ")[0]
        fields = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        body, more = "", ""
        if method == "DESCRIBE":
            body = sdp(self._cameras.film.stream, None, parameters=True)
            more = f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
        elif method == "OPTIONS":
            more = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER\r\n"
        elif method == "SETUP":
            more = "Session: 1;timeout=60\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
        elif method in {"PLAY", "GET_PARAMETER", "TEARDOWN"}:
            more = "Session: 1\r\n"
        self.transport.write(f"RTSP/1.0 200 OK\r\nCSeq: {fields.get('cseq', 0)}\r\n{more}\r\n{body}".encode())
        if method == "PLAY":
            self._cameras.play(self)
        elif method == "TEARDOWN":
            self.transport.close()


class Cameras:
    """All connections of this process. A command on stdin: ``cost`` only asks, ``pause`` sends no more,
    ``hang-up`` closes the connections, ``end`` ends. Each is answered by the frames sent so far and the CPU
    seconds of that."""

    def __init__(self, film: Film, *, bursts: bool) -> None:
        self.film = film
        self.bursts = bursts
        self.all: list[Camera] = []
        self._due: list[tuple[float, int, Camera]] = []
        self._paused = False
        self._phase = 0

    def play(self, camera: Camera) -> None:
        self._phase = (self._phase + 7) % GOP  # so that keyframes of many cameras are spread
        now = time.time()
        camera.number = 0
        self.all.append(camera)
        heapq.heappush(self._due, (now + self._phase / GOP / FRAME_RATE, len(self.all), camera))

    async def run(self) -> None:
        while True:
            now = time.time()
            while self._due and self._due[0][0] <= now:
                due, order, camera = heapq.heappop(self._due)
                if camera.number < 0:
                    continue
                if not self._paused:
                    self._send(camera, due)
                heapq.heappush(self._due, (due + 1 / FRAME_RATE, order, camera))
            await asyncio.sleep(0.01)

    def _send(self, camera: Camera, due: float) -> None:
        packets, stamp = self.film.frame(camera.number, camera.sequence)
        if due - camera.reported >= _REPORT_SECONDS:
            camera.reported = due
            report = sender_report(_SSRC, due + NTP_EPOCH, stamp, camera.packets, camera.octets)
            camera.transport.write(struct.pack(">cBH", b"$", 1, len(report)) + report)
        for packet in [b"".join(packets)] if self.bursts else packets:
            camera.transport.write(packet)
        camera.number += 1
        camera.sent += 1
        camera.sequence = camera.sequence + len(packets) & 0xFFFF
        camera.packets += len(packets)
        camera.octets += sum(map(len, packets)) - 16 * len(packets)

    def obey(self) -> None:
        command = sys.stdin.readline().strip()
        if command != "cost":
            self._paused = True
        facts = {"frames": sum(one.sent for one in self.all), "cpu_s": sum(os.times()[:2])}
        print(json.dumps(facts), flush=True)
        if command == "hang-up":
            for camera in self.all:
                camera.transport.close()
        if command in {"end", ""}:
            sys.exit()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--bursts", action="store_true", help="write a frame at once, not packet by packet")
    options = parser.parse_args()
    cameras = Cameras(Film(), bursts=options.bursts)
    loop = asyncio.get_running_loop()
    listener = socket.socket()
    if not options.bursts:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT_BYTES)
    listener.bind(("127.0.0.1", options.port))
    server = await loop.create_server(lambda: Camera(cameras), sock=listener)
    loop.add_reader(sys.stdin, cameras.obey)
    facts = {"port": server.sockets[0].getsockname()[1]}
    facts["bits_per_second"] = 8 * cameras.film.size_bytes * FRAME_RATE // cameras.film.count
    print(json.dumps(facts), flush=True)
    await cameras.run()


if __name__ == "__main__":
    asyncio.run(main())
