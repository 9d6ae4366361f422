"""Parameter sets: how large the pictures are, and the headers that MP4 makes of them. Pure.

Sources: ITU-T H.264 7.3.2.1, H.265 7.3.2.2 and 7.3.3 (syntax), ISO/IEC 14496-15 5.3.3 and 8.3.3 (avcC, hvcC).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

SETS = {"h264": (7, 8), "hevc": (32, 33, 34)}
_PICTURES = {"h264": range(1, 6), "hevc": range(32)}
_HIGH_PROFILES = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}
_WITH_CHROMA_IN_AVCC = {100, 110, 122, 144}
START = re.compile(rb"\x00\x00\x01")
"""Finds start codes of three bytes: at a third of what ``bytes.find`` takes for so short a pattern."""


class Unreadable(ValueError):
    """A parameter set that says nothing sensible."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What a sequence parameter set says. Pixels; ``chroma`` is chroma_format_idc."""

    width: int
    height: int
    chroma: int = 1
    luma_bits: int = 8
    chroma_bits: int = 8


def units(data: bytes) -> list[bytes]:
    """Split a byte stream at its start codes (annex B)."""
    found = [match.end() for match in START.finditer(data)]
    ends = [at - 3 for at in found[1:]] + [len(data)]
    split = (data[at:end] for at, end in zip(found, ends, strict=True))
    return [unit for unit in (one.rstrip(b"\x00") for one in split) if unit]


def sets(codec: str, data: bytes) -> list[bytes]:
    """Return the parameter sets that stand before the picture of a frame, each once."""
    found: list[bytes] = []
    begins = None
    for match in START.finditer(data):
        if begins is not None:
            found.append(data[begins : match.start()].rstrip(b"\x00"))
        number = kind(codec, data[match.end() : match.end() + 1] or b"\x00")
        begins = match.end() if number in SETS[codec] else None
        if number in _PICTURES[codec]:
            break
    if begins is not None:
        found.append(data[begins:].rstrip(b"\x00"))
    return list(dict.fromkeys(found))


def kind(codec: str, unit: bytes) -> int:
    """Return nal_unit_type."""
    return unit[0] & 0x1F if codec == "h264" else unit[0] >> 1 & 0x3F


def picture(codec: str, sps: bytes) -> Picture:
    """Read a sequence parameter set. Raises Unreadable."""
    try:
        found = _h264(sps) if codec == "h264" else _hevc(sps)
    except IndexError as error:
        raise Unreadable("the parameter set ends too early") from error
    if not (0 < found.width <= 16384 and 0 < found.height <= 16384):
        raise Unreadable(f"pictures of {found.width} x {found.height}")
    return found


