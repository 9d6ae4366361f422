"""Reads a film of a synthetic camera back: which frames are in it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

from videostore.synthetic.stream import HEIGHT, WIDTH, read_frame_number


def frame_numbers(film: Path) -> list[int]:
    """Decode a film and return the number that each frame carries, in order of display."""
    with av.open(str(film)) as container:
        return [
            read_frame_number(
                np.asarray(frame.reformat(WIDTH, HEIGHT, format="gray").to_ndarray(), dtype=np.uint8)
            )
            for frame in container.decode(video=0)
        ]


def breaks(numbers: Sequence[int], *, loop: int) -> int:
    """Return how often the numbers do not go on by one, in a loop of ``loop`` frames."""
    return sum((after - before) % loop != 1 for before, after in pairwise(numbers))
