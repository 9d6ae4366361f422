"""The pure parts of our own receiver: what cameras write is read as meant, and nothing breaks them."""

from __future__ import annotations

import hashlib
import io
import json
import re
import socket
import struct
import subprocess
from dataclasses import astuple, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import partial
from uuid import uuid4

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymediainfo import MediaInfo

from videostore.domain import cmaf
from videostore.domain.camera import Camera
from videostore.domain.segment import EPOCH
from videostore.ports import Packet, StreamInfo
from videostore.recorder.cutter import SLEW, Cutter, Timeline
from videostore.recorder.muxer import Muxer
from videostore.recorder.native import digest, mp4, parameters, rtcp, rtsp, sdp, source
from videostore.recorder.native.connection import Connection
from videostore.recorder.native.feed import Feed
from videostore.recorder.native.frames import Doubt, H264Frames, H265Frames
from videostore.recorder.native.interleaved import Interleaved
from videostore.recorder.native.loop import REST, Loop, arrival
from videostore.recorder.native.rtp import Depacketizer, Receiver
from videostore.recorder.native.source import NativeStream
from videostore.synthetic.film import frame_numbers
from videostore.synthetic.rtp import payloads, sender_report
from videostore.synthetic.stream import FRAME_RATE, GOP, HEIGHT, WIDTH, stream

TICKS = 90_000 // FRAME_RATE
START = b"\x00\x00\x00\x01"
KINDS = [("h264", 0), ("h264", 2), ("hevc", 0), ("hevc", 3)]

# --- SDP ---

VIDEO = "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"


def described(text, base="rtsp://10.0.0.7/live"):
    return sdp.parse(text, base=base)


@pytest.mark.parametrize(
    ("text", "encoding", "clock_hz"),
    [
        pytest.param("v=0\r\n" + VIDEO, "H264", 90_000, id="as it should be"),
        pytest.param("v=0\n" + VIDEO.replace("\r", ""), "H264", 90_000, id="lines end in LF"),
        pytest.param(VIDEO, "H264", 90_000, id="nothing before the stream"),
        pytest.param(VIDEO.replace("H264", "h264"), "H264", 90_000, id="lower case"),
        pytest.param(VIDEO.replace(":96 ", ": 96  "), "H264", 90_000, id="spaces"),
        pytest.param(
            "m=video 0 RTP/AVP 98 96\r\na=rtpmap:96 H264/90000\r\n", "H264", 90_000, id="one is known"
        ),
        pytest.param("m=video 49170/2 RTP/AVP 26\r\n", "JPEG", 90_000, id="static type"),
        pytest.param("m=video 0 RTP/AVP 96\r\n", "", 0, id="nothing says what"),
        pytest.param("garbage\r\n=\r\nm=\r\nm=video\r\n" + VIDEO, "H264", 90_000, id="garbage before"),
    ],
)
def test_the_stream_of_a_description_is_found(text, encoding, clock_hz):
    (media,) = described(text).media
    assert (media.encoding, media.clock_hz) == (encoding, clock_hz)


@pytest.mark.parametrize(
    ("base", "control", "url"),
    [
        ("rtsp://h/live", "trackID=1", "rtsp://h/live/trackID=1"),
        ("rtsp://h/live/", "trackID=1", "rtsp://h/live/trackID=1"),
        ("rtsp://h/live", "/trackID=1", "rtsp://h/live/trackID=1"),
        ("rtsp://h/live", "rtsp://h/other/1", "rtsp://h/other/1"),
        ("rtsp://h/live", "RTSP://h/other/1", "RTSP://h/other/1"),
        ("rtsp://h/live", "*", "rtsp://h/live"),
        ("rtsp://h/cam?channel=1", "trackID=1", "rtsp://h/cam?channel=1/trackID=1"),
    ],
)
def test_a_control_url_is_joined_to_its_base(base, control, url):
    (media,) = described(f"{VIDEO}a=control:{control}\r\n", base).media
    assert media.control == url


def test_parameters_keep_their_padding_and_lose_their_spaces():
    text = f"{VIDEO}a=fmtp:96 packetization-mode=1;Sprop-Parameter-Sets=Z0IA=,aM4=; profile-level-id=42\r\n"
    (media,) = described(text).media
    assert media.parameters == {
        "packetization-mode": "1",
        "sprop-parameter-sets": "Z0IA=,aM4=",
        "profile-level-id": "42",
    }


def test_streams_keep_apart_and_the_session_has_a_control_of_its_own():
    found = described(
        f"a=control:rtsp://h/all\r\n{VIDEO}a=control:v\r\nm=audio 0 RTP/AVP 8\r\na=control:a\r\n"
    )
    assert found.control == "rtsp://h/all"
    assert [(one.kind, one.encoding, one.control) for one in found.media] == [
        ("video", "H264", "rtsp://h/all/v"),
        ("audio", "PCMA", "rtsp://h/all/a"),
    ]