class _Bits:
    """Reads bits, emulation prevention taken out (7.4.1)."""

    def __init__(self, unit: bytes) -> None:
        self._data = unit.replace(b"\x00\x00\x03", b"\x00\x00")
        self._at = 0

    def read(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | self._data[self._at >> 3] >> (7 - (self._at & 7)) & 1
            self._at += 1
        return value

    def skip(self, count: int) -> None:
        self._at += count

    def golomb(self) -> int:
        """Exp-Golomb, unsigned (9.1)."""
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros > 32:
                raise Unreadable("a number of more than 32 bits")
        return (1 << zeros) - 1 + self.read(zeros)


def _h264(sps: bytes) -> Picture:
    bits = _Bits(sps[1:])
    profile = bits.read(8)
    bits.skip(16)
    bits.golomb()
    chroma, luma_bits, chroma_bits, planes = 1, 8, 8, 0
    if profile in _HIGH_PROFILES:
        chroma = bits.golomb()
        if chroma == 3:
            planes = bits.read(1)
        luma_bits, chroma_bits = 8 + bits.golomb(), 8 + bits.golomb()
        bits.skip(1)
        if bits.read(1):
            for index in range(8 if chroma != 3 else 12):
                if bits.read(1):
                    _skip_scaling(bits, 16 if index < 6 else 64)
    bits.golomb()
    _skip_order(bits)
    bits.golomb()
    bits.skip(1)
    width, height = 16 * (bits.golomb() + 1), bits.golomb() + 1
    frames_only = bits.read(1)
    height *= 16 * (2 - frames_only)
    if not frames_only:
        bits.skip(1)
    bits.skip(1)
    if bits.read(1):
        left, right, top, bottom = (bits.golomb() for _ in range(4))
        kind = 0 if planes else chroma
        across, down = {0: (1, 1), 1: (2, 2), 2: (2, 1)}.get(kind, (1, 1))
        width -= across * (left + right)
        height -= down * (2 - frames_only) * (top + bottom)
    return Picture(width, height, chroma, luma_bits, chroma_bits)


def _skip_order(bits: _Bits) -> None:
    kind = bits.golomb()
    if kind == 0:
        bits.golomb()
    elif kind == 1:
        bits.skip(1)
        bits.golomb()
        bits.golomb()
        for _ in range(min(256, bits.golomb())):
            bits.golomb()


def _skip_scaling(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            number = bits.golomb()
            delta = (number + 1) // 2 if number & 1 else -(number // 2)
            following = (last + delta) % 256
        last = following or last


def _hevc(sps: bytes) -> Picture:
    bits = _Bits(sps[2:])
    bits.skip(4)
    layers = bits.read(3)
    bits.skip(1 + 96)
    if layers:
        present = [(bits.read(1), bits.read(1)) for _ in range(layers)]
        bits.skip(2 * (8 - layers))
        for profile, level in present:
            bits.skip(88 * profile + 8 * level)
    bits.golomb()
    chroma = bits.golomb()
    planes = bits.read(1) if chroma == 3 else 0
    width, height = bits.golomb(), bits.golomb()
    if bits.read(1):
        left, right, top, bottom = (bits.golomb() for _ in range(4))
        across, down = {1: (2, 2), 2: (2, 1)}.get(0 if planes else chroma, (1, 1))
        width -= across * (left + right)
        height -= down * (top + bottom)
    return Picture(width, height, chroma, 8 + bits.golomb(), 8 + bits.golomb())


def avcc(sets: Sequence[bytes]) -> bytes:
    """Return the AVCDecoderConfigurationRecord of H.264 parameter sets, units with lengths of four bytes."""
    sps = [one for one in sets if kind("h264", one) == 7]
    pps = [one for one in sets if kind("h264", one) == 8]
    if not sps or not pps or len(sps[0]) < 4:
        raise Unreadable("there are no parameter sets")
    record = bytes([1, *sps[0][1:4], 0xFF, 0xE0 | len(sps)]) + _sized(sps)
    record += bytes([len(pps)]) + _sized(pps)
    if sps[0][1] in _WITH_CHROMA_IN_AVCC:
        found = picture("h264", sps[0])
        record += bytes([0xFC | found.chroma, 0xF8 | found.luma_bits - 8, 0xF8 | found.chroma_bits - 8, 0])
    return record


def hvcc(sets: Sequence[bytes]) -> bytes:
    """Return the HEVCDecoderConfigurationRecord of H.265 parameter sets, units with lengths of four bytes."""
    by_kind = {number: [one for one in sets if kind("hevc", one) == number] for number in SETS["hevc"]}
    if not all(by_kind.values()):
        raise Unreadable("there are no parameter sets")
    sps = by_kind[33][0]
    found = picture("hevc", sps)
    plain = sps[2:].replace(b"\x00\x00\x03", b"\x00\x00")
    layers, nesting = (plain[0] >> 1 & 7) + 1, plain[0] & 1
    record = b"\x01" + plain[1:13] + b"\xf0\x00\xfc"
    record += bytes([0xFC | found.chroma, 0xF8 | found.luma_bits - 8, 0xF8 | found.chroma_bits - 8, 0, 0])
    record += bytes([layers << 3 | nesting << 2 | 3, len(by_kind)])
    for number, units_of_kind in by_kind.items():
        record += struct.pack(">BH", number, len(units_of_kind)) + _sized(units_of_kind)
    return record


def _sized(sets: Sequence[bytes]) -> bytes:
    return b"".join(struct.pack(">H", len(one)) + one for one in sets)
