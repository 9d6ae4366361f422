"""Ports CameraSource and CameraStream, over real sockets."""

from __future__ import annotations

import socket
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

import pytest

from tests.cameras import serving, web_server
from videostore.domain.errors import (
    CameraNotRtsp,
    CameraRefused,
    CameraStreamInvalid,
    CameraUnreachable,
)
from videostore.recorder.sources import RtspSource
from videostore.synthetic.stream import FRAME_RATE, GOP, HEIGHT, WIDTH

STALL = timedelta(seconds=2)


def now():
    return datetime.now(UTC)


@pytest.fixture
def source():
    return RtspSource(stall=STALL, now=now)


@pytest.fixture
def server():
    with serving("plain", "officer:open sesame/ä@locked") as server:
        yield server


def test_a_camera_that_describes_itself_badly_is_looked_at_first(source):
    with (
        serving("plain", describes=False) as server,
        closing(source.open(server.url("plain"), None)) as stream,
    ):
        assert stream.info.width_px == WIDTH
        assert next(stream.packets()).keyframe


def take(stream, count):
    with closing(stream):
        return list(islice(stream.packets(), count))


def test_a_stream_says_what_it_is(source, server):
    with closing(source.open(server.url("plain"), None)) as stream:
        assert (stream.info.codec, stream.info.width_px, stream.info.height_px) == ("h264", WIDTH, HEIGHT)
        assert stream.info.extradata
        assert stream.info.time_base * 90_000 == 1


def test_frames_arrive_from_a_keyframe_on_in_order_and_none_is_missing(source, server):
    packets = take(source.open(server.url("plain"), None), 2 * GOP + 1)
    assert [packet.keyframe for packet in packets] == [number % GOP == 0 for number in range(len(packets))]
    ticks = 90_000 // FRAME_RATE
    assert {after.dts - before.dts for before, after in pairwise(packets)} == {ticks}
    assert all(before.received_at <= after.received_at for before, after in pairwise(packets))


@pytest.mark.parametrize("offset", [0.0, 3600.0, -5.0])
def test_the_cameras_own_clock_is_handed_on_with_the_frames(source, offset):
    with serving("plain", clock_offset_seconds=offset) as server:
        packets = take(source.open(server.url("plain"), None), 2 * GOP)
    measured = [packet.claimed_at - packet.received_at for packet in packets if packet.claimed_at]
    assert len(measured) >= GOP
    assert all(abs(one.total_seconds() - offset) < 1 for one in measured)


def test_a_camera_without_sender_reports_claims_nothing(source):
    with serving("plain", reports=False) as server:
        assert {one.claimed_at for one in take(source.open(server.url("plain"), None), GOP)} == {None}


def test_digest_authentication_lets_the_right_password_in(source, server):
    assert take(source.open(server.url("locked"), ("officer", "open sesame/ä")), 3)


@pytest.mark.parametrize("credentials", [None, ("officer", "wrong"), ("nobody", "open sesame/ä")])
def test_a_wrong_password_is_refused_and_no_message_repeats_it(source, server, credentials):
    with pytest.raises(CameraRefused) as refused:
        source.open(server.url("locked"), credentials)
    assert "wrong" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_an_unknown_path_is_no_stream(source, server):
    with pytest.raises(CameraStreamInvalid):
        source.open(server.url("nothing"), None)


def test_nobody_listening_is_unreachable(source):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(CameraUnreachable):
        source.open(f"rtsp://127.0.0.1:{port}/x", None)


def test_a_web_server_is_not_a_camera(source):
    with web_server() as port, pytest.raises(CameraNotRtsp):
        source.open(f"rtsp://127.0.0.1:{port}/x", None)


@pytest.mark.parametrize("fault", ["silent", "away"])
def test_a_camera_that_falls_silent_or_hangs_up_is_an_error_and_not_the_end(source, fault):
    with serving("plain") as server, closing(source.open(server.url("plain"), None)) as stream:
        packets = stream.packets()
        assert next(packets).keyframe
        setattr(server.cameras["plain"], fault, True)
        began = now()
        with pytest.raises(CameraUnreachable):
            for _ in packets:
                pass
        assert now() - began < 4 * STALL
