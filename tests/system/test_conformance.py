"""Our own receiver against RTSP servers that are not ours: byte for byte what ffmpeg records from them.

GStreamer's serves films that are packed by ourselves, so its demultiplexer is one more parser that reads our
MP4; live555, which many cameras have inside, serves byte streams.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
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
from videostore.synthetic.tone import tone

PYTHON = "/usr/bin/python3"
"""The system's, which has the bindings."""
SCRIPT = Path(__file__).parents[1] / "rtsp_server.py"
LIVE555 = Path(sys.executable).with_name("live555")
SERVERS = {"gstreamer": [PYTHON, str(SCRIPT)], "live555": [str(LIVE555)]}
FILMS = {"h264": ("h264", 0), "b-frames": ("h264", 2), "h265": ("hevc", 0), "h265 b-frames": ("hevc", 3)}
SECONDS = 2
LOGIN = ("officer", "open sesame")


def suffix(name):
    return "h264" if FILMS[name][0] == "h264" else "h265"


def path(name):
    return name.replace(" ", "-")


def frames(name):
    codec, b_frames = FILMS[name]
    film = stream(SECONDS, codec=codec, b_frames=b_frames)
    return [b"".join(START + unit for unit in units) for units in film.frames]


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """``PATH=FILE`` of each film, for each server."""
    there = [PYTHON, "-c", "import gi; gi.require_version('GstRtspServer', '1.0')"]
    if subprocess.run(there, capture_output=True, check=False).returncode:
        missing("gst-rtsp-server is not installed: apt-get install gir1.2-gst-rtsp-server-1.0")
    if not LIVE555.exists():
        missing("live555 is not built: tests/live555/build.sh .venv")
    root, pairs = tmp_path_factory.mktemp("films"), {server: [] for server in SERVERS}
    for name, (codec, b_frames) in FILMS.items():
        packer, fragments, _ = packed(codec, b_frames, seconds=SECONDS)
        bodies = {"gstreamer": packer.movie(fragments), "live555": b"".join(frames(name))}
        for server, body in bodies.items():
            file = root / f"{server}-{path(name)}.{suffix(name)}"
            file.write_bytes(body)
            pairs[server].append(f"{path(name)}={file}")
    return pairs


@contextmanager
def serve(server, films, *options):
    """Yield the URL of a server."""
    command = [*SERVERS[server], *options, *films]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield f"rtsp://127.0.0.1:{process.stdout.readline().strip()}"
        process.stdin.close()


@pytest.fixture
def source(tmp_path):
    return NativeSource(stall=timedelta(seconds=10), now=lambda: datetime.now(UTC), root=tmp_path)


def received(opened):
    """Yield the frames until the server ends the film."""
    with suppress(CameraUnreachable):
        yield from opened.packets()


@pytest.fixture(scope="module")
def recorded(films, tmp_path_factory):
    """What we receive of each film from each server, and what ffmpeg records of it, all at once."""
    root = tmp_path_factory.mktemp("recorded")
    source = NativeSource(stall=timedelta(seconds=10), now=lambda: datetime.now(UTC), root=root)

    def ours(url):
        with closing(source.open(Camera(uuid4(), "camera", url), None)) as opened:
            return list(received(opened))

    def theirs(url, form, file):
        command = [program("ffmpeg"), "-nostdin", "-loglevel", "fatal", "-rtsp_transport", "tcp"]
        command += ["-i", url, "-c", "copy", "-f", form, str(file)]
        subprocess.run(command, check=True, timeout=60)
        return file.read_bytes()

    both = [(server, name) for server in SERVERS for name in FILMS]
    with ExitStack() as opened, ThreadPoolExecutor(2 * len(both)) as pool:
        bases = {server: opened.enter_context(serve(server, films[server])) for server in SERVERS}
        begun = {}
        for server, name in both:
            url, form = f"{bases[server]}/{path(name)}", FILMS[name][0]
            file = root / f"{server}-{path(name)}"
            begun[server, name] = pool.submit(ours, url), pool.submit(theirs, url, form, file)
        return {which: [one.result() for one in pair] for which, pair in begun.items()}


@pytest.mark.parametrize("name", FILMS)
@pytest.mark.parametrize("server", SERVERS)
def test_what_another_server_sends_arrives_byte_for_byte_as_ffmpeg_records_it(recorded, server, name):
    packets, theirs = recorded[server, name]
    sent = frames(name)
    if server == "live555":
        sent.pop()  # it sends a unit when it has read the beginning of the next
    assert [packet.data for packet in packets] == sent
    assert b"".join(sent) == theirs
    assert sum(packet.lost for packet in packets) == 0


def with_headers(unit):
    """Return a unit of AAC-LC, 16 kHz, one channel, as a byte stream has it (ADTS: ISO/IEC 13818-7, 6.2)."""
    size = 7 + len(unit)
    return (0xFFF1 << 40 | 0x604 << 28 | size << 13 | 0x1FFC).to_bytes(7, "big") + unit


def test_sound_of_another_server_arrives_byte_for_byte_beside_its_picture(source, films, tmp_path):
    sent = tone("aac").units[: SECONDS * 16_000 // 1_024]
    (tmp_path / "sound.aac").write_bytes(b"".join(map(with_headers, sent)))
    picture = films["live555"][0].partition("=")[2]
    with (
        serve("live555", [f"both={picture},{tmp_path / 'sound.aac'}"]) as url,
        closing(source.open(Camera(uuid4(), "camera", f"{url}/both", sound=True), None)) as opened,
    ):
        assert (opened.info.sound.codec, opened.info.sound.sample_rate_hz) == ("aac", 16_000)
        packets = list(received(opened))
    heard = [packet.data for packet in packets if packet.sound]
    assert [packet.data for packet in packets if not packet.sound] == frames("h264")[:-1]
    assert len(heard) > len(sent) / 2  # it ends with the picture
    assert heard == sent[: len(heard)]


@pytest.mark.parametrize("server", SERVERS)
def test_another_server_lets_the_right_password_in_and_no_other(source, films, server):
    with serve(server, films[server][:1], "--login", *LOGIN) as url:
        camera = Camera(uuid4(), "camera", f"{url}/h264")
        for login in (None, (LOGIN[0], "wrong")):
            with pytest.raises(CameraRefused):
                source.open(camera, login)
        with closing(source.open(camera, LOGIN)) as opened:
            assert next(opened.packets()).keyframe
