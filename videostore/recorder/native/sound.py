"""RTP payloads put together to units of sound: AAC (RFC 3640), G.711 (RFC 3551, 4.5.14). Pure.

What a camera says of its sound decides who receives it: what is not read here, or may not be kept, is left to
another receiver, and so is its picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from videostore.ports import SoundInfo
from videostore.recorder.aac import UNIT_SAMPLES, can_be_kept, rate_and_channels
from videostore.recorder.native.frames import Doubt, Frame
from videostore.recorder.native.rtp import Depacketizer
from videostore.recorder.native.sdp import PROFILES, Media

_G711 = {"PCMA": "pcm_alaw", "PCMU": "pcm_mulaw"}
_NOT_READ = ("ctsdeltalength", "dtsdeltalength", "randomaccessindication", "streamstateindication",
             "auxiliarydatasizelength", "constantsize")  # fmt: skip
"""Parameters (RFC 3640, 4.1) that put something into packets which is not looked for."""
_LONGEST_FIELD = 16  # bits

Emit = Callable[[Frame], None]


@dataclass(frozen=True, slots=True)
class Heard:
    """A stream of sound to record: what it is, and what puts it together."""

    media: Media
    info: SoundInfo
    units: Callable[[Emit], Depacketizer]


def heard(media: Sequence[Media]) -> Heard | None:
    """Return the first sound that is understood, None if there is none at all.

    Raises Doubt if there is sound, but none that is understood.
    """
    sounds = [one for one in media if one.kind == "audio"]
    known = (_g711(one) or _aac(one) for one in sounds if one.profile in PROFILES and one.clock_hz > 0)
    found = next((one for one in known if one), None)
    if found is None and sounds:
        raise Doubt("sound")
    return found


def _g711(media: Media) -> Heard | None:
    codec = _G711.get(media.encoding)
    if codec is None:
        return None
    info = SoundInfo(codec, media.clock_hz, media.channels, Fraction(1, media.clock_hz), b"")
    return Heard(media, info, G711Units) if can_be_kept(info) else None


def _aac(media: Media) -> Heard | None:
    said = media.parameters
    if media.encoding != "MPEG4-GENERIC":
        return None
    try:
        config = bytes.fromhex(said.get("config", ""))
        size, index, delta = (
            int(said.get(name, "0")) for name in ("sizelength", "indexlength", "indexdeltalength")
        )
        others = sum(int(said.get(name, "0")) for name in _NOT_READ)
    except ValueError:
        return None
    known = rate_and_channels(config)
    if known is None or others or not 0 < size <= _LONGEST_FIELD:
        return None
    if not (0 <= index <= _LONGEST_FIELD and 0 <= delta <= _LONGEST_FIELD):
        return None
    info = SoundInfo("aac", *known, Fraction(1, media.clock_hz), config)
    ticks = UNIT_SAMPLES * media.clock_hz // info.sample_rate_hz
    lengths = (size, index, delta)
    return Heard(media, info, lambda emit: AacUnits(emit, lengths, ticks)) if can_be_kept(info) else None


class G711Units(Depacketizer):
    """A byte is a sample; a packet holds as many as it likes."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit

    def payload(self, data: memoryview, timestamp: int, marker: bool, lost: int) -> None:  # noqa: ARG002
        if data:
            self._emit(Frame(bytes(data), timestamp, True, lost))


class AacUnits(Depacketizer):
    """Access units behind a section of headers (RFC 3640, 3.2.1): several in a packet, or one in several.

    ``lengths`` are those of a header's fields in bits: size, index of the first, of the others against the
    one before. ``ticks`` is how long a unit lasts. Units out of order are not put in order: Doubt.
    """

    def __init__(self, emit: Emit, lengths: tuple[int, int, int], ticks: int) -> None:
        self._emit = emit
        self._lengths = lengths
        self._ticks = ticks
        self._part = bytearray()  # of a unit that began
        self._began = 0

    def payload(self, data: memoryview, timestamp: int, marker: bool, lost: int) -> None:  # noqa: ARG002
        if lost or timestamp != self._began:
            self._part.clear()
        sizes, at = self._sizes(data)
        for place, size in enumerate(sizes):
            unit = data[at : at + size]
            at += size
            if len(unit) == size:
                self._emit(Frame(bytes(unit), timestamp + place * self._ticks, True, lost))
            elif len(sizes) == 1:
                self._began = timestamp
                self._part += unit
                if len(self._part) == size:
                    self._emit(Frame(bytes(self._part), timestamp, True, lost))
                if len(self._part) >= size:
                    self._part.clear()

    def _sizes(self, data: memoryview) -> tuple[list[int], int]:
        """Return how many bytes each unit takes, and where the first begins."""
        bits = int.from_bytes(data[:2], "big")
        begins = 2 + (bits + 7) // 8
        if begins > len(data):
            return [], 0
        head = int.from_bytes(data[2:begins], "big") >> -bits % 8
        size, index, delta = self._lengths
        sizes: list[int] = []
        while bits >= size + index:
            bits -= size
            sizes.append(head >> bits & (1 << size) - 1)
            bits -= index
            if head >> bits & (1 << index) - 1:
                raise Doubt("sound-out-of-order")
            index = delta
        return sizes, begins
