"""Sound in RTP, as cameras pack it: AAC by RFC 3640, G.711 by RFC 3551. Nothing that is sent breaks it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rooms.test_native import VIDEO, described, received, rtp_packet
from videostore.recorder.native.frames import Doubt
from videostore.recorder.native.rtp import Receiver
from videostore.recorder.native.sound import AacUnits, G711Units, heard
from videostore.synthetic.rtp import sdp
from videostore.synthetic.stream import stream
from videostore.synthetic.tone import tone

HBR = (13, 3, 3)
"""AAC-hbr (RFC 3640, 3.3.6): bits of size, index and difference of indices."""


def packed(units, *, lengths=HBR, indices=None, sizes=None):
    """Return the payload of a packet."""
    bits = ""
    for place, unit in enumerate(units):
        index = indices[place] if indices else 0
        size = sizes[place] if sizes else len(unit)
        width = lengths[1 if place == 0 else 2]
        bits += f"{size:0{lengths[0]}b}" + (f"{index:0{width}b}" if width else "")
    head = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    return len(bits).to_bytes(2, "big") + head + b"".join(units)


def units_of(packets, lengths=HBR):
    found = []
    receiver = Receiver(96, AacUnits(found.append, lengths, 1024))
    for one in packets:
        receiver.packet(memoryview(one))
    return [(frame.data, frame.timestamp) for frame in found]


@pytest.mark.parametrize("lengths", [HBR, (6, 2, 2), (16, 0, 0)], ids=["hbr", "lbr", "sizes alone"])
def test_units_come_out_of_a_packet_each_at_its_time(lengths):
    units = [bytes([at]) * (at + 1) for at in range(5)]
    packets = [rtp_packet(1, packed(units, lengths=lengths), stamp=0, mark=True)]
    packets.append(rtp_packet(2, packed(units[:1], lengths=lengths), stamp=5 * 1024, mark=True))
    found = units_of(packets, lengths)
    assert found == [(unit, at * 1024) for at, unit in enumerate([*units, units[0]])]


def in_parts(unit, parts, *, first=1, stamp=0):
    size = -(-len(unit) // parts)
    return [
        rtp_packet(
            first + at,
            packed([unit[at * size : (at + 1) * size]], sizes=[len(unit)]),
            stamp=stamp,
            mark=at == parts - 1,
        )
        for at in range(parts)
    ]


def test_a_unit_in_several_packets_is_put_together_and_left_out_if_one_is_lost():
    unit = bytes(range(250)) * 3
    whole = [*in_parts(unit, 3), *in_parts(unit, 3, first=4, stamp=1024)]
    assert units_of(whole) == [(unit, 0), (unit, 1024)]
    for lost in range(3):
        assert units_of(whole[:lost] + whole[lost + 1 :]) == [(unit, 1024)]


def test_units_that_are_not_in_order_are_left_to_another_receiver():
    with pytest.raises(Doubt, match="sound-out-of-order"):
        units_of([rtp_packet(1, packed([b"a", b"b"], indices=[0, 1]))])


def test_a_byte_of_g711_is_a_sample():
    found = []
    units = G711Units(found.append)
    for number, body in enumerate((b"\xd5" * 160, b"", b"\xd5" * 320)):
        units.payload(memoryview(body), number * 160, True, 0)
    assert [(len(one.data), one.timestamp) for one in found] == [(160, 0), (320, 320)]


AUDIO = "m=audio 0 RTP/AVP 97\r\na=rtpmap:97 {}\r\na=fmtp:97 {}\r\n"
MODE = "mode=AAC-hbr;SizeLength=13;IndexLength=3;IndexDeltaLength=3"


@pytest.mark.parametrize(
    ("text", "info"),
    [
        ("m=audio 0 RTP/AVP 0\r\n", ("pcm_mulaw", 8_000, 1)),
        ("m=audio 0 RTP/AVP 8\r\na=rtpmap:8 pcma/8000/1\r\n", ("pcm_alaw", 8_000, 1)),
        ("m=audio 0 RTP/AVP 97\r\na=rtpmap:97 PCMU/16000/2\r\n", ("pcm_mulaw", 16_000, 2)),
        (AUDIO.format("mpeg4-generic/16000/1", f"{MODE};config=1408"), ("aac", 16_000, 1)),
        (AUDIO.format("MPEG4-GENERIC/48000/2", f"{MODE}; config=1190"), ("aac", 48_000, 2)),
    ],
)
def test_what_a_camera_says_of_its_sound_is_read(text, info):
    found = heard(described(VIDEO + text).media).info
    assert (found.codec, found.sample_rate_hz, found.channels) == info


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("m=audio 0 RTP/AVP 97\r\na=rtpmap:97 opus/48000/2\r\n", id="Opus"),
        pytest.param("m=audio 0 RTP/AVP 97\r\na=rtpmap:97 G726-32/8000\r\n", id="G.726"),
        pytest.param("m=audio 0 RTP/SAVP 0\r\n", id="encrypted"),
        pytest.param(AUDIO.format("mpeg4-generic/16000/1", f"{MODE};config=2b118800"), id="HE-AAC"),
        pytest.param(AUDIO.format("mpeg4-generic/16000/1", "mode=AAC-hbr;config=1408"), id="no sizes"),
        pytest.param(AUDIO.format("mpeg4-generic/16000/1", f"{MODE};config=xyz"), id="no config"),
        pytest.param(
            AUDIO.format("mpeg4-generic/16000/1", f"{MODE};config=1408;ctsDeltaLength=4"), id="more fields"
        ),
        pytest.param("m=audio 0 RTP/AVP 97\r\na=rtpmap:97 MP4A-LATM/16000\r\n", id="LATM"),
    ],
)
def test_sound_that_is_not_understood_is_left_to_another_receiver(text):
    with pytest.raises(Doubt, match="sound"):
        heard(described(VIDEO + text).media)


def test_no_sound_is_no_doubt():
    assert heard(described(VIDEO).media) is None


@pytest.mark.parametrize("codec", ["aac", "pcm_alaw", "pcm_mulaw"])
def test_the_description_of_a_synthetic_camera_says_what_it_sends(codec):
    found = heard(described(sdp(stream(2), tone(codec), parameters=True)).media).info
    assert (found.codec, found.sample_rate_hz) == (codec, tone(codec).rate_hz)
    assert found.extradata == tone(codec).config


@given(
    st.lists(st.tuples(st.binary(max_size=60), st.booleans()), max_size=20), st.sampled_from([HBR, (6, 2, 2)])
)
def test_no_payload_breaks_the_sound(contents, lengths):
    packets = [rtp_packet(at, body, stamp=at // 2, mark=mark) for at, (body, mark) in enumerate(contents)]
    try:
        found = units_of(packets, lengths)
    except Doubt:
        return
    assert sum(len(data) for data, _ in found) <= sum(len(body) for body, _ in contents)
    assert len(received(packets)[1]) == len(packets)


@given(st.text(max_size=200))
def test_no_description_of_sound_breaks_the_reading(text):
    for start in (
        "m=audio 0 RTP/AVP 97\r\na=rtpmap:97 mpeg4-generic/",
        f"{AUDIO.format('x/1', MODE)};config=",
    ):
        try:
            heard(described(start + text).media)
        except Doubt:
            continue