@given(st.text(max_size=400))
def test_no_text_breaks_the_reading_of_descriptions(text):
    described(text)
    described(VIDEO + text)


# --- RTSP ---


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_an_answer_is_taken_with_its_body_and_no_more(end):
    text = f"RTSP/1.0 200 OK{end}CSeq: 3{end}content-length:4{end}X: a{end} b{end}X: c{end}{end}bodyREST"
    message, length = rtsp.take(text.encode())
    assert (message.status, message.header("cseq"), message.body) == (200, "3", b"body")
    assert message.headers["x"] == ["a b", "c"]
    assert text[length:] == "REST"


def test_a_message_that_is_not_whole_is_waited_for_byte_by_byte():
    whole = b"RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\nContent-Length: 2\r\n\r\nab"
    assert all(rtsp.take(whole[:size]) is None for size in range(1, len(whole)))
    assert rtsp.take(whole)[0].status == 401


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x80\x60\x00\x01",
        b"RTSP/1.0 200 OK\r\nContent-Length: 99999999\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"RTSP/1.0 200 OK\r\n" + b"X: y\r\n" * 10_000,
    ],
)
def test_what_is_no_message_is_not_waited_for(data):
    with pytest.raises(rtsp.Malformed):
        rtsp.take(data)


@pytest.mark.parametrize(
    ("said", "session"),
    [
        ("12;timeout=30", ("12", 30.0)),
        ("12 ; timeout = 5", ("12", 5.0)),
        ("12", ("12", 60.0)),
        ("", ("", 60.0)),
    ],
)
def test_the_session_of_a_set_up_is_read(said, session):
    assert rtsp.session(rtsp.Message(200, "", {"session": [said]})) == session


@pytest.mark.parametrize(
    ("said", "channels"),
    [
        ("RTP/AVP/TCP;unicast;interleaved=2-3;ssrc=1", (2, 3)),
        ("RTP/AVP/TCP;interleaved=4", (4, 5)),
        ("RTP/AVP;unicast;client_port=1-2", None),
        ("RTP/AVP/TCP;interleaved=255-256", None),
        ("RTP/AVP/TCP;interleaved=1-1", None),
    ],
)
def test_the_channels_of_a_set_up_are_read(said, channels):
    assert rtsp.channels(rtsp.Message(200, "", {"transport": [said]})) == channels


# --- passwords ---


def test_the_example_of_rfc_2617_gives_its_answer():
    question = 'realm="testrealm@host.com", qop="auth,auth-int", opaque="5ccc"'
    asked = digest.challenge([f'Digest {question}, nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093"'])
    said = digest.authorization(
        asked, ("Mufasa", "Circle Of Life"), method="GET", url="/dir/index.html", count=1, cnonce="0a4f113b"
    )
    assert 'response="6629fae49393a05397450978507c4ef1"' in said
    assert 'opaque="5ccc"' in said
    assert "nc=00000001" in said


def test_the_example_of_rfc_7616_gives_its_answer_with_sha_256():
    question = 'realm="http-auth@example.org", qop="auth", algorithm=SHA-256'
    asked = digest.challenge([f'Digest {question}, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"'])
    said = digest.authorization(
        asked,
        ("Mufasa", "Circle of Life"),
        method="GET",
        url="/dir/index.html",
        count=1,
        cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
    )
    assert 'response="753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"' in said


@pytest.mark.parametrize(
    ("headers", "algorithm"),
    [
        (['Basic realm="a"', 'Digest realm="a", nonce="n"'], "MD5"),
        (['Digest realm="a", nonce="n"', 'Digest realm="a", nonce="n", algorithm=SHA-256'], "SHA-256"),
        (['Digest realm="a", nonce="n", Basic realm="a"'], "MD5"),
        (['Digest realm="a", nonce="n", algorithm=SHA-512-256', 'Basic realm="a"'], ""),
        (['digest realm=a,nonce=n,algorithm="md5"'], "MD5"),
    ],
)
def test_the_strongest_question_that_can_be_answered_is_chosen(headers, algorithm):
    assert digest.challenge(headers).algorithm == algorithm


def test_a_session_key_and_an_old_question_are_answered():
    old = digest.Challenge("r", "n", algorithm="MD5")

    def md5(text):
        return hashlib.md5(text.encode()).hexdigest()

    said = digest.authorization(old, ("u", "p"), method="PLAY", url="x", count=1, cnonce="c")
    assert f'response="{md5(md5("u:r:p") + ":n:" + md5("PLAY:x"))}"' in said
    assert "cnonce" not in said
    key = md5(md5("u:r:p") + ":n:c")
    said = digest.authorization(
        replace(old, session=True, named=True), ("u", "p"), method="PLAY", url="x", count=1, cnonce="c"
    )
    assert f'response="{md5(key + ":n:" + md5("PLAY:x"))}"' in said
    assert "algorithm=MD5-sess" in said
    assert 'cnonce="c"' in said


