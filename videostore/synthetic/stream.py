"""The picture of a synthetic camera: encoded once, looped for ever.

Each frame has moving content, a burnt-in clock (minute:second:frame of the loop) for people, and a bar
code of its number for programs: 16 squares along the lower edge, most significant bit first, white for
one. Numbers count within the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import av
import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 640, 360  # pixels
FRAME_RATE = 25  # frames a second
GOP = 25  # frames from keyframe to keyframe
_BITS = 16
_SQUARE = WIDTH // _BITS


@dataclass(frozen=True, slots=True)
class Stream:
    """An encoded loop. ``frames`` are access units, each a list of NAL units without start codes."""

    sps: bytes
    pps: bytes
    frames: Sequence[Sequence[bytes]]


@lru_cache(maxsize=4)
def stream(seconds: int = 10, width: int = WIDTH, height: int = HEIGHT) -> Stream:
    """Encode a loop of ``seconds`` as H.264 (no B-frames, a keyframe each second)."""
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt = width, height, "yuv420p"
    codec.framerate = Fraction(FRAME_RATE)
    codec.options = {
        "preset": "ultrafast",
        "tune": "zerolatency",
        "crf": "30",
        "x264-params": f"keyint={GOP}:min-keyint={GOP}:scenecut=0:bframes=0:sliced-threads=0",
    }
    packets = []
    for number in range(seconds * FRAME_RATE):
        frame = av.VideoFrame.from_ndarray(picture(number), format="gray")
        frame = frame.reformat(width, height, format="yuv420p")
        frame.pts = number
        packets += codec.encode(frame)
    packets += codec.encode(None)
    units = [nal_units(bytes(packet)) for packet in packets]
    parameters = {unit[0] & 0x1F: unit for unit in units[0]}
    return Stream(
        sps=parameters[7],
        pps=parameters[8],
        frames=[[unit for unit in frame if unit[0] & 0x1F in {1, 5, 7, 8}] for frame in units],
    )


def picture(number: int) -> NDArray[np.uint8]:
    """Draw frame ``number``: grey, shape (360, 640)."""
    x = np.arange(WIDTH, dtype=np.uint32)
    y = np.arange(HEIGHT, dtype=np.uint32)[:, None]
    image = ((x + y + 2 * number) // 4 % 96 + 48).astype(np.uint8)
    at = int(WIDTH / 2 + WIDTH / 3 * np.sin(number / 20)), int(HEIGHT / 2 + HEIGHT / 4 * np.cos(number / 13))
    cv2.circle(image, at, 36, 220, -1)
    clock = f"{number // FRAME_RATE // 60:02d}:{number // FRAME_RATE % 60:02d}:{number % FRAME_RATE:02d}"
    cv2.putText(image, clock, (16, 48), cv2.FONT_HERSHEY_SIMPLEX, 1.3, 255, 3, cv2.LINE_AA)
    for bit in range(_BITS):
        white = number >> (_BITS - 1 - bit) & 1
        image[HEIGHT - _SQUARE :, bit * _SQUARE : (bit + 1) * _SQUARE] = 235 if white else 16
    return image


def read_frame_number(image: NDArray[np.uint8]) -> int:
    """Read the bar code of a decoded grey frame, shape (360, 640)."""
    row = image[HEIGHT - _SQUARE // 2, _SQUARE // 2 :: _SQUARE]
    return int(sum(1 << (_BITS - 1 - bit) for bit, level in enumerate(row) if level > 128))


def nal_units(data: bytes) -> list[bytes]:
    """Split a byte stream at its start codes (ITU-T H.264, annex B)."""
    pieces = data.replace(b"\x00\x00\x00\x01", b"\x00\x00\x01").split(b"\x00\x00\x01")
    return [piece for piece in pieces if piece]
