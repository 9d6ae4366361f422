"""Reads a film of a synthetic camera back: which frames are in it, and whether its sound keeps step."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from videostore.synthetic.stream import FRAME_RATE, HEIGHT, WIDTH, read_frame_number
from videostore.synthetic.tone import BEEP_FRAME, LOOP_SECONDS, beeps


def frame_numbers(film: Path | IO[bytes]) -> list[int]:
    """Decode a film and return the number that each frame carries, in order of display."""
    scaler = VideoReformatter()  # one for all frames: to set it up costs more than to use it
    with av.open(str(film) if isinstance(film, Path) else film, "r") as container:
        grey = (scaler.reformat(frame, WIDTH, HEIGHT, format="gray") for frame in container.decode(video=0))
        return [read_frame_number(np.asarray(frame.to_ndarray(), dtype=np.uint8)) for frame in grey]


def breaks(numbers: Sequence[int], *, loop: int) -> int:
    """Return how often the numbers do not go on by one, in a loop of ``loop`` frames."""
    return sum((after - before) % loop != 1 for before, after in pairwise(numbers))


def out_of_step(film: Path) -> list[float]:
    """Return, for every beep whose picture is in the film, by how many seconds it is heard too early.

    The picture's loop must be as long as that of the sound.
    """
    with av.open(str(film)) as container:
        frames = list(container.decode(audio=0))
        if not frames:
            return []
        rate_hz, times = frames[0].sample_rate, [frame.time or 0.0 for frame in frames]
        heard = np.zeros(int(times[-1] * rate_hz) + frames[-1].samples, dtype=np.float32)
        for time, frame in zip(times, frames, strict=True):
            part = frame.to_ndarray()[0]
            heard[round(time * rate_hz) :][: len(part)] = part
    with av.open(str(film)) as container:
        shown = [frame.time or 0.0 for frame in container.decode(video=0)]
    seconds = {
        number // FRAME_RATE % LOOP_SECONDS: time
        for number, time in reversed(list(zip(frame_numbers(film), shown, strict=True)))
        if number % FRAME_RATE == BEEP_FRAME
    }
    return [seconds[second] - time for time, second in beeps(heard, rate_hz) if second in seconds]
