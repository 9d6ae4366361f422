"""Sound as it is kept: AAC-LC as it comes, G.711 turned into it by libav.

A movie that a browser is to play holds no G.711 (docs/design/0009). All counts are of samples of one channel.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Literal

import av
import av.audio.stream
import av.error
import numpy as np

from videostore.ports import SoundInfo
from videostore.recorder.cutter import Unit

UNIT_SAMPLES = 1024
"""What an access unit of AAC-LC holds (ISO/IEC 14496-3, 4.5.2.1.1)."""
_SILENCE = {"pcm_alaw": b"\xd5", "pcm_mulaw": b"\xff"}
_BITS_PER_SAMPLE = 4
_SETTLED = 4
"""So many units after its beginning an encoder has nothing of it left to say."""
_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)
_LAYOUTS = {1: "mono", 2: "stereo"}


def can_be_kept(sound: SoundInfo) -> bool:
    """Say whether sound of this kind can be recorded. AudioSpecificConfig: ISO/IEC 14496-3, 1.6.2.1."""
    if sound.channels not in _LAYOUTS or sound.sample_rate_hz <= 0:
        return False
    low_complexity = len(sound.extradata) >= 2 and sound.extradata[0] >> 3 == 2
    return sound.codec in _SILENCE or (sound.codec == "aac" and low_complexity)


def config(context: av.AudioCodecContext) -> bytes:
    """Return the AudioSpecificConfig of AAC-LC whose units describe themselves (ADTS), else nothing."""
    if context.name != "aac" or context.profile != "LC" or context.sample_rate not in _RATES:
        return b""
    return (2 << 11 | _RATES.index(context.sample_rate) << 7 | context.channels << 3).to_bytes(2, "big")


def rate_and_channels(config: bytes) -> tuple[int, int] | None:
    """Return what an AudioSpecificConfig (ISO/IEC 14496-3, 1.6.2.1) says, None if it says nothing sensible.

    Hz, and how many channels: 0 where they are told elsewhere.
    """
    if len(config) < 2:
        return None
    bits = int.from_bytes(config[:5].ljust(5, b"\x00"), "big")
    index = bits >> 31 & 0xF
    if index == 0xF:
        return bits >> 7 & 0xFFFFFF, bits >> 3 & 0xF
    return (_RATES[index], bits >> 27 & 0xF) if index < len(_RATES) else None


class Converter:
    """Turns G.711 (ITU-T G.711; one byte a sample) into AAC of the same rate. ``info`` describes that."""

    def __init__(self, sound: SoundInfo) -> None:
        self._channels, self._rate = sound.channels, sound.sample_rate_hz
        self._silence = _SILENCE[sound.codec]
        self._decoder = _context(sound.codec, "r", sound)
        self._encoder = encoder(sound)
        self._waiting, self._at = bytearray(), 0
        self.info = replace(
            sound,
            codec="aac",
            time_base=Fraction(1, self._rate),
            extradata=bytes(self._encoder.extradata or b""),
        )

    def samples(self, data: bytes) -> int:
        return len(data) // self._channels

    def add(self, data: bytes, at: int, *, breaks: bool) -> Iterator[Unit]:
        """Yield the units that are whole now. ``breaks``: ``at`` is not where the last packet ended."""
        size = UNIT_SAMPLES * self._channels
        if breaks:
            if self._waiting:
                yield from self._encode(bytes(self._waiting).ljust(size, self._silence))
            self._waiting.clear()
            self._at = at
        self._waiting += data
        while len(self._waiting) >= size:
            yield from self._encode(bytes(self._waiting[:size]))
            del self._waiting[:size]
            self._at += UNIT_SAMPLES

    def finish(self) -> Iterator[Unit]:
        """Yield the rest; nothing can be added after it."""
        if self._waiting:
            size = UNIT_SAMPLES * self._channels
            yield from self._encode(bytes(self._waiting).ljust(size, self._silence))
        for packet in self._encoder.encode(None):
            if packet.pts is not None:
                yield Unit(bytes(packet), packet.pts)

    def _encode(self, data: bytes) -> Iterator[Unit]:
        """The encoder hands a unit out when it has heard the next; its time is that of what is heard."""
        for decoded in self._decoder.decode(av.Packet(data)):
            loud = decoded.to_ndarray().reshape(-1, self._channels).T.astype(np.float32) / 2**15
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(loud), format="fltp", layout=_LAYOUTS[self._channels]
            )
            frame.sample_rate, frame.pts, frame.time_base = self._rate, self._at, Fraction(1, self._rate)
            for packet in self._encoder.encode(frame):
                if packet.pts is not None:
                    yield Unit(bytes(packet), packet.pts)


def silence(sound: SoundInfo) -> bytes:
    """Return a unit of AAC-LC in which nothing is heard."""
    context, found = encoder(sound), b""
    frame = _quiet(sound)
    for place in range(_SETTLED):
        frame.pts = place * UNIT_SAMPLES
        for packet in context.encode(frame):
            found = bytes(packet)
    return found


def silent_film(sound: SoundInfo) -> bytes:
    """Return a moment of silence with headers (ADTS), for libav to read such sound's description from."""
    buffer, frame = io.BytesIO(), _quiet(sound)
    with av.open(buffer, "w", format="adts") as output:
        stream = output.add_stream("aac", rate=sound.sample_rate_hz, layout=frame.layout.name)
        assert isinstance(stream, av.audio.stream.AudioStream)
        frame.pts = 0
        output.mux([*stream.encode(frame), *stream.encode(None)])
    return buffer.getvalue()


def _quiet(sound: SoundInfo) -> av.AudioFrame:
    samples = np.zeros((sound.channels, UNIT_SAMPLES), dtype=np.float32)
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=_LAYOUTS[sound.channels])
    frame.sample_rate, frame.time_base = sound.sample_rate_hz, Fraction(1, sound.sample_rate_hz)
    return frame


def encoder(sound: SoundInfo) -> av.AudioCodecContext:
    """Return an open encoder of AAC for sound of this rate."""
    context = _context("aac", "w", sound)
    context.format = av.AudioFormat("fltp")
    context.bit_rate = _BITS_PER_SAMPLE * sound.sample_rate_hz * sound.channels
    context.time_base = Fraction(1, sound.sample_rate_hz)
    context.open()
    return context


def _context(codec: str, mode: Literal["r", "w"], sound: SoundInfo) -> av.AudioCodecContext:
    context = av.CodecContext.create(codec, mode)
    assert isinstance(context, av.AudioCodecContext)
    context.sample_rate, context.layout = sound.sample_rate_hz, av.AudioLayout(_LAYOUTS[sound.channels])
    return context
