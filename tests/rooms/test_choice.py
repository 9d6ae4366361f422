"""Which receiver a camera gets, and what the connection of our own does when a camera changes its mind."""

from __future__ import annotations

import hashlib
import re
import select
import socket
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Thread
from uuid import uuid4

import pytest

from tests.cameras import serving
from tests.servers import until
from videostore.domain.camera import Camera, Transport
from videostore.domain.errors import CameraRefused, CameraStreamInvalid
from videostore.recorder.choice import ChosenSource
from videostore.recorder.native.connection import Connection
from videostore.recorder.native.source import NativeSource
from videostore.synthetic.stream import stream
from videostore.synthetic.tone import tone


def now():
    return datetime.now(UTC)


def how(root):
    return {"stall": timedelta(seconds=2), "now": now, "root": root}


@pytest.mark.parametrize(
    ("film", "heard", "transport", "sound", "chosen"),
    [
        ({}, None, Transport.TCP, False, ("native", "understood")),
        ({"codec": "mjpeg"}, None, Transport.TCP, False, ("libav", "codec")),
        ({}, None, Transport.UDP, False, ("libav", "udp")),
        ({}, "aac", Transport.TCP, True, ("native", "understood")),
        ({}, "pcm_mulaw", Transport.TCP, True, ("native", "understood")),
        ({}, None, Transport.TCP, True, ("native", "understood")),
        ({}, "HE-AAC", Transport.TCP, True, ("libav", "sound")),
        ({}, "HE-AAC", Transport.TCP, False, ("native", "understood")),
    ],
)
def test_a_camera_has_our_own_receiver_where_it_is_understood(
    tmp_path, film, heard, transport, sound, chosen
):
    source = ChosenSource(**how(tmp_path))
    loud = replace(tone("aac"), config=b"\x2b\x11\x88\x00") if heard == "HE-AAC" else heard and tone(heard)
    with serving("plain", film=stream(2, **film), tone=loud) as server:
        camera = Camera(uuid4(), "camera", server.url("plain"), transport=transport, sound=sound)
        with closing(source.open(camera, None)):
            assert source.chosen(camera) == chosen


class Scripted:
    """A camera that answers each request by the next of ``answers``, and keeps what it was asked."""

    def __init__(self, *answers):
        self.asked = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = Thread(target=self._run, args=[answers])

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._thread.join()
        self._listener.close()

    def _run(self, answers):
        connection, _ = self._listener.accept()
        with connection, connection.makefile("rb") as lines:
            for answer in answers:
                head = b"".join(iter(lambda: lines.readline().removeprefix(b"\r\n"), b"")).decode()
                if not head:
                    return
                self.asked.append(head)
                number = re.search(r"CSeq: (\d+)", head)[1]
                status, _, more = answer.partition("\r\n")
                connection.sendall(f"RTSP/1.0 {status}\r\nCSeq: {number}\r\n{more}\r\n".encode())

    def connection(self, credentials):
        channel = socket.create_connection(("127.0.0.1", self.port))
        return Connection(channel, "rtsp://camera/", credentials, patience=5)


def asks(nonce, *, stale=False, algorithm=""):
    more = (', algorithm="SHA-256"' if algorithm else "") + (", stale=true" if stale else "")
    return f'401 Unauthorized\r\nWWW-Authenticate: Digest realm="r", nonce="{nonce}", qop="auth"{more}\r\n'


def test_a_nonce_that_is_used_up_is_renewed_and_uses_of_one_are_counted():
    with Scripted(asks("one"), "200 OK", "200 OK", asks("two", stale=True), "200 OK") as camera:
        connection = camera.connection(("user", "secret"))
        for method in ("DESCRIBE", "SETUP", "PLAY"):
            assert connection.ask(method, "rtsp://camera/").status == 200
        connection.hang_up("")
    said = [re.findall(r'nonce="(\w+)".*nc=(\d+)', head) for head in camera.asked]
    assert said == [
        [],
        [("one", "00000001")],
        [("one", "00000002")],
        [("one", "00000003")],
        [("two", "00000001")],
    ]


def kept_alive(*answers):
    """Return why a stream ends that says a keepalive, and with which nonce it was said, used how often."""
    with Scripted(asks("one"), "200 OK", *answers) as camera:
        connection = camera.connection(("user", "secret"))
        connection.ask("PLAY", "rtsp://camera/")
        connection.go_live()
        connection.say("GET_PARAMETER", "rtsp://camera/")
        buffer = memoryview(bytearray(4096))
        while select.select([connection], [], [], 30)[0] and connection.read(buffer):
            pass  # until the camera hangs up, all answers given
        connection.hang_up("")
    assert all(head.startswith("GET_PARAMETER rtsp://camera/ ") for head in camera.asked[2:])
    said = [re.search(r'\bnonce="(\w+)".*nc=0*(\d+)', head) for head in camera.asked[2:]]
    return connection.broken, [one[1] + one[2] for one in said]


