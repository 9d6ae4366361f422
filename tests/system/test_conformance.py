"""Our own receiver against an RTSP server that is not ours: byte for byte what ffmpeg records from it.

The films are packed by ourselves, so GStreamer's demultiplexer is one more parser that reads our MP4.
"""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from tests.conftest import missing, program
from tests.rooms.test_native import START, packed
from videostore.domain.camera import Camera
from videostore.domain.errors import CameraRefused, CameraUnreachable
from videostore.recorder.native.source import NativeSource
from videostore.synthetic.stream import stream

SCRIPT = Path(__file__).parents[1] / "rtsp_server.py"
PYTHON = "/usr/bin/python3"
"""The system's, which has the bindings."""
FILMS = {"h264": ("h264", 0), "b-frames": ("h264", 2), "h265": ("hevc", 0)}
LOGIN = ("officer", "open sesame")


def elementary(name):
    codec, b_frames = FILMS[name]
    film = stream(4, codec=codec, b_frames=b_frames)
    return b"".join(START + unit for units in film.frames for unit in units)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    there = [PYTHON, "-c", "import gi; gi.require_version('GstRtspServer', '1.0')"]
    if subprocess.run(there, capture_output=True, check=False).returncode:
        missing("gst-rtsp-server is not installed: apt-get install gir1.2-gst-rtsp-server-1.0")
    root, pairs = tmp_path_factory.mktemp("films"), []
    for name, (codec, b_frames) in FILMS.items():
        packer, fragments, _ = packed(codec, b_frames)
        file = root / f"{name}.{'h264' if codec == 'h264' else 'h265'}"
        file.write_bytes(packer.movie(fragments))
        pairs.append(f"{name}={file}")
    return pairs


def serve(films, *options):
    command = [PYTHON, str(SCRIPT), *options, *films]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def server(films):
    with serve(films) as process:
        yield f"rtsp://127.0.0.1:{process.stdout.readline().strip()}"
        process.stdin.close()


@pytest.fixture
def source(tmp_path):
    return NativeSource(stall=timedelta(seconds=3), now=lambda: datetime.now(UTC), root=tmp_path)


def received(opened):
    """Yield the frames until the server ends the film."""
    with suppress(CameraUnreachable):
        yield from opened.packets()


@pytest.fixture(scope="module")
def recorded(server, tmp_path_factory):
    """What we receive of each film, and what ffmpeg records of it, all at once."""
    root = tmp_path_factory.mktemp("recorded")
    source = NativeSource(stall=timedelta(seconds=3), now=lambda: datetime.now(UTC), root=root)

    def ours(name):
        with closing(source.open(Camera(uuid4(), "camera", f"{server}/{name}"), None)) as opened:
            return list(received(opened))

    def theirs(name):
        form = "hevc" if name == "h265" else "h264"
        command = [program("ffmpeg"), "-nostdin", "-loglevel", "fatal", "-rtsp_transport", "tcp"]
        command += ["-i", f"{server}/{name}", "-c", "copy", "-f", form, str(root / name)]
        subprocess.run(command, check=True, timeout=60)
        return (root / name).read_bytes()

    with ThreadPoolExecutor(2 * len(FILMS)) as pool:
        begun = {name: (pool.submit(ours, name), pool.submit(theirs, name)) for name in FILMS}
        return {name: [one.result() for one in both] for name, both in begun.items()}


@pytest.mark.parametrize("name", FILMS)
def test_what_another_server_sends_arrives_byte_for_byte_as_ffmpeg_records_it(recorded, name):
    packets, theirs = recorded[name]
    ours = b"".join(packet.data for packet in packets)
    assert ours == elementary(name)
    assert ours == theirs
    assert sum(packet.lost for packet in packets) == 0


def test_another_server_lets_the_right_password_in_and_no_other(source, films):
    with serve(films[:1], "--user", LOGIN[0], "--password", LOGIN[1]) as process:
        camera = Camera(uuid4(), "camera", f"rtsp://127.0.0.1:{process.stdout.readline().strip()}/h264")
        for login in (None, (LOGIN[0], "wrong")):
            with pytest.raises(CameraRefused):
                source.open(camera, login)
        with closing(source.open(camera, LOGIN)) as opened:
            assert next(opened.packets()).keyframe
        process.stdin.close()
