"""Viewing copies: footage encoded anew with its time, who asked for it and why burnt into every frame.

Made a segment at a time, in memory: one segment of footage, one decoded frame and one encoded segment are
held. A frame that cannot be decoded is left out; sound is not taken along.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import TypeAlias

import av
import av.error
import cv2
import numpy as np
from numpy.typing import NDArray

from videostore.domain import cmaf
from videostore.domain.segment import MICROSECOND, Span

NOTICE = "VIEWING COPY - NOT EVIDENCE"
LARGEST_SIDE = 1920
"""Pixels; a larger picture is made smaller: what is to be seen in it, the original shows."""
_RATE = 25
_ENCODING = {"preset": "veryfast", "tune": "zerolatency", "crf": "21", "threads": "1"}
"""One thread, nothing ahead: the same frames give the same bytes, so that a download can go on."""
_KEYFRAME_EVERY = 50
"""Frames."""
_BOXES = {"movflags": "cmaf+empty_moov+frag_keyframe+skip_trailer"}
_FONT, _SMALLEST, _PER_LINE = cv2.FONT_HERSHEY_SIMPLEX, 0.4, 1100
"""Letters of scale 1 are for a picture of so many lines; below the smallest scale they cannot be read."""
_WHITE, _GREY = 235, 128
_REFERENCE_LINES = 2

Plane: TypeAlias = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Label:
    """What stands in every frame beside its time. A letter that OpenCV has no shape for becomes ``?``, and
    Arabic stands from left to right; the incident's id can always be read."""

    camera: str
    requester: str
    incident_id: str
    reference: str


def burnt(
    movie: cmaf.Movie, *, start: datetime, asked: Span, label: Label
) -> tuple[datetime, cmaf.Movie] | None:
    """Return the frames of a segment that were asked for, burnt and encoded anew, and when the first is of.

    ``start`` is when the first frame of ``movie`` was captured. None if no such frame can be decoded.
    """
    buffer, stamp, begins = io.BytesIO(), None, (0, start)
    with av.open(buffer, "w", format="mp4", options=_BOXES) as output:
        stream = output.add_stream("libx264", rate=_RATE, options=_ENCODING)
        for frame, ticks in _frames(movie):
            moment = start + ticks * 1_000_000 // movie.timescale * MICROSECOND
            if not asked.contains(Span(moment, moment + MICROSECOND)):
                continue
            width, height = _size(frame)
            if stamp is None:
                stamp, begins = _Stamp(width, height, label), (ticks, moment)
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                stream.codec_context.time_base = Fraction(1, movie.timescale)
                stream.codec_context.gop_size = _KEYFRAME_EVERY
            copy = _burnt(frame, stamp, moment)
            copy.time_base, copy.pts = Fraction(1, movie.timescale), ticks - begins[0]
            for packet in stream.encode(copy):
                packet.duration = frame.duration
                output.mux(packet)
        if stamp is None:
            return None
        output.mux(stream.encode())
    return begins[1], cmaf.parse(buffer.getvalue())


def _frames(movie: cmaf.Movie) -> Iterator[tuple[av.VideoFrame, int]]:
    """Yield what can be decoded, and how many ticks after the first it was captured."""
    data = movie.init + b"".join(one.data for one in movie.fragments)
    with suppress(av.error.FFmpegError), av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            frames: list[av.VideoFrame] = []
            with suppress(av.error.InvalidDataError):
                frames = packet.decode()
            for frame in frames:
                yield frame, frame.pts or 0


def _burnt(frame: av.VideoFrame, stamp: _Stamp, moment: datetime) -> av.VideoFrame:
    """Return a copy: the decoder still needs the frame itself."""
    planes = frame.to_ndarray(format="yuv420p", width=stamp.width, height=stamp.height)
    drawn: Plane = np.ascontiguousarray(planes, dtype=np.uint8)
    stamp.burn(drawn, moment)
    return av.VideoFrame.from_ndarray(drawn, format="yuv420p")


def _size(frame: av.VideoFrame) -> tuple[int, int]:
    """Return width and height in even numbers, as the encoder has them."""
    longest = max(frame.width, frame.height, LARGEST_SIDE)
    width, height = (side * LARGEST_SIDE // longest // 2 * 2 for side in (frame.width, frame.height))
    return width, height


class _Stamp:
    """The label, laid out for one size of picture: the notice above, time and label below."""

    def __init__(self, width: int, height: int, label: Label) -> None:
        self.width, self.height, self._camera = width, height, label.camera
        self._scale = max(_SMALLEST, height / _PER_LINE)
        self._thickness = max(1, round(self._scale * 1.5))
        self._step = int(34 * self._scale) + 2
        reference = self._wrapped(label.reference)
        if len(reference) > _REFERENCE_LINES:
            reference = [*reference[:_REFERENCE_LINES], "..."]
        whom = self._wrapped(f"for {label.requester}, incident {label.incident_id}")
        self._lines = [*whom, *reference]

    def burn(self, planes: Plane, moment: datetime) -> None:
        """Write into a picture in YUV 4:2:0: shape (height * 3 / 2, width), planes one after the other."""
        when = f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03} UTC  {self._camera}"
        self._strip(planes, 0, [NOTICE])
        lines = [*self._wrapped(when), *self._lines]
        self._strip(planes, self.height - self._step * len(lines) - self._step // 3, lines)

    def _strip(self, planes: Plane, top: int, lines: Sequence[str]) -> None:
        """Darken a strip, take its colour out, and write on it."""
        top = max(0, top) // 2 * 2
        bottom = min(self.height, top + self._step * len(lines) + self._step // 3 + 2) // 2 * 2
        luma = planes[: self.height]
        luma[top:bottom] = luma[top:bottom] // 4 + 12
        chroma = planes[self.height :].reshape(2, self.height // 2, self.width // 2)
        chroma[:, top // 2 : bottom // 2] = _GREY
        for number, line in enumerate(lines, start=1):
            at = (self._step // 3, top + self._step * number - self._step // 6)
            cv2.putText(luma, line, at, _FONT, self._scale, (_WHITE,), self._thickness, cv2.LINE_AA)

    def _wrapped(self, text: str) -> list[str]:
        """Break a text into lines that fit, at blanks if there are any."""
        lines: list[str] = [""]
        for word in text.split(" "):
            longer = f"{lines[-1]} {word}".strip()
            if self._fits(longer):
                lines[-1] = longer
                continue
            lines.append("")
            for letter in word:
                if not self._fits(lines[-1] + letter):
                    lines.append("")
                lines[-1] += letter
        return [line for line in lines if line]

    def _fits(self, text: str) -> bool:
        (width, _), _ = cv2.getTextSize(text, _FONT, self._scale, self._thickness)
        return width <= self.width - 2 * (self._step // 3)