@given(st.lists(st.text(max_size=200), max_size=3))
def test_no_question_breaks_who_is_to_answer(headers):
    digest.challenge([*headers, *(f"Digest {one}" for one in headers)])


# --- interleaved packets ---


class Wire:
    """Takes a connection apart, in pieces of any size."""

    def __init__(self):
        self.packets, self.messages = [], []
        channels = {channel: partial(self._packet, channel) for channel in (0, 1)}
        self.parts = Interleaved(channels, message=self.messages.append)
        self._tail = b""

    def _packet(self, channel, data, start, end):
        self.packets.append((channel, bytes(data[start:end])))
        return end

    def feed(self, data):
        whole = self._tail + data
        done = self.parts.feed(memoryview(whole))
        assert 0 <= done <= len(whole)
        self._tail = whole[done:]


def framed(channel, payload):
    return struct.pack(">cBH", b"$", channel, len(payload)) + payload


def rtp_packet(sequence, payload=b"x" * 20, *, stamp=0, mark=False, kind=96, ssrc=1):
    return (
        struct.pack(">BBHII", 0x80, 0x80 * mark | kind, sequence & 0xFFFF, stamp & 0xFFFFFFFF, ssrc) + payload
    )


ANSWER = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: 3\r\n\r\nabc"


@given(
    st.lists(
        st.one_of(
            st.just(ANSWER),
            st.builds(
                lambda channel, body: framed(channel, b"\x80" + body),
                st.integers(0, 1),
                st.binary(min_size=11),
            ),
        ),
        max_size=8,
    ),
    st.lists(st.integers(1, 50), min_size=1),
)
def test_packets_and_messages_are_told_apart_wherever_the_reads_cut_them(items, sizes):
    wire, data = Wire(), b"".join(items)
    at = turn = 0
    while at < len(data):
        wire.feed(data[at : at + sizes[turn % len(sizes)]])
        at, turn = at + sizes[turn % len(sizes)], turn + 1
    assert [framed(*one) for one in wire.packets] == [one for one in items if one[:1] == b"$"]
    assert len(wire.messages) == items.count(ANSWER)
    assert wire.parts.skipped == 0


@pytest.mark.parametrize(
    "between",
    [
        pytest.param(b"\x00\x01\x02", id="bytes of nobody's"),
        pytest.param(b"$$$$", id="dollars"),
        pytest.param(framed(0, rtp_packet(1))[:-5], id="a packet cut short"),
        pytest.param(framed(0, rtp_packet(1)) + b"12345", id="a packet too long for its length"),
        pytest.param(b"RTSP/1.0 2", id="the beginning of an answer"),
    ],
)
def test_what_belongs_to_nothing_takes_at_most_the_packets_beside_it_along(between):
    wire = Wire()
    good = [framed(0, rtp_packet(number, bytes([number]) * 40)) for number in range(250)]
    wire.feed(b"".join(good[:10]) + between + b"".join(good[10:]))
    found = [framed(*one) for one in wire.packets]
    assert found[:9] == good[:9]
    assert found[-239:] == good[-239:]
    assert wire.parts.skipped > 0


def test_packets_of_a_channel_that_nobody_set_up_are_passed_over():
    wire = Wire()
    wire.feed(framed(0, rtp_packet(0)) + framed(9, b"$" * 30) + framed(0, rtp_packet(1)))
    assert (len(wire.packets), wire.parts.unknown, wire.parts.skipped) == (2, 1, 0)


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_no_bytes_break_the_taking_apart_and_none_are_kept_for_ever(pieces):
    wire = Wire()
    for piece in [*pieces, b"\x00" * 70_000]:
        wire.feed(piece)
    for number in range(3000):
        wire.feed(framed(0, rtp_packet(number, b"y" * 100)))
    assert wire.packets


# --- RTP ---


class Payloads(Depacketizer):
    def __init__(self):
        self.found = []

    def payload(self, data, timestamp, marker, lost):
        self.found.append((bytes(data), timestamp, marker, lost))


def received(packets):
    kept = Payloads()
    receiver = Receiver(96, kept)
    for one in packets:
        receiver.packet(memoryview(one))
    return receiver, kept.found


def test_numbers_and_times_go_on_where_they_wrap():
    packets = [rtp_packet(65534 + at, stamp=2**32 - 7200 + 3600 * at) for at in range(5)]
    receiver, found = received(packets)
    assert [timestamp for _, timestamp, _, _ in found] == [3600 * at for at in range(5)]
    assert (receiver.lost, receiver.received, receiver.highest) == (0, 5, 65534 + 4)


