"""Our own receiver against RTSP servers that are not ours: byte for byte what ffmpeg records, sound too.

GStreamer's serves films that are packed by ourselves, so its demultiplexer is one more parser that reads our
MP4; live555, which many cameras have inside, serves byte streams.
"""

from __future__ import annotations

import struct
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
SOUNDS = {"aac": "adts", "pcm_mulaw": "mulaw", "pcm_alaw": "alaw"}
"""Each is beside the first of the films; and what ffmpeg calls a file of it."""
SECONDS = 2
SOUND_SECONDS = 1.5
"""So much of a film with sound ffmpeg records: live555 does not say when a WAV ends, and it would wait."""
LOGIN = ("officer", "open sesame")


def suffix(name):
    return "h264" if FILMS[name][0] == "h264" else "h265"


def path(name):
    return name.replace(" ", "-")


def frames(name):
    codec, b_frames = FILMS[name]
    film = stream(SECONDS, codec=codec, b_frames=b_frames)
    return [b"".join(START + unit for unit in units) for units in film.frames]


def as_written(codec, unit):
    """Return a unit of sound as a file has it. G.711: bare; AAC-LC, 16 kHz, one channel: after a header
    (ADTS: ISO/IEC 13818-7, 6.2)."""
    if codec != "aac":
        return unit
    size = 7 + len(unit)
    return (0xFFF1 << 40 | 0x604 << 28 | size << 13 | 0x1FFC).to_bytes(7, "big") + unit


def heard(codec):
    """Return the sound as a file of it alone."""
    sound = tone(codec)
    units = sound.units[: SECONDS * sound.rate_hz // sound.samples]
    return b"".join(as_written(codec, unit) for unit in units)


def sound_file(codec):
    """Return the sound as a server reads it: G.711 as a WAV (RFC 2361: 7 is mu-law, 6 A-law)."""
    if codec == "aac":
        return heard(codec)
    kind, rate, body = 7 if codec == "pcm_mulaw" else 6, tone(codec).rate_hz, heard(codec)
    head = struct.pack("<4sIHHIIHHH", b"fmt ", 18, kind, 1, rate, rate, 1, 8, 0)
    head = b"WAVE" + head + struct.pack("<4sI", b"data", len(body))
    return struct.pack("<4sI", b"RIFF", len(head) + len(body)) + head + body


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
    for codec in SOUNDS:
        (root / f"sound.{codec}").write_bytes(sound_file(codec))
        for each in pairs.values():
            picture = each[0].partition("=")[2]
            each.append(f"{codec}={picture},{root / f'sound.{codec}'}")
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
        with closing(source.open(Camera(uuid4(), "camera", url, sound=True), None)) as opened:
            return list(received(opened))

    def theirs(url, forms, file):
        command = [program("ffmpeg"), "-nostdin", "-loglevel", "fatal", "-rtsp_transport", "tcp", "-i", url]
        files = [file.with_suffix(f".{form}") for form in forms]
        for track, (form, each) in enumerate(zip(forms, files, strict=True)):
            until = ["-t", str(SOUND_SECONDS)] if len(forms) > 1 else []
            command += ["-map", f"0:{track}", "-c", "copy", *until, "-f", form, str(each)]
        subprocess.run(command, check=True, timeout=60)
        return [each.read_bytes() for each in files]

    forms = {name: [codec] for name, (codec, _) in FILMS.items()}
    forms |= {codec: ["h264", form] for codec, form in SOUNDS.items()}
    both = [(server, name) for server in SERVERS for name in forms]
    with ExitStack() as opened, ThreadPoolExecutor(2 * len(both)) as pool:
        bases = {server: opened.enter_context(serve(server, films[server])) for server in SERVERS}
        begun = {}
        for server, name in both:
            url, file = f"{bases[server]}/{path(name)}", root / f"{server}-{path(name)}"
            begun[server, name] = pool.submit(ours, url), pool.submit(theirs, url, forms[name], file)
        return {which: [one.result() for one in pair] for which, pair in begun.items()}


@pytest.mark.parametrize("name", [*FILMS, *SOUNDS])
@pytest.mark.parametrize("server", SERVERS)
def test_what_another_server_sends_arrives_byte_for_byte_as_ffmpeg_records_it(recorded, server, name):
    packets, theirs = recorded[server, name]
    sent = frames(name if name in FILMS else "h264")
    if server == "live555":
        sent.pop()  # it sends a unit when it has read the beginning of the next
    assert [packet.data for packet in packets if not packet.sound] == sent
    assert sum(packet.lost for packet in packets) == 0
    if name in FILMS:
        assert [b"".join(sent)] == theirs
        return
    ours = b"".join(as_written(name, packet.data) for packet in packets if packet.sound)
    for part, film in zip([*theirs, ours], [b"".join(sent), heard(name), heard(name)], strict=True):
        assert len(part) > len(film) / 4  # ours ends with the picture
        assert film.startswith(part)


@pytest.mark.parametrize("server", SERVERS)
def test_another_server_lets_the_right_password_in_and_no_other(source, films, server):
    with serve(server, films[server][:1], "--login", *LOGIN) as url:
        camera = Camera(uuid4(), "camera", f"{url}/h264")
        for login in (None, (LOGIN[0], "wrong")):
            with pytest.raises(CameraRefused):
                source.open(camera, login)
        with closing(source.open(camera, LOGIN)) as opened:
            assert next(opened.packets()).keyframe
