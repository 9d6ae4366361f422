"""What a synthetic camera sends: its SDP, frames in RTP packets, sender reports. Pure."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Sequence

from videostore.synthetic.stream import FRAME_RATE, Stream
from videostore.synthetic.tone import Tone

CLOCK_HZ = 90_000
PAYLOAD_TYPES = {"h264": 96, "hevc": 97, "mjpeg": 26, "aac": 98, "pcm_alaw": 8, "pcm_mulaw": 0}
NTP_EPOCH = 2_208_988_800
"""Seconds from 1900 to 1970."""
_MTU = 1_400


def payloads(stream: Stream, units: Sequence[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield the payloads of one frame, each with whether it is the last."""
    match stream.codec:
        case "mjpeg":
            yield from _jpeg(units[0], stream.width, stream.height)
        case codec:
            for index, unit in enumerate(units):
                for payload, ends in _h264(unit) if codec == "h264" else _hevc(unit):
                    yield payload, ends and index == len(units) - 1


def _h264(unit: bytes) -> Iterator[tuple[bytes, bool]]:
    """RFC 6184, sections 5.6 and 5.8: a NAL unit by itself, or in fragments (FU-A)."""
    if len(unit) <= _MTU:
        yield unit, True
        return
    for at in range(1, len(unit), _MTU):
        ends = at + _MTU >= len(unit)
        header = unit[0] & 0x1F | (0x80 if at == 1 else 0) | (0x40 if ends else 0)
        yield bytes([unit[0] & 0xE0 | 28, header]) + unit[at : at + _MTU], ends


def _hevc(unit: bytes) -> Iterator[tuple[bytes, bool]]:
    """RFC 7798, sections 4.4.1 and 4.4.3: a NAL unit by itself, or in fragmentation units (type 49)."""
    if len(unit) <= _MTU:
        yield unit, True
        return
    for at in range(2, len(unit), _MTU):
        ends = at + _MTU >= len(unit)
        header = unit[0] >> 1 & 0x3F | (0x80 if at == 2 else 0) | (0x40 if ends else 0)
        yield bytes([unit[0] & 0x81 | 49 << 1, unit[1], header]) + unit[at : at + _MTU], ends


def _jpeg(image: bytes, width: int, height: int) -> Iterator[tuple[bytes, bool]]:
    """RFC 2435, section 3.1: scan data behind a header, the quantisation tables with the first packet."""
    tables, scan = taken_apart(image)
    for at in range(0, len(scan), _MTU):
        header = struct.pack(">B", 0) + at.to_bytes(3, "big") + bytes([1, 255, width // 8, height // 8])
        if at == 0:
            header += struct.pack(">BBH", 0, 0, len(tables)) + tables
        yield header + scan[at : at + _MTU], at + _MTU >= len(scan)


def taken_apart(image: bytes) -> tuple[bytes, bytes]:
    """Return the two quantisation tables and the scan of a baseline JPEG (ITU-T T.81, annex B)."""
    tables, at = b"", 2
    while image[at + 1] != 0xDA:
        length = int.from_bytes(image[at + 2 : at + 4], "big")
        if image[at + 1] == 0xDB:
            body = image[at + 4 : at + 2 + length]
            tables += b"".join(body[start + 1 : start + 65] for start in range(0, len(body), 65))
        at += 2 + length
    at += 2 + int.from_bytes(image[at + 2 : at + 4], "big")
    tables = tables if len(tables) == 128 else tables * 2
    return tables, image[at : image.rindex(b"\xff\xd9")]


def sender_report(ssrc: int, ntp_seconds: float, timestamp: int, packets: int, octets: int) -> bytes:
    """RFC 3550, section 6.4.1, with the source description that 6.1 demands beside it."""
    ntp = int(ntp_seconds * 2**32)
    report = struct.pack(
        ">BBHIQIII", 0x80, 200, 6, ssrc, ntp % 2**64, timestamp, packets % 2**32, octets % 2**32
    )
    name = struct.pack(">BB", 1, 6) + b"camera"
    name += b"\x00" * (4 - len(name) % 4)
    return report + struct.pack(">BBHI", 0x81, 202, 1 + len(name) // 4, ssrc) + name


def sdp(stream: Stream, tone: Tone | None, *, parameters: bool) -> str:
    """RFC 8866; parameter sets as in RFC 6184, section 8.2, and RFC 7798, section 7.1, if ``parameters``."""
    kind = PAYLOAD_TYPES[stream.codec]
    lines = [
        "v=0",
        "o=- 1 1 IN IP4 127.0.0.1",
        "s=synthetic camera",
        "c=IN IP4 0.0.0.0",
        "t=0 0",
        "a=control:*",
        "a=range:npt=now-",
        f"m=video 0 RTP/AVP {kind}",
    ]
    sets = [base64.b64encode(unit).decode() for unit in stream.parameter_sets]
    match stream.codec:
        case "h264":
            lines.append(f"a=rtpmap:{kind} H264/{CLOCK_HZ}")
            profile = stream.parameter_sets[0][1:4].hex()
            known = f";profile-level-id={profile};sprop-parameter-sets={','.join(sets)}"
            lines.append(f"a=fmtp:{kind} packetization-mode=1{known if parameters else ''}")
        case "hevc":
            lines.append(f"a=rtpmap:{kind} H265/{CLOCK_HZ}")
            if parameters:
                named = zip(("vps", "sps", "pps"), sets, strict=True)
                lines.append(f"a=fmtp:{kind} " + ";".join(f"sprop-{name}={value}" for name, value in named))
        case _:
            lines.append(f"a=rtpmap:{kind} JPEG/{CLOCK_HZ}")
    lines += [f"a=framerate:{FRAME_RATE}", "a=control:trackID=0", *(_sound(tone) if tone else [])]
    return "".join(f"{line}\r\n" for line in lines)


def _sound(tone: Tone) -> list[str]:
    """RFC 3551, section 6, for G.711; RFC 3640, section 4.1 and 3.3.6, for AAC."""
    kind = PAYLOAD_TYPES[tone.codec]
    name = {"aac": "mpeg4-generic", "pcm_alaw": "PCMA", "pcm_mulaw": "PCMU"}[tone.codec]
    lines = [f"m=audio 0 RTP/AVP {kind}", f"a=rtpmap:{kind} {name}/{tone.rate_hz}/1"]
    if tone.codec == "aac":
        lines.append(
            f"a=fmtp:{kind} streamtype=5;profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;"
            f"indexdeltalength=3;config={tone.config.hex()}"
        )
    return [*lines, "a=control:trackID=1"]


def sound_payload(tone: Tone, unit: bytes) -> bytes:
    """G.711 as it is; one access unit of AAC behind its size (13 bits) and index (3): RFC 3640, 3.3.6."""
    return struct.pack(">HH", 16, len(unit) << 3) + unit if tone.codec == "aac" else unit
