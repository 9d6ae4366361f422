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
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

WIDTH, HEIGHT = 640, 360  # pixels
FRAME_RATE = 25  # frames a second
GOP = 25  # frames from keyframe to keyframe
_BITS = 16
_SQUARE = WIDTH // _BITS


@dataclass(frozen=True, slots=True)
class Stream:
    """An encoded loop.

    ``frames`` are access units in order of decoding, each a list of NAL units without start codes (for
    ``mjpeg`` one image); ``numbers`` says which picture of the loop each of them shows.
    """

    codec: str
    width: int
    height: int
    parameter_sets: Sequence[bytes]
    frames: Sequence[Sequence[bytes]]
    numbers: Sequence[int]


@lru_cache(maxsize=8)
def stream(
    seconds: int = 10, width: int = WIDTH, height: int = HEIGHT, *, codec: str = "h264", b_frames: int = 0
) -> Stream:
    """Encode a loop of ``seconds`` as ``h264``, ``hevc`` or ``mjpeg``, with a keyframe each second."""
    encoder = av.CodecContext.create(_ENCODERS[codec], "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height = width, height
    encoder.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    encoder.framerate = Fraction(FRAME_RATE)
    encoder.time_base = Fraction(1, FRAME_RATE)
    encoder.options = _options(codec, b_frames)
    packets, scaler = [], VideoReformatter()
    for number in range(seconds * FRAME_RATE):
        frame = av.VideoFrame.from_ndarray(picture(number), format="gray")
        frame = scaler.reformat(frame, width, height, format=encoder.pix_fmt)
        frame.pts, frame.time_base = number, encoder.time_base
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    numbers = [int(packet.pts or 0) for packet in packets]
    if codec == "mjpeg":
        return Stream(codec, width, height, [], [[bytes(packet)] for packet in packets], numbers)
    units = [nal_units(bytes(packet)) for packet in packets]
    sets = [unit for unit in units[0] if _kind(codec, unit) in _SETS[codec]]
    frames = [[unit for unit in frame if _kind(codec, unit) not in _UNWANTED[codec]] for frame in units]
    return Stream(codec, width, height, sets, frames, numbers)


_ENCODERS = {"h264": "libx264", "hevc": "libx265", "mjpeg": "mjpeg"}
_SETS = {"h264": (7, 8), "hevc": (32, 33, 34)}
_UNWANTED = {"h264": (6, 9), "hevc": (35, 39, 40)}  # supplemental information, delimiters


def _kind(codec: str, unit: bytes) -> int:
    return unit[0] & 0x1F if codec == "h264" else unit[0] >> 1 & 0x3F


def _options(codec: str, b_frames: int) -> dict[str, str]:
    if codec == "mjpeg":
        return {"huffman": "default", "qmin": "8", "qmax": "8"}
    every = f"keyint={GOP}:min-keyint={GOP}:scenecut=0:bframes={b_frames}"
    if codec == "hevc":
        every += ":repeat-headers=1:open-gop=0:log-level=none"
        return {"preset": "ultrafast", "crf": "32", "x265-params": every}
    tune = {"tune": "zerolatency"} if not b_frames else {}
    every += ":sliced-threads=0" + (":b-adapt=0" if b_frames else "")
    return {"preset": "ultrafast", **tune, "crf": "30", "x264-params": every}


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
