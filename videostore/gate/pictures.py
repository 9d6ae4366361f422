"""Single pictures of what was granted: a snapshot of a moment, a contact sheet of a span.

Decoded in memory; the rules are asked for every segment, and what was shown is recorded before it leaves.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

import av
import av.error
import cv2
import numpy as np
from numpy.typing import NDArray

from videostore.domain import cmaf
from videostore.domain.errors import FootageDeleted, ObjectMissing, RequestInvalid, SealBroken
from videostore.domain.segment import MICROSECOND, Segment, Span
from videostore.gate.footage import Footage, Piece, Serving

Picture: TypeAlias = NDArray[np.uint8]
"""Blue, green, red; shape (height, width, 3)."""
_TILE_WIDTH, _TILE_HEIGHT = 320, 180
_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 90]


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture, when it was captured, and of which segment it is."""

    picture: Picture
    at: datetime
    segment: Segment


class Pictures:
    """Makes pictures of servings. Safe to share between threads."""

    def __init__(self, footage: Footage) -> None:
        self._footage = footage

    def snapshot(self, serving: Serving, at: datetime) -> tuple[bytes, datetime]:
        """Return the frame that was to be seen at ``at``, as JPEG, and when it was captured.

        Raises RequestInvalid if there is no footage of that moment.
        """
        seen = self._look(serving, at, exactly=True)
        if seen is None:
            raise RequestInvalid(
                f"there is no footage of {at.isoformat()}", hint="`videostore search` says why."
            )
        self._record(serving, [seen])
        return _jpeg(seen.picture), seen.at

    def sheet(self, serving: Serving, *, columns: int, rows: int) -> bytes:
        """Return one JPEG with pictures at even distances over the span, each with its time of day."""
        span, count = serving.grant.request.span, columns * rows
        starts = [span.start + span.duration * number / count for number in range(count)]
        moments = [_begin(serving, Span(start, start + span.duration / count)) for start in starts]
        seen = [self._look(serving, at, exactly=False) for at in moments]
        self._record(serving, [one for one in seen if one is not None])
        tiles = [
            _tile(one.picture if one else None, one.at if one else at)
            for one, at in zip(seen, moments, strict=True)
        ]
        lines = [np.hstack(tiles[at : at + columns]) for at in range(0, count, columns)]
        return _jpeg(np.vstack(lines))

    def _look(self, serving: Serving, at: datetime, *, exactly: bool) -> Seen | None:
        """Return the frame at ``at``, or the keyframe before it unless ``exactly``; None if there is none."""
        moment = Span(at, at + MICROSECOND)
        index = next((at for at, one in enumerate(serving.parts) if one.span.contains(moment)), None)
        if index is None:
            return None
        try:
            piece = self._footage.piece(serving, index)
        except (FootageDeleted, ObjectMissing):
            return None
        found = _fragment(piece, at)
        if found is None:
            return None
        fragment, begins = found
        picture, after = _decode(piece.init, fragment, (at - begins) if exactly else timedelta())
        return Seen(picture, begins + after, serving.parts[index].segment)

    def _record(self, serving: Serving, seen: Sequence[Seen]) -> None:
        spans = [Span(one.at, one.at + MICROSECOND) for one in seen]
        self._footage.record_served(serving, [one.segment for one in seen], spans, len(seen))


def _begin(serving: Serving, slot: Span) -> datetime:
    """Return from when on there is footage in a slot; its start if there is none."""
    parts = (one.span.intersection(slot) for one in serving.parts)
    return min((one.start for one in parts if one is not None), default=slot.start)


def _fragment(piece: Piece, at: datetime) -> tuple[cmaf.Fragment, datetime] | None:
    """Return the fragment that shows ``at``, and when its first frame was captured."""
    begins, found = piece.start, None
    for fragment in piece.fragments:
        if begins > at:
            break
        found = fragment, begins
        begins += fragment.duration * 1_000_000 // piece.timescale * MICROSECOND
    return found


def _decode(init: bytes, fragment: cmaf.Fragment, after: timedelta) -> tuple[Picture, timedelta]:
    """Return the last frame that is shown at most ``after`` the first, and how long after."""
    picture, shown = None, timedelta()
    try:
        with av.open(io.BytesIO(init + fragment.moved(start=0, number=1).data), "r") as container:
            for frame in container.decode(video=0):
                moment = timedelta(seconds=frame.time or 0)
                if picture is not None and moment > after:
                    break
                picture, shown = np.asarray(frame.to_ndarray(format="bgr24"), dtype=np.uint8), moment
    except av.error.FFmpegError as error:
        raise SealBroken(f"the footage cannot be decoded: {error.strerror}") from error
    if picture is None:
        raise SealBroken("a fragment has no frame that can be decoded")
    return picture, shown


def _tile(picture: Picture | None, at: datetime) -> Picture:
    tile = np.full((_TILE_HEIGHT, _TILE_WIDTH, 3), 24, dtype=np.uint8)
    if picture is not None:
        tile = np.asarray(cv2.resize(picture, (_TILE_WIDTH, _TILE_HEIGHT), interpolation=cv2.INTER_AREA))
    else:
        _write(tile, "no footage", (90, 95))
    cv2.rectangle(tile, (0, _TILE_HEIGHT - 22), (_TILE_WIDTH, _TILE_HEIGHT), (0, 0, 0), -1)
    _write(tile, f"{at:%Y-%m-%d %H:%M:%S} UTC", (6, _TILE_HEIGHT - 6))
    return tile


def _write(picture: Picture, text: str, at: tuple[int, int]) -> None:
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)


def _jpeg(picture: Picture) -> bytes:
    done, data = cv2.imencode(".jpg", picture, _QUALITY)
    assert done
    return data.tobytes()
