"""The sound of a synthetic camera: encoded once, looped for ever.

There is a beep in every second, higher with each of the loop: who hears it begin knows which picture must be
seen, to a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import av
import numpy as np
from numpy.typing import NDArray

from videostore.synthetic.stream import FRAME_RATE

LOOP_SECONDS = 8
BEEP_FRAME = 10
"""Which of a second's pictures is seen when its beep begins."""
BEEP_SECONDS = 0.2
_CODECS = {"pcm_alaw": (8_000, 320), "pcm_mulaw": (8_000, 320), "aac": (16_000, 1_024)}
"""Rate in Hz, and samples in a packet; a loop is whole packets."""


@dataclass(frozen=True, slots=True)
class Tone:
    """An encoded loop: ``units`` of ``samples`` each, one channel. ``config``: AudioSpecificConfig of AAC."""

    codec: str
    rate_hz: int
    samples: int
    units: Sequence[bytes]
    config: bytes


def pitch_hz(second: int) -> int:
    """Return the pitch of the beep of a second of the loop."""
    return 500 + 200 * (second % LOOP_SECONDS)


@lru_cache(maxsize=4)
def tone(codec: str) -> Tone:
    """Encode the loop as ``aac``, ``pcm_alaw`` or ``pcm_mulaw``."""
    rate, samples = _CODECS[codec]
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.layout = rate, av.AudioLayout("mono")
    encoder.format = av.AudioFormat("fltp" if codec == "aac" else "s16")
    encoder.time_base = Fraction(1, rate)
    heard = np.tile(loop(rate), 3)  # the loop in the middle neither begins nor ends
    packets = []
    for at in range(0, len(heard), samples):
        part = heard[None, at : at + samples]
        loud = part if codec == "aac" else (part * (2**15 - 1)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(loud, format=encoder.format.name, layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, at, encoder.time_base
        packets += encoder.encode(frame)
    middle = range(LOOP_SECONDS * rate, 2 * LOOP_SECONDS * rate)
    units = [bytes(packet) for packet in packets if packet.pts in middle]
    return Tone(codec, rate, samples, units, bytes(encoder.extradata or b"") if codec == "aac" else b"")


def loop(rate_hz: int) -> NDArray[np.float32]:
    """Return what is heard, from -1 to 1."""
    time = np.arange(LOOP_SECONDS * rate_hz) / rate_hz
    pitch = np.array([pitch_hz(second) for second in range(LOOP_SECONDS)])[time.astype(int)]
    since = time % 1 - BEEP_FRAME / FRAME_RATE
    beep = 0.5 * np.sin(2 * np.pi * pitch * since) * ((since >= 0) & (since < BEEP_SECONDS))
    return np.asarray(beep, dtype=np.float32)


def beeps(heard: NDArray[np.float32], rate_hz: int) -> list[tuple[float, int]]:
    """Return when the beeps of a recording begin, in seconds, and which second of the loop each is of."""
    window = rate_hz // 100
    levels = np.abs(heard[: len(heard) // window * window]).reshape(-1, window).max(axis=1) > 0.1
    found = []
    for at in np.flatnonzero(levels[1:] & ~levels[:-1]) + 1:
        part = heard[at * window : at * window + int(BEEP_SECONDS * rate_hz)]
        if levels[max(0, at - 30) : at].any() or len(part) < BEEP_SECONDS * rate_hz:
            continue  # inside a beep, or cut off
        spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part))))
        pitch = float(np.argmax(spectrum)) * rate_hz / len(part)
        found.append((float(at) * window / rate_hz, round((pitch - pitch_hz(0)) / 200)))
    return found
