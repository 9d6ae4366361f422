"""What cameras may write by the RFCs, and some do: it is read as meant. Pure; each case names its clause."""

from __future__ import annotations

import base64
import struct
from datetime import timedelta

import pytest

from tests.rooms.test_native import START, VIDEO, Payloads, described, framed_film, received, rtp_packet
from videostore.recorder.native import rtcp, rtsp
from videostore.recorder.native.feed import Feed
from videostore.recorder.native.frames import Doubt
from videostore.recorder.native.source import _sprop, _video
from videostore.synthetic.rtp import sender_report
from videostore.synthetic.stream import stream

# --- SDP (RFC 8866; RFC 2326, appendix C) ---

SOUND = "m=audio 0 RTP/AVP 8\r\na=control:sound\r\n"


@pytest.mark.parametrize(
    ("session", "control", "together", "url"),
    [
        pytest.param("", "a", "rtsp://h/c", "rtsp://h/c/a", id="no control of the session"),
        pytest.param("*", "*", "rtsp://h/c", "rtsp://h/c", id="all are one"),
        pytest.param("*", "", "rtsp://h/c", "rtsp://h/c", id="one stream without a control"),
        pytest.param("*", "t?u=1&v=2", "rtsp://h/c", "rtsp://h/c/t?u=1&v=2", id="a query"),
        pytest.param("*", "rtsp://o:8554/t?u=a/b", "rtsp://h/c", "rtsp://o:8554/t?u=a/b", id="absolute"),
        pytest.param("rtsp://h/c?x=1", "t", "rtsp://h/c?x=1", "rtsp://h/c?x=1/t", id="a query before it"),
        pytest.param("all", "t", "rtsp://h/c/all", "rtsp://h/c/all/t", id="relative to what is relative"),
    ],
)
def test_a_stream_is_set_up_and_all_are_played_by_the_urls_of_c_1_1(session, control, together, url):
    first = f"v=0\r\na=control:{session}\r\n" if session else "v=0\r\n"
    found = described(f"{first}{VIDEO}" + (f"a=control:{control}\r\n" if control else ""), "rtsp://h/c")
    assert (found.control, found.media[0].control) == (together, url)


@pytest.mark.parametrize(
    "mode", ["", "a=fmtp:96 packetization-mode=0\r\n", "a=fmtp:96 profile-level-id=42\r\n"]
)
def test_the_picture_is_found_wherever_it_stands_and_needs_no_parameters(mode):
    """RFC 6184, 8.1: mode 0 if none is said; the parameter sets may come in the stream alone."""
    first = described(f"{SOUND}{VIDEO}a=control:picture\r\n{mode}{VIDEO}a=control:other\r\n").media
    found = _video(described(f"{SOUND}{VIDEO}a=control:picture\r\n{mode}"))
    assert [one.kind for one in first] == ["audio", "video", "video"]
    assert (found.control, _sprop(found, ("sprop-parameter-sets",))) == ("rtsp://10.0.0.7/live/picture", [])


def test_parameter_sets_that_are_not_all_there_or_no_base64_are_waited_for_in_the_stream():
    sps, pps = (base64.b64encode(one).decode() for one in stream(2).parameter_sets)
    for said, count in ((f"{sps},{pps}", 2), (f"{sps},{pps},", 2), (sps, 0), (f"{sps},!", 0), (",", 0)):
        (media,) = described(f"{VIDEO}a=fmtp:96 sprop-parameter-sets={said}\r\n").media
        assert len(_sprop(media, ("sprop-parameter-sets",))) == count


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (SOUND, "no-video"),
        (VIDEO.replace("AVP", "SAVP"), "profile"),
        (f"{VIDEO}a=fmtp:96 packetization-mode=2\r\n", "packetization-mode"),
        (VIDEO.replace("H264", "H265") + "a=fmtp:96 sprop-max-don-diff=1\r\n", "packetization-mode"),
    ],
)
def test_what_is_not_ours_is_left_to_another_receiver(text, reason):
    with pytest.raises(Doubt) as doubt:
        _video(described(text))
    assert doubt.value.reason == reason


def test_names_of_headers_have_no_case_and_lines_may_end_in_lf():
    text = b"RTSP/1.0 200 OK\nTRANSPORT: RTP/AVP/TCP; Interleaved = 6-7\nsession:9;Timeout=5\n\n"
    message, length = rtsp.take(text)
    assert (rtsp.session(message), length) == (("9", 5.0), len(text))
    assert rtsp.channels(message) == (6, 7)  # not those that were asked for


# --- RTP (RFC 3550) ---


@pytest.mark.parametrize(
    ("flags", "before", "after"),
    [
        pytest.param(0x0F, bytes(60), b"", id="fifteen sources"),
        pytest.param(0x10, bytes(4), b"", id="an extension of no length"),
        pytest.param(0x10, b"\xab\xac\x00\x03" + bytes(12), b"", id="the time of ONVIF"),
        pytest.param(0x20, b"", b"\x01", id="a byte of padding"),
        pytest.param(0x20, b"", bytes(254) + b"\xff", id="as much padding as there may be"),
    ],
)
def test_what_stands_around_a_payload_is_none(flags, before, after):
    _, found = received([struct.pack(">BBHII", 0x80 | flags, 96, 1, 0, 1) + before + b"payload" + after])
    assert [one[0] for one in found] == [b"payload"]


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(struct.pack(">BBHII", 0x8F, 96, 1, 0, 1) + bytes(59), id="sources beyond the end"),
        pytest.param(
            struct.pack(">BBHII", 0x90, 96, 1, 0, 1) + b"\0\0\0\x02xxxx", id="an extension beyond it"
        ),
        pytest.param(struct.pack(">BBHII", 0xA0, 96, 1, 0, 1) + b"xx\x09", id="more padding than there is"),
        pytest.param(struct.pack(">BBHII", 0xA0, 96, 1, 0, 1) + b"xx\x00", id="padding of no length"),
        pytest.param(struct.pack(">BBHII", 0x40, 96, 1, 0, 1), id="version 1"),
        pytest.param(bytes(11), id="no header"),
    ],
)
def test_a_packet_that_contradicts_itself_is_counted_and_left(broken):
    receiver, found = received([broken, rtp_packet(2)])
    assert (receiver.malformed, receiver.received, len(found)) == (1, 1, 1)