@pytest.mark.parametrize(
    ("answers", "broken", "said"),
    [
        pytest.param(["200 OK"], "", ["one2"], id="kept"),
        pytest.param([asks("two", stale=True), "200 OK"], "", ["one2", "two1"], id="a nonce used up"),
        pytest.param([asks("two"), "200 OK"], "", ["one2", "two1"], id="used up, and it does not say so"),
        pytest.param(
            [asks("two", stale=True), asks("three", stale=True)],
            "",
            ["one2", "two1"],
            id="said no third time",
        ),
        pytest.param([asks("one")], "it asks for another password", ["one2"], id="a password changed"),
        pytest.param(
            [asks("two"), asks("three")], "it asks for another password", ["one2", "two1"], id="and its nonce"
        ),
        pytest.param(["454 Session Not Found"], "it ended the session", ["one2"], id="no such session"),
        pytest.param(["404 Not Found"], "it ended the session", ["one2"], id="no such stream"),
        pytest.param(["501 Not Implemented"], "", ["one2"], id="a method that is not known"),
    ],
)
def test_a_keepalive_that_is_refused_is_said_again_at_once_or_ends_the_stream(answers, broken, said):
    """A session that is not kept alive ends at the next keepalive: half its time is over at the first."""
    assert kept_alive(*answers) == (broken, said)


def test_sha_256_is_answered_by_sha_256():
    with Scripted(asks("n", algorithm="SHA-256"), "200 OK") as camera:
        connection = camera.connection(("user", "secret"))
        assert connection.ask("DESCRIBE", "rtsp://camera/").status == 200
        connection.hang_up("")
    fields = dict(re.findall(r'(\w+)="?([^",\r]+)"?', camera.asked[1].partition("Digest ")[2]))

    def hashed(*parts):
        return hashlib.sha256(":".join(parts).encode()).hexdigest()

    expected = hashed(
        hashed("user", "r", "secret"),
        "n",
        "00000001",
        fields["cnonce"],
        "auth",
        hashed("DESCRIBE", "rtsp://camera/"),
    )
    assert fields["response"] == expected


def test_a_wrong_password_is_said_once_and_not_again():
    """Cameras lock after a few wrong ones."""
    with Scripted(asks("one"), asks("two")) as camera:
        connection = camera.connection(("user", "wrong"))
        with pytest.raises(CameraRefused):
            connection.ask("DESCRIBE", "rtsp://camera/")
        connection.hang_up("")
    assert sum("Authorization" in head for head in camera.asked) == 1


def moved(to):
    return f"302 Moved Temporarily\r\nLocation: {to}\r\n"


def test_a_camera_that_sends_us_on_is_followed_with_its_password_on_the_same_host_only(tmp_path):
    with serving("officer:secret@locked") as server:
        for host, lets_in in (("127.0.0.1", True), ("localhost", False)):
            to = server.url("locked").replace("127.0.0.1", host)
            with Scripted("200 OK", moved(to)) as first:
                camera = Camera(uuid4(), "camera", f"rtsp://127.0.0.1:{first.port}/x")
                source = NativeSource(**how(tmp_path))
                if lets_in:
                    source.open(camera, ("officer", "secret")).close()
                else:
                    with pytest.raises(CameraRefused):
                        source.open(camera, ("officer", "secret"))


def test_a_camera_that_sends_us_to_no_camera_is_not_followed(tmp_path):
    with Scripted("200 OK", moved("http://127.0.0.1/")) as first:
        camera = Camera(uuid4(), "camera", f"rtsp://127.0.0.1:{first.port}/x")
        with pytest.raises(CameraStreamInvalid):
            NativeSource(**how(tmp_path)).open(camera, None)


def test_a_session_is_kept_alive_before_it_ends_and_is_ended(tmp_path):
    """The camera forgets it after 60 s without a word; the half of that is waited for."""
    asked = ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"]
    with serving("plain") as server:
        camera = Camera(uuid4(), "camera", server.url("plain"))
        stream = NativeSource(**{**how(tmp_path), "stall": timedelta(hours=1)}).open(camera, None)
        opened = time.monotonic()
        for later in (20, 40, 60, 80):  # it speaks at 40 and at 80
            stream.look_after(opened + later)
        stream.close()
        asked += ["GET_PARAMETER", "GET_PARAMETER", "TEARDOWN"]
        until(lambda: server.cameras["plain"].asked == asked, seconds=60)