@pytest.mark.parametrize(
    ("numbers", "lost"),
    [
        ([1, 2, 5], [0, 0, 2]),
        ([65535, 2], [0, 2]),
        ([1, 2, 2, 3], [0, 0, 0]),
        ([5, 3, 6], [0, 0]),
        ([5, 40_000, 40_001], [0, 1, 0]),
    ],
)
def test_what_is_missing_is_counted_and_what_came_already_is_not_taken_twice(numbers, lost):
    _, found = received([rtp_packet(number) for number in numbers])
    assert [one[3] for one in found] == lost


def test_sources_extensions_and_padding_are_no_payload():
    head = struct.pack(">BBHII", 0x80 | 0x20 | 0x10 | 2, 96, 7, 0, 1)
    packet = head + bytes(8) + struct.pack(">HH", 0xBEDE, 1) + bytes(4) + b"payload" + b"\x00\x00\x03"
    _, found = received([packet])
    assert found[0][0] == b"payload"


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_no_packet_breaks_the_receiver(packets):
    received([*packets, *(b"\x80\x60" + one for one in packets), *(b"\xbf\x60" + one for one in packets)])


# --- frames ---


def sent(film, *, drop=frozenset(), marks=True, stap=False):
    """Return the RTP packets of a film as the synthetic camera makes them."""
    packets, sequence = [], 65_500
    for units, number in zip(film.frames, film.numbers, strict=True):
        pieces = list(payloads(film, units))
        if stap and len(units) > 2:
            joined = b"".join(struct.pack(">H", len(unit)) + unit for unit in units[:2])
            head = b"\x18" if film.codec == "h264" else b"\x60\x01"
            pieces = [(head + joined, False), *payloads(film, units[2:])]
        for payload, last in pieces:
            if sequence not in drop:
                packets.append(rtp_packet(sequence, payload, stamp=number * TICKS, mark=last and marks))
            sequence += 1
    return packets


def framed_film(packets, codec):
    frames = []
    receiver = Receiver(96, (H264Frames if codec == "h264" else H265Frames)(frames.append))
    for one in packets:
        receiver.packet(memoryview(one))
    return frames