@pytest.mark.parametrize("number", [9_000, 9_990, 10_010, 12_000, 40_000, 65_535])
def test_a_source_that_begins_anew_is_taken_from_its_first_packet_whatever_its_number(number):
    """RFC 3550, 8.2: another SSRC is another source, whose numbers have nothing to do with the old ones."""
    old = [rtp_packet(one, ssrc=1) for one in range(10_000, 10_005)]
    new = [rtp_packet(number + at, b"new", ssrc=2) for at in range(3)]
    receiver, found = received(old + new)
    assert [one[0] for one in found[5:]] == [b"new"] * 3
    assert [one[3] for one in found] == [0] * 5 + [1, 0, 0]
    assert (receiver.ssrc, receiver.lost) == (2, 1)


def test_the_clock_of_a_source_that_is_gone_says_nothing_of_the_next():
    (media,) = described(VIDEO).media
    feed = Feed(media, Payloads())
    for report in rtcp.parse(sender_report(1, 3_900_000_000, 90_000, 5, 6)):
        feed.told(report)
    feed.receiver.packet(rtp_packet(7, stamp=180_000, ssrc=1))
    told = feed.claimed(feed.receiver.ticks(180_000))
    assert told == rtcp.wall_clock(report) + timedelta(seconds=1)
    feed.receiver.packet(rtp_packet(90, stamp=77, ssrc=2))
    assert feed.claimed(feed.receiver.ticks(77)) is None


# --- units (RFC 6184, RFC 7798) ---


def h264(*payloads):
    """The frame of an IDR picture whose packets have these payloads; None stands for one that was lost."""
    count = len(payloads)
    packets = [rtp_packet(0, b"\x65first", mark=True)]
    packets += [
        rtp_packet(at, body, stamp=3600, mark=at == count)
        for at, body in enumerate(payloads, 1)
        if body is not None
    ]
    packets.append(rtp_packet(count + 1, b"\x41last", stamp=7200, mark=True))
    return framed_film(packets, "h264")[1:]


@pytest.mark.parametrize(
    ("payloads", "units", "lost"),
    [
        pytest.param([b"\x78\0\x04\x65abc"], [b"\x65abc"], 0, id="one unit in a STAP-A"),
        pytest.param(
            [b"\x78\0\x02\x67a\0\x02\x68b\0\x02\x65c"], [b"\x67a", b"\x68b", b"\x65c"], 0, id="three"
        ),
        pytest.param([b"\x78\0\x02\x65a\0\x09\x06b"], [b"\x65a"], 1, id="a size beyond the end"),
        pytest.param([b"\x78\0\x02\x65a\0\0"], [b"\x65a"], 1, id="a unit of no size"),
        pytest.param([b"\x7c\x85ab", b"\x7c\x05cd", b"\x7c\x45ef"], [b"\x65abcdef"], 0, id="FU-A"),
        pytest.param([b"\x7c\xc5abc"], [b"\x65abc"], 0, id="FU-A that begins and ends at once"),
        pytest.param([None, b"\x7c\x05cd", b"\x7c\x45ef"], [b"\x65cdef"], 1, id="its beginning lost"),
        pytest.param([b"\x7c\x85ab", None, b"\x7c\x45ef"], [b"\x65abef"], 1, id="its middle lost"),
        pytest.param([b"\x7c\x85ab", None, b"\x65cd"], [b"\x65ab", b"\x65cd"], 1, id="its end lost"),
        pytest.param(
            [b"\x67a", b"\x68b", b"\x65c", b"\x65d"], [b"\x67a", b"\x68b", b"\x65c", b"\x65d"], 0, id="mode 0"
        ),
        pytest.param([b"\x7c\x85", b"\x65cd"], [b"\x65cd"], 1, id="FU-A of nothing"),
    ],
)
def test_units_come_out_of_packets_as_they_went_in_and_loss_is_said(payloads, units, lost):
    frame = h264(*payloads)[0]
    assert frame.data == b"".join(START + unit for unit in units)
    assert (frame.keyframe, frame.lost) == (True, lost)


def test_what_the_end_of_a_frame_took_along_is_said_with_the_next():
    """The marker was in the packet that is lost."""
    frames = h264(b"\x7c\x85ab", None)
    assert [frame.data for frame in frames] == [START + b"\x65ab", START + b"\x41last"]
    assert [frame.lost for frame in frames] == [0, 1]


# --- RTCP (RFC 3550, 6.1) ---


def test_a_report_is_found_among_packets_of_kinds_that_nobody_knows():
    unknown = struct.pack(">BBHI", 0x80, 207, 2, 1) + bytes(4)  # RFC 3611, extended reports
    private = struct.pack(">BBHI4s", 0x80, 204, 2, 1, b"cam!")
    report = sender_report(7, 3_900_000_000, 1234, 5, 6)
    bye = struct.pack(">BBHI", 0x81, 203, 1, 7)
    assert list(rtcp.parse(unknown + private + bye)) == [rtcp.Bye(7)]
    assert [one.ssrc for one in rtcp.parse(unknown + report + private)] == [7]
    assert list(rtcp.parse(report[:20])) == []
