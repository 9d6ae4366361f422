"""Draws the coverage of cameras as a time line, one row a camera."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import cv2
import numpy as np

from videostore.domain.coverage import State, Stretch
from videostore.domain.segment import Span

COLOURS = {
    State.FOOTAGE: "#0072b2",
    State.DAMAGED: "#cc79a7",
    State.GAP: "#e69f00",
    State.UNEXPLAINED: "#d55e00",
    State.DELETED: "#999999",
    State.EXPIRED: "#cccccc",
    State.NOT_RECORDED: "#e8e8e8",
    State.OPEN: "#56b4e9",
    State.FUTURE: "#ffffff",
}
"""Told apart by people who see few colours (Okabe and Ito)."""
_LEFT, _RIGHT, _TOP, _ROW, _BAR, _WIDTH = 160, 20, 40, 36, 22, 1200  # pixels
_TICKS = 6
_FONT = "font-family='sans-serif' font-size='13'"


@dataclass(frozen=True, slots=True)
class _Mark:
    """A rectangle with a fill, or a text at its lower left."""

    x: float
    y: float
    width: float = 0.0
    colour: str = "#222222"
    text: str = ""


def svg(span: Span, found: Mapping[str, Sequence[Stretch]]) -> bytes:
    """Return the time line as SVG; a pointer over a stretch tells its detail."""
    lines = [f"<svg xmlns='http://www.w3.org/2000/svg' width='{_WIDTH}' height='{_height(found)}' {_FONT}>"]
    for mark in _marks(span, found):
        at = f"x='{mark.x:.2f}' y='{mark.y:.2f}'"
        if mark.width:
            title = f"<title>{escape(mark.text)}</title>"
            lines.append(
                f"<rect {at} width='{mark.width:.2f}' height='{_BAR}' fill='{mark.colour}'>{title}</rect>"
            )
        else:
            lines.append(f"<text {at} fill='{mark.colour}'>{escape(mark.text)}</text>")
    return "\n".join([*lines, "</svg>", ""]).encode()


def png(span: Span, found: Mapping[str, Sequence[Stretch]]) -> bytes:
    """Return the time line as PNG."""
    image = np.full((_height(found), _WIDTH, 3), 255, dtype=np.uint8)
    for mark in _marks(span, found):
        red, green, blue = (int(mark.colour[at : at + 2], 16) for at in (1, 3, 5))
        at = round(mark.x), round(mark.y)
        if mark.width:
            corner = max(at[0], round(mark.x + mark.width) - 1), at[1] + _BAR
            cv2.rectangle(image, at, corner, (blue, green, red), -1)
        else:
            cv2.putText(
                image, mark.text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (blue, green, red), 1, cv2.LINE_AA
            )
    return bytes(cv2.imencode(".png", image)[1])


def _height(found: Mapping[str, Sequence[Stretch]]) -> int:
    return _TOP + _ROW * (len(found) + 1) + 10


def _marks(span: Span, found: Mapping[str, Sequence[Stretch]]) -> Iterator[_Mark]:
    wide = _WIDTH - _LEFT - _RIGHT
    scale = wide / span.duration.total_seconds()
    for tick in range(_TICKS):
        moment = span.start + span.duration * tick / (_TICKS - 1)
        label = f"{moment:%m-%d %H:%M:%S}"
        x = _LEFT + wide * tick / (_TICKS - 1)
        yield _Mark(min(max(x - 45, _LEFT), _WIDTH - 110), _TOP - 14, text=label)
    for row, (name, stretches) in enumerate(found.items()):
        y = _TOP + row * _ROW
        yield _Mark(10, y + 16, text=name[:20])
        for one in stretches:
            x = _LEFT + (one.span.start - span.start).total_seconds() * scale
            width = max(1.0, one.span.duration.total_seconds() * scale)
            told = f"{one.state.value} {one.detail} {one.span.start.isoformat()} {one.span.end.isoformat()}"
            yield _Mark(x, y, width, COLOURS[one.state], told)
    y = _TOP + len(found) * _ROW
    shown = [state for state in COLOURS if any(one.state is state for rows in found.values() for one in rows)]
    for place, state in enumerate(shown):
        yield _Mark(_LEFT + 130 * place, y, 14, COLOURS[state], state.value)
        yield _Mark(_LEFT + 130 * place + 20, y + 15, text=state.value)
    yield _Mark(10, y + 15, text="times in UTC")
