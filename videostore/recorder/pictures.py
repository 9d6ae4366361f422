"""Is the picture of a camera any good? Black, covered, frozen, blurred and moved cameras are found.

A fault counts when it lasts for several sparse samples, and so does its end: a lorry before the lens is no
fault. What a camera's picture should look like is learnt from its own recent samples. Only small derived
maps are kept, in memory, and forgotten within hours: nothing of a picture is ever written.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

_SIZE = 320, 180  # pixels; the scale on which sharpness and edges are measured
_LASTING = 3
"""So many samples in a row make a fault, or end it."""
_LEARNT = 10
"""A camera is known after so many good samples."""
_MEMORY = 60
"""So many good samples are remembered: an hour at one a minute."""
_BLACK_LEVEL, _BLACK_PEAK = 20.0, 48.0  # of 255: mean, and 99th percentile
_COVERED_SPREAD = 6.0  # standard deviation of grey levels
_FROZEN_DIFFERENCE = 0.02  # mean difference of grey levels: a sensor's noise is more
_BLURRED_SHARE = 0.2  # of the usual sharpness
_SAME_VIEW = 0.5  # correlation of edges with the usual view, of a camera that does not move
_OTHER_VIEW = 0.2


class Fault(StrEnum):
    """What is wrong with a picture. Stable: metrics and the ledger use it."""

    BLACK = "black"
    COVERED = "covered"
    FROZEN = "frozen"
    BLURRED = "blurred"
    MOVED = "moved"


@dataclass(frozen=True, slots=True)
class Look:
    """What is measured of a picture. Grey levels 0 to 255; ``small`` and ``edges`` have shape (180, 320)."""

    level: float
    peak: float
    spread: float
    sharpness: float
    small: NDArray[np.uint8]
    edges: NDArray[np.float32]


def look(grey: NDArray[np.uint8]) -> Look:
    """Measure a picture, grey, of shape (height, width)."""
    scaled = np.asarray(cv2.resize(grey, _SIZE, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    small = scaled.astype(np.float32)
    across = cv2.Sobel(small, cv2.CV_32F, 1, 0)
    down = cv2.Sobel(small, cv2.CV_32F, 0, 1)
    edges = cv2.GaussianBlur(cv2.magnitude(across, down), (9, 9), 0)
    return Look(
        level=float(small.mean()),
        peak=float(np.percentile(small, 99)),
        spread=float(small.std()),
        sharpness=float(cv2.Laplacian(small, cv2.CV_32F).var()),
        small=scaled,
        edges=np.asarray(edges, dtype=np.float32),
    )


class Watch:
    """Follows one camera. ``fault`` is what is wrong with it now, None if nothing is."""

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self._suspected: Fault | None = None
        self._since = 0
        self._before: NDArray[np.uint8] | None = None  # 58 kB; what else a look holds is eight times that
        self._sharpness: deque[float] = deque(maxlen=_MEMORY)
        self._likeness: deque[float] = deque(maxlen=_MEMORY)
        self._view: NDArray[np.float32] | None = None

    def see(self, picture: Look) -> bool:
        """Take a sample; return whether ``fault`` changed."""
        found = self._judge(picture)
        self._before = picture.small
        if found is None:
            self._learn(picture)
        self._since = self._since + 1 if found is self._suspected else 1
        self._suspected = found
        if self._since < _LASTING or found is self.fault:
            return False
        self.fault = found
        return True

    def _judge(self, picture: Look) -> Fault | None:
        if picture.level < _BLACK_LEVEL and picture.peak < _BLACK_PEAK:
            return Fault.BLACK
        if picture.spread < _COVERED_SPREAD:
            return Fault.COVERED
        before = self._before
        if before is not None and cv2.absdiff(picture.small, before).mean() < _FROZEN_DIFFERENCE:
            return Fault.FROZEN
        if len(self._sharpness) < _LEARNT:
            return None
        if picture.sharpness < _BLURRED_SHARE * float(np.median(self._sharpness)):
            return Fault.BLURRED
        steady = float(np.median(self._likeness)) > _SAME_VIEW
        if steady and self._like(picture) < _OTHER_VIEW:
            return Fault.MOVED
        return None

    def _like(self, picture: Look) -> float:
        """Return how much the edges are those of the usual view: 1 the same, about 0 another."""
        if self._view is None:
            return 0.0
        return float(cv2.matchTemplate(picture.edges, self._view, cv2.TM_CCOEFF_NORMED)[0, 0])

    def _learn(self, picture: Look) -> None:
        self._sharpness.append(picture.sharpness)
        if self._view is None:
            self._view = picture.edges
            return
        self._likeness.append(self._like(picture))
        self._view = np.asarray(self._view + (picture.edges - self._view) / _LEARNT, dtype=np.float32)