@pytest.mark.parametrize("how", [{}, {"stap": True}, {"marks": False}])
@pytest.mark.parametrize(("codec", "b_frames"), KINDS)
def test_every_frame_comes_out_byte_for_byte(codec, b_frames, how):
    film = stream(2, codec=codec, b_frames=b_frames)
    frames = framed_film(sent(film, **how), codec)
    count = len(film.frames) - (0 if how.get("marks", True) else 1)  # the last one's end is not known
    assert [frame.data for frame in frames] == [
        b"".join(START + unit for unit in units) for units in film.frames[:count]
    ]
    assert [frame.timestamp // TICKS for frame in frames] == list(film.numbers[:count])
    assert [frame.keyframe for frame in frames] == [at % GOP == 0 for at in range(count)]


@pytest.mark.parametrize("size", [200, 1_500, 40_000])
@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_a_frame_outlives_the_bytes_that_it_was_read_from(codec, size):
    film, frames = stream(2, codec=codec), []
    depacketizer = (H264Frames if codec == "h264" else H265Frames)(frames.append)
    wire = b"".join(framed(0, one) for one in sent(film))
    buffer = memoryview(bytearray(size + 2_000))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = Connection(ours, "rtsp://camera/", None, patience=9)
        connection.listen(0, Receiver(96, depacketizer).packets, depacketizer.keep)
        connection.go_live()
        for at in range(0, len(wire), size):
            theirs.sendall(wire[at : at + size])
            assert connection.read(buffer)
            buffer[:] = bytes(len(buffer))
    assert frames == framed_film(sent(film), codec)


def test_a_marker_after_parameter_sets_ends_no_frame():
    film = stream(2)
    packets = sent(film)
    packets[0] = rtp_packet(65_500, packets[0][12:], mark=True)
    assert len(framed_film(packets, "h264")) == len(film.frames)


def test_what_loss_leaves_of_a_frame_is_kept_and_said():
    film = stream(4, 1280, 720)
    packets = sent(film)
    long = next(at for at, one in enumerate(packets) if one[12] & 0x1F == 28 and at > 40)
    frames = framed_film(packets[: long + 1] + packets[long + 3 :], "h264")
    assert sum(frame.lost for frame in frames) == 2
    assert len(frames) == len(film.frames)


@pytest.mark.parametrize(
    ("packets", "reason"),
    [
        pytest.param([rtp_packet(0, b"\x1a" + b"x" * 9)], "packetization-mode", id="MTAP"),
        pytest.param(
            [rtp_packet(0, b"\x65x", mark=True), rtp_packet(1, b"\x65y", mark=True)],
            "marker-inside-frame",
            id="marker",
        ),
        pytest.param(
            [rtp_packet(at, b"\x41x", stamp=at * 90_000, mark=True) for at in range(12)],
            "no-keyframe",
            id="no keyframe",
        ),
    ],
)
def test_what_is_not_understood_is_left_to_another_receiver(packets, reason):
    with pytest.raises(Doubt) as doubt:
        framed_film(packets, "h264")
    assert doubt.value.reason == reason


@given(
    st.sampled_from(["h264", "hevc"]), st.lists(st.tuples(st.binary(max_size=40), st.booleans()), max_size=30)
)
def test_no_payload_breaks_the_framing(codec, contents):
    packets = [
        rtp_packet(at, body, stamp=at // 3 * TICKS, mark=mark) for at, (body, mark) in enumerate(contents)
    ]
    try:
        frames = framed_film(packets, codec)
    except Doubt:
        return
    assert all(frame.data.startswith(START) for frame in frames)


FRAGMENTS = {
    "h264": [b"\x7c\x85", b"\x7c\x05", b"\x7c\x45", b"\x5c\x05", b"\x65"],
    "hevc": [b"\x62\x01\x93", b"\x62\x01\x13", b"\x62\x01\x53", b"\x62\x02\x13", b"\x26\x01"],
}
"""What payloads begin with: of a unit in fragments first, middle, last, another middle; of a whole unit."""


def taken(data, codec, *, together, kind=96):
    """Return all that comes of what a connection brought, its packets looked at one by one or together."""
    frames = []
    receiver = Receiver(kind, (H264Frames if codec == "h264" else H265Frames)(frames.append))

    def alone(data, start, end):
        receiver.packet(data[start:end])
        return end

    parts = Interleaved({0: receiver.packets if together else alone}, message=lambda _: None)
    done = doubt = None
    try:
        done = parts.feed(memoryview(data))
    except Doubt as raised:
        doubt = raised.reason
    counted = receiver.received, receiver.lost, receiver.malformed, receiver.highest, receiver.ssrc
    return [astuple(one) for one in frames], counted, parts.skipped, parts.unknown, done, doubt


DEVIATIONS = [
    *({"prefix": prefix} for prefix in (0, 2, 3, 4)),
    *({"size": size} for size in (0, 1, 7)),
    *({"on": on} for on in (0, 2, 4000, -3)),
    *(
        {"later": 1},
        {"on": 0, "later": 1},
        {"mark": True},
        {"kind": 97},
        {"ssrc": 2},
        {"flags": 0x90},
        {"flags": 0xA0},
    ),
    *({"between": between} for between in (b"$", b"\0", b"R", ANSWER, framed(1, b"\x80"), framed(0, b""))),
    *({"longer": longer} for longer in (-1, 1, 22)),
]
"""How a packet differs from those that go on with a unit in fragments and are as long."""


def fragmented(codec, number, deviations):
    """Return a unit in eleven fragments; ``deviations`` says of some how they differ."""
    data, stamp = b"", 0
    for at in range(11):
        how = {
            "prefix": min(at, 1),
            "size": 6,
            "on": 1,
            "later": 0,
            "between": b"",
            "longer": 0,
            "flags": 0x80,
        }
        how |= deviations.get(at, {"prefix": 2, "mark": True} if at == 10 else {})
        number, stamp = number + how.pop("on"), stamp + how.pop("later") * TICKS
        body, longer = FRAGMENTS[codec][how.pop("prefix")] + b"\1" * how.pop("size"), how.pop("longer")
        flags, between = how.pop("flags"), how.pop("between")
        packet = bytes([flags]) + rtp_packet(number, body, stamp=stamp, **how)[1:]
        data += struct.pack(">cBH", b"$", 0, len(packet) + longer) + packet + between
    return data


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_packets_taken_together_are_taken_as_each_alone(codec):
    for deviation in ({}, *DEVIATIONS):
        for at in range(10):
            for until in (at + 1, 10):
                data = fragmented(codec, 0xFFF9, dict.fromkeys(range(at, until), deviation))
                assert taken(data, codec, together=True) == taken(data, codec, together=False)


@given(
    st.sampled_from(["h264", "hevc"]),
    st.dictionaries(st.integers(0, 9), st.sampled_from(DEVIATIONS), min_size=2),
    st.integers(0, 60),
)
def test_whatever_lies_between_and_wherever_the_read_ends(codec, deviations, missing):
    data = fragmented(codec, 7, deviations)
    data = data[: len(data) - missing]
    assert taken(data, codec, together=True) == taken(data, codec, together=False)


# --- arrival ---


@pytest.mark.parametrize("held_up", [0.0, 0.3, 0.7, 3.0])
@pytest.mark.parametrize("at", range(0, GOP, 4))
def test_a_loop_that_was_held_up_lets_no_segments_overlap_and_none_begin_late(held_up, at):
    """A frame comes each 40 ms, and what came is read each 120; once, at any place in a group, later."""
    began, frame, rest = (
        datetime(2026, 11, 24, 12, tzinfo=UTC),
        timedelta(seconds=1 / 25),
        timedelta(seconds=REST),
    )
    cutter, timeline, end = Cutter(Fraction(1, 90_000)), Timeline(max_offset=timedelta(seconds=2)), None
    now, number = began - rest / 2, 0
    while number < 10 * GOP:
        since = now
        now += rest + (timedelta(seconds=held_up) if number // 3 == (5 * GOP + at) // 3 else timedelta())
        first = number
        while began + number * frame <= now:
            arrived_at = arrival(since, now, (number - first) * frame.total_seconds())
            packet = Packet(b"", number * TICKS, number % GOP == 0, arrived_at, None)
            if group := cutter.add(packet):
                captured = began + (group.packets[0].pts // TICKS) * frame
                start = timeline.place(group, Fraction(1, 90_000))
                assert captured - rest - SLEW <= start <= captured
                assert end is None or start >= end - SLEW
                end = start + GOP * frame
                timeline.ended(end)
            number += 1


@pytest.mark.parametrize("held_up", [True, False], ids=["nobody takes what came", "a read is too small"])
def test_what_is_not_read_at_once_seems_no_younger_for_it(monkeypatch, held_up):
    """Two seconds of film came. It is read a little in each round, or a while later."""
    began = since = datetime(2026, 11, 24, 12, tzinfo=UTC)
    film, frame = stream(2), timedelta(seconds=1 / FRAME_RATE)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        camera = Camera(uuid4(), "lobby", "rtsp://camera/")
        connection = Connection(ours, camera.url, None, patience=9)
        told = NativeStream(Loop(now=lambda: began), connection, camera, timedelta(hours=1), began, str)
        feed = Feed(described(VIDEO).media[0], H264Frames(lambda frame: told._framed_one(feed, frame)))
        connection.listen(0, feed.receiver.packets, feed.keep)
        connection.go_live()
        theirs.sendall(b"".join(framed(0, one) for one in sent(film)))
        now = began + len(film.frames) * frame
        buffer = memoryview(bytearray(1_000_000 if held_up else 20_000))
        for number in range(30):
            with monkeypatch.context() as full:
                if held_up and number < 20:
                    full.setattr(source, "_MOST_WAITING", -1)
                told.readable(buffer, since, now)
            since, now = now, now + timedelta(seconds=REST)
        arrived = [packet.received_at for packet in told._batch]
    assert len(arrived) == len(film.frames)
    assert arrived == [began + number * frame for number in range(len(arrived))]


# --- reports ---


def test_a_sender_report_tells_the_cameras_time():
    at = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)
    seconds = (at - EPOCH).total_seconds() + 2_208_988_800
    (report,) = rtcp.parse(sender_report(7, seconds, 1234, 5, 6))
    assert (report.ssrc, report.timestamp) == (7, 1234)
    assert abs(rtcp.wall_clock(report) - at) < timedelta(milliseconds=1)


def test_a_clock_that_wraps_in_2036_goes_on_and_one_that_is_not_set_says_nothing():
    at = datetime(2036, 3, 1, tzinfo=UTC)
    seconds = (at - EPOCH).total_seconds() + 2_208_988_800
    assert rtcp.wall_clock(rtcp.SenderReport(1, int(seconds * 2**32) % 2**64, 0)) == at
    assert rtcp.wall_clock(rtcp.SenderReport(1, 0, 0)) is None


def test_a_receiver_report_is_read_by_its_own_definition():
    body = rtcp.receiver_report(1, 2, fraction_lost=3, lost=4, highest=5, last=6, delay=7)
    version, kind, words, ours, theirs, loss, highest, jitter, last, delay = struct.unpack(
        ">BBHIIIIIII", body[:32]
    )
    assert (version, kind, words, ours, theirs) == (0x81, 201, 7, 1, 2)
    assert (loss, highest, jitter, last, delay) == (3 << 24 | 4, 5, 0, 6, 7)
    assert struct.unpack(">BBH", body[32:36])[:2] == (0x81, 202)
    assert len(body) % 4 == 0
    assert list(rtcp.parse(body)) == []


@given(st.binary(max_size=120))
def test_no_report_breaks_the_reading(data):
    for one in rtcp.parse(b"\x80\xc8" + data):
        if isinstance(one, rtcp.SenderReport):
            rtcp.wall_clock(one)


# --- parameter sets ---


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize(("width", "height"), [(640, 360), (1920, 1080), (322, 182)])
def test_the_size_of_the_picture_is_read_as_libav_reads_it(codec, width, height):
    film = stream(2, width, height, codec=codec)
    sps = film.parameter_sets[-2]
    found = parameters.picture(codec, sps)
    assert (found.width, found.height) == (width, height)


@given(st.sampled_from(["h264", "hevc"]), st.binary(max_size=60))
def test_no_parameter_set_breaks_the_reading(codec, data):
    for unit in (data, b"\x67\x64\x00\x1f" + data, b"\x42\x01" + data):
        try:
            found = parameters.picture(codec, unit)
        except parameters.Unreadable:
            continue
        assert 0 < found.width <= 16384


@given(st.binary(max_size=200))
def test_the_sets_of_a_frame_are_those_before_its_picture(data):
    film = stream(2)
    units = [*film.parameter_sets, b"\x65" + data.replace(b"\x00\x00", b"\x00\x01") + b"\x01", b"\x67late"]
    assert parameters.sets("h264", b"".join(START + unit for unit in units)) == list(film.parameter_sets)
    parameters.sets("h264", data)
    parameters.sets("hevc", data)


# --- MP4 ---


def groups(codec, b_frames, *, claimed=None, seconds=4, width=WIDTH, height=HEIGHT):
    film = stream(seconds, width, height, codec=codec, b_frames=b_frames)
    info = packed_info(codec)
    cutter = Cutter(info.time_base)
    found = []
    for at, (units, number) in enumerate(zip(film.frames, film.numbers, strict=True)):
        data = b"".join(START + unit for unit in units)
        packet = Packet(data, number * TICKS, at % GOP == 0, EPOCH, claimed)
        found.append(cutter.add(packet))
    return info, [one for one in [*found, cutter.flush()] if one]


def packed(codec, b_frames, **how):
    info, parts = groups(codec, b_frames, **how)
    packer = mp4.Packer(info, parts[0].packets[0])
    return packer, [packer.pack(group) for group in parts], parts


@pytest.mark.parametrize(("codec", "b_frames"), KINDS)
def test_two_decoders_and_our_own_reader_agree_about_a_segment(tmp_path, ffprobe_program, codec, b_frames):
    packer, fragments, _ = packed(codec, b_frames)
    film = tmp_path / "film.mp4"
    film.write_bytes(packer.movie(fragments))
    assert frame_numbers(film) == list(range(4 * GOP))
    command = [ffprobe_program, "-v", "error", "-count_frames", "-show_streams", "-of", "json", str(film)]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stderr == b""
    (answer,) = json.loads(done.stdout)["streams"]
    assert (answer["width"], answer["height"], int(answer["nb_read_frames"])) == (WIDTH, HEIGHT, 4 * GOP)
    ours = cmaf.parse(film.read_bytes())
    assert (ours.frames, ours.duration, ours.timescale) == (4 * GOP, 4 * GOP * TICKS, 90_000)
    joined = cmaf.join(ours.init, ours.fragments)
    (tmp_path / "joined.mp4").write_bytes(joined)
    assert frame_numbers(tmp_path / "joined.mp4") == list(range(4 * GOP))


def telling(group, *, units=slice(None), before=b"", behind=b""):
    """Return a group whose frames tell where ``units`` of theirs begin; ``before`` and ``behind`` is more."""
    packets = []
    for one in group.packets:
        found = [at.start() for at in re.finditer(START, one.data)]
        data = one.data if one.keyframe else before + one.data
        packets.append(replace(one, data=data + behind, units=tuple(found[units])))
    return replace(group, packets=packets)


def silent(group):
    return replace(group, packets=[replace(one, units=()) for one in group.packets])


@pytest.mark.parametrize(("codec", "b_frames"), KINDS)
def test_units_that_are_told_are_those_that_a_search_finds(codec, b_frames):
    info, parts = groups(codec, b_frames)
    first, second = (mp4.Packer(info, parts[0].packets[0]) for _ in range(2))
    for group in map(telling, parts):
        assert first.movie([first.pack(group)]) == second.movie([second.pack(silent(group))])


FILLER = START[1:] + b"\x0c\xff\x80"


@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize(
    "how",
    [
        pytest.param({"behind": FILLER}, id="anywhere"),
        pytest.param({"units": slice(1)}, id="parameter sets and picture"),
        pytest.param({"before": START + b"\x09\xf0"}, id="a delimiter and a picture"),
    ],
)
def test_cameras_that_send_several_units_as_one_are_seen_through(how, after):
    info, parts = groups("h264", 0)
    first, second = (mp4.Packer(info, parts[0].packets[0]) for _ in range(2))
    for at, group in enumerate(parts):
        group = telling(group, **how if at >= after else {})
        assert first.movie([first.pack(group)]) == second.movie([second.pack(silent(group))])


def told(movie):
    """Return what MediaInfo says of each track, every byte read."""
    told = MediaInfo.parse(io.BytesIO(movie), parse_speed=1).tracks
    return [one for one in told if one.track_type != "General"]


@pytest.mark.parametrize(
    ("codec", "b_frames", "size", "name", "profile"),
    [
        pytest.param("h264", 0, (WIDTH, HEIGHT), "AVC", "Constrained Baseline@L3", id="H.264"),
        pytest.param("h264", 2, (WIDTH, HEIGHT), "AVC", "Main@L3", id="H.264 with B-frames"),
        pytest.param("h264", 0, (320, 180), "AVC", "Constrained Baseline@L1.2", id="another size"),
        pytest.param("hevc", 0, (WIDTH, HEIGHT), "HEVC", "Main@L2.1@Main", id="H.265"),
        pytest.param("hevc", 3, (WIDTH, HEIGHT), "HEVC", "Main@L2.1@Main", id="H.265 with B-frames"),
    ],
)
def test_a_parser_that_shares_no_code_with_libav_reads_the_same(codec, b_frames, size, name, profile):
    width, height = size
    packer, fragments, _ = packed(codec, b_frames, width=width, height=height)
    (picture,) = told(packer.movie(fragments))
    assert (picture.format, picture.format_profile) == (name, profile)
    assert (picture.width, picture.height) == size
    assert (int(picture.frame_count), picture.duration) == (4 * GOP, 4_000)  # ms
    assert (picture.frame_rate_mode, float(picture.frame_rate)) == ("CFR", FRAME_RATE)


@pytest.mark.parametrize(("codec", "b_frames"), KINDS)
def test_what_is_packed_is_shown_when_libav_would_show_it_byte_for_byte(codec, b_frames):
    packer, fragments, parts = packed(codec, b_frames)
    read = read_by_libav(packer.movie(fragments))
    sent_packets = [packet for group in parts for packet in group.packets]
    assert [one.pts - read[0].pts for one in read] == [packet.pts for packet in sent_packets]
    theirs = read_by_libav(Muxer(packed_info(codec)).mux(parts[0]))
    assert [(one.pts, one.dts, one.duration) for one in theirs] == [
        (one.pts, one.dts, one.duration) for one in read[:GOP]
    ]
    assert [packet.is_keyframe for packet in read] == [packet.keyframe for packet in sent_packets]
    assert all(packet.dts <= packet.pts for packet in read)
    for ours, theirs in zip(sent_packets, read, strict=True):
        units = parameters.units(ours.data)
        assert bytes(theirs) == b"".join(struct.pack(">I", len(unit)) + unit for unit in units)


def packed_info(codec):
    return StreamInfo(codec, WIDTH, HEIGHT, Fraction(1, 90_000), b"")


def read_by_libav(movie):
    with av.open(io.BytesIO(movie)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


def boxes(data):
    at, found = 0, []
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found.append((data[at + 4 : at + 8], at, data[at + 8 : at + size]))
        at += size
    return found


def test_the_index_leads_to_each_fragment_and_the_cameras_clock_stands_before_it():
    claimed = datetime(2026, 11, 24, 12, tzinfo=UTC) + timedelta(microseconds=250_000)
    packer, fragments, _ = packed("h264", 0, claimed=claimed)
    found = boxes(packer.movie(fragments))
    each = [b"sidx", b"prft", b"moof", b"mdat"]
    assert [name for name, _, _ in found] == [b"ftyp", b"moov", *each * 4]
    for number in range(4):
        _, at, index = found[2 + 4 * number]
        assert struct.unpack_from(">IIQQHH", index, 4) == (1, 90_000, number * GOP * TICKS, 0, 0, 1)
        size, duration, access_point = struct.unpack_from(">III", index, 32)
        assert (duration, access_point) == (GOP * TICKS, 0x90000000)
        following = at + 8 + len(index) + size
        assert following == (found[6 + 4 * number][1] if number < 3 else len(packer.movie(fragments)))
    track, ntp, media = struct.unpack_from(">IQQ", found[7][2], 4)
    assert (track, media) == (1, GOP * TICKS)
    assert EPOCH + timedelta(seconds=(ntp / 2**32) - 2_208_988_800) == claimed


def test_sets_that_a_keyframe_lacks_are_taken_from_the_description():
    film = stream(2)
    info = StreamInfo(
        "h264", WIDTH, HEIGHT, Fraction(1, 90_000), b"".join(START + one for one in film.parameter_sets)
    )
    bare = Packet(START + film.frames[0][-1], 0, True, EPOCH, None)
    assert b"avcC" in mp4.Packer(info, bare).header
    with pytest.raises(parameters.Unreadable):
        mp4.Packer(replace(info, extradata=b""), bare)
