"""Ports CameraSource and CameraStream, over real sockets."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from threading import Event
from uuid import uuid4

import pytest

from tests.cameras import Authority, self_signed, serving, web_server
from videostore.domain.camera import Camera, Transport
from videostore.domain.errors import (
    CameraNotRtsp,
    CameraRefused,
    CameraStreamInvalid,
    CameraUnreachable,
    CameraUntrusted,
    ConfigInvalid,
)
from videostore.recorder import sources
from videostore.recorder.choice import ChosenSource
from videostore.recorder.native import source as native
from videostore.recorder.sources import RtspSource
from videostore.synthetic.stream import FRAME_RATE, GOP, HEIGHT, WIDTH, stream

STALL = timedelta(seconds=2)
PATIENCE = timedelta(seconds=30)
"""Where nothing falls silent: a busy machine may."""


def camera(url, **how):
    return Camera(uuid4(), "camera", url, **how)


def now():
    return datetime.now(UTC)


@pytest.fixture(params=[RtspSource, ChosenSource], ids=["libav", "chosen"])
def source(request, tmp_path):
    return request.param(stall=PATIENCE, now=now, root=tmp_path)


@pytest.fixture
def server():
    with serving("plain", "officer:open sesame/ä@locked") as server:
        yield server


def test_a_camera_that_describes_itself_badly_is_looked_at_first(source):
    with (
        serving("plain", describes=False) as server,
        closing(source.open(camera(server.url("plain")), None)) as stream,
    ):
        assert stream.info.width_px == WIDTH
        assert next(stream.packets()).keyframe


def take(stream, count):
    with closing(stream):
        return list(islice(stream.packets(), count))


def test_a_stream_says_what_it_is(source, server):
    with closing(source.open(camera(server.url("plain")), None)) as stream:
        assert (stream.info.codec, stream.info.width_px, stream.info.height_px) == ("h264", WIDTH, HEIGHT)
        assert stream.info.extradata
        assert stream.info.time_base * 90_000 == 1


def test_frames_arrive_from_a_keyframe_on_in_order_and_none_is_missing(source, server):
    packets = take(source.open(camera(server.url("plain")), None), 2 * GOP + 1)
    assert [packet.keyframe for packet in packets] == [number % GOP == 0 for number in range(len(packets))]
    ticks = 90_000 // FRAME_RATE
    assert {after.pts - before.pts for before, after in pairwise(packets)} == {ticks}
    assert all(before.received_at <= after.received_at for before, after in pairwise(packets))


def test_who_is_held_up_does_not_stamp_late_what_came_meanwhile(source, server):
    """A disk that syncs slowly, a busy host: it would look as if the camera had paused."""
    held_up = 1.0  # seconds

    def latest():
        with closing(source.open(camera(server.url("plain")), None)) as stream:
            packets = stream.packets()
            before = list(islice(packets, GOP))
            Event().wait(held_up)
            after = list(islice(packets, GOP))
        return max(
            (one.received_at - before[-1].received_at).total_seconds() - (one.pts - before[-1].pts) / 90_000
            for one in after
        )

    assert any(latest() < held_up / 2 for _ in range(4))  # a busy machine also sends and receives late


@pytest.mark.parametrize("offset", [0.0, 3600.0, -5.0])
def test_the_cameras_own_clock_is_handed_on_with_the_frames(source, offset):
    with serving("plain", clock_offset_seconds=offset) as server:
        packets = take(source.open(camera(server.url("plain")), None), 2 * GOP)
    known = [packet for packet in packets if packet.claimed_at]
    assert len(known) >= GOP
    begun = [one.claimed_at.timestamp() - one.pts / 90_000 for one in known]
    assert max(begun) - min(begun) < 0.01
    nearest = max(one.claimed_at - one.received_at for one in known)  # what comes may be late, never early
    assert abs(nearest.total_seconds() - offset) < 1


def test_a_camera_without_sender_reports_claims_nothing(source):
    with serving("plain", reports=False) as server:
        assert {one.claimed_at for one in take(source.open(camera(server.url("plain")), None), GOP)} == {None}


def test_digest_authentication_lets_the_right_password_in(source, server):
    assert take(source.open(camera(server.url("locked")), ("officer", "open sesame/ä")), 3)


def test_basic_authentication_too(source):
    with serving("officer:secret@locked", basic=True) as server:
        assert take(source.open(camera(server.url("locked")), ("officer", "secret")), 3)
        with pytest.raises(CameraRefused):
            source.open(camera(server.url("locked")), ("officer", "wrong"))


CODECS = [("h264", 0), ("h264", 2), ("hevc", 0), ("hevc", 3), ("mjpeg", 0)]
ROADS = [(RtspSource, Transport.TCP), (RtspSource, Transport.UDP), (ChosenSource, Transport.TCP)]


@pytest.fixture(scope="module")
def arrived(tmp_path_factory):
    """What arrives of every codec over every transport, all at once."""
    root = tmp_path_factory.mktemp("codecs")
    adapters = {kind: kind(stall=PATIENCE, now=now, root=root) for kind, _ in ROADS}

    def one(codec, b_frames, kind, transport):
        with serving("plain", film=stream(2, codec=codec, b_frames=b_frames)) as server:
            return take(adapters[kind].open(camera(server.url("plain"), transport=transport), None), GOP + 5)

    with ThreadPoolExecutor(len(CODECS) * len(ROADS)) as pool:
        begun = {(*codec, *road): pool.submit(one, *codec, *road) for codec in CODECS for road in ROADS}
        return {which: future.result() for which, future in begun.items()}


@pytest.mark.parametrize(("kind", "transport"), ROADS)
@pytest.mark.parametrize(("codec", "b_frames"), CODECS)
def test_every_codec_arrives_whole_over_every_transport(arrived, kind, transport, codec, b_frames):
    film = stream(2, codec=codec, b_frames=b_frames)
    packets = arrived[codec, b_frames, kind, transport]
    ticks = 90_000 // FRAME_RATE
    first = packets[0].pts
    assert [(one.pts - first) // ticks for one in packets] == list(film.numbers[: GOP + 5])
    assert [one.keyframe for one in packets] == [codec == "mjpeg" or at % GOP == 0 for at in range(GOP + 5)]


# --- rtsps ---


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


def test_a_camera_whose_authority_is_known_is_recorded_over_tls(source, authority):
    with serving("officer:secret@plain", tls=authority.context("127.0.0.1")) as server:
        subject = camera(server.url("plain"), ca_file=str(authority.file))
        assert take(source.open(subject, ("officer", "secret")), 3)


def test_a_camera_of_an_unknown_authority_is_not_trusted_and_gets_no_password(source, authority):
    with serving("officer:secret@plain", tls=authority.context("127.0.0.1")) as server:
        with pytest.raises(CameraUntrusted, match="not valid"):
            source.open(camera(server.url("plain")), ("officer", "secret"))
        assert server.cameras["plain"].sent == []


def test_the_certificate_of_another_camera_is_not_trusted(source, authority):
    with serving("plain", tls=authority.context("other.example")) as server, pytest.raises(CameraUntrusted):
        source.open(camera(server.url("plain"), ca_file=str(authority.file)), None)


def test_a_pinned_certificate_is_trusted_and_no_other(source, tmp_path):
    context, fingerprint = self_signed(tmp_path)
    with serving("plain", tls=context) as server:
        with pytest.raises(CameraUntrusted) as refused:
            source.open(camera(server.url("plain")), None)
        assert fingerprint in refused.value.hint
        assert take(source.open(camera(server.url("plain"), fingerprint=fingerprint), None), 3)
    changed, _ = self_signed(tmp_path)
    with (
        serving("plain", tls=changed) as server,
        pytest.raises(CameraUntrusted, match="fingerprint"),
    ):
        source.open(camera(server.url("plain"), fingerprint=fingerprint), None)


def test_libav_verifies_for_itself(authority, tmp_path, monkeypatch):
    """The certificate may be exchanged between the first word and the recording."""
    source = RtspSource(stall=PATIENCE, now=now, root=tmp_path)
    _, fingerprint = self_signed(tmp_path)
    other, _ = self_signed(tmp_path, name="other")
    pin = {"tls_verify": "1", "ca_file": str(tmp_path / "camera.pem"), "verifyhost": "camera"}
    trust = {"tls_verify": "1", "ca_file": str(authority.file), "verifyhost": "127.0.0.1"}
    for options in (pin, trust):
        monkeypatch.setattr(sources, "knock", lambda *_, options=options, **__: nullcontext(options))
        with serving("plain", tls=other) as server, pytest.raises(CameraUnreachable):
            source.open(camera(server.url("plain"), fingerprint=fingerprint), None)


def test_a_camera_that_speaks_no_tls_and_a_missing_file_of_authorities_are_told_apart(source, server):
    with web_server() as port, pytest.raises(CameraUntrusted, match="TLS"):
        source.open(camera(f"rtsps://127.0.0.1:{port}/plain"), None)
    plain = server.url("plain").replace("rtsp:", "rtsps:")
    with pytest.raises(ConfigInvalid, match="authorities"):
        source.open(camera(plain, ca_file="missing.pem"), None)


def test_a_camera_that_never_answers_describe_is_given_up(source, monkeypatch):
    for adapter in (sources, native):
        monkeypatch.setattr(adapter, "_OPENING", timedelta(seconds=1))
    with serving("plain", hangs="DESCRIBE") as server, pytest.raises(CameraUnreachable):
        source.open(camera(server.url("plain")), None)


@pytest.mark.parametrize("credentials", [None, ("officer", "wrong"), ("nobody", "open sesame/ä")])
def test_a_wrong_password_is_refused_and_no_message_repeats_it(source, server, credentials):
    with pytest.raises(CameraRefused) as refused:
        source.open(camera(server.url("locked")), credentials)
    assert "wrong" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_an_unknown_path_is_no_stream(source, server):
    with pytest.raises(CameraStreamInvalid):
        source.open(camera(server.url("nothing")), None)


def test_nobody_listening_is_unreachable(source):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(CameraUnreachable):
        source.open(camera(f"rtsp://127.0.0.1:{port}/x"), None)


def test_a_web_server_is_not_a_camera(source):
    with web_server() as port, pytest.raises(CameraNotRtsp):
        source.open(camera(f"rtsp://127.0.0.1:{port}/x"), None)


@pytest.mark.parametrize("fault", ["silent", "away"])
def test_a_camera_that_falls_silent_or_hangs_up_is_an_error_and_not_the_end(source, fault, tmp_path):
    source = type(source)(stall=STALL, now=now, root=tmp_path)

    def until_the_error():
        with serving("plain") as server, closing(source.open(camera(server.url("plain")), None)) as stream:
            packets = stream.packets()
            assert next(packets).keyframe
            setattr(server.cameras["plain"], fault, True)
            began = now()
            with pytest.raises(CameraUnreachable):
                for _ in packets:
                    pass
            return now() - began

    assert any(until_the_error() < 4 * STALL for _ in range(3))  # a busy machine is late itself
