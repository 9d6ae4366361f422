"""A month as an HTML page and as a PDF, both from one template."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.resources import files
from typing import Any

import jinja2
import segno
import weasyprint

from videostore import __version__
from videostore.report import plots
from videostore.report.facts import ACCESSES, Month

logging.getLogger("weasyprint").setLevel(logging.ERROR)
logging.getLogger("fontTools").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class About:
    """What the report says of itself. ``ledger`` is what ``ledger verify`` found, None if it was not asked;
    ``checkpoint`` the signed head that it rests on; ``gaps_since`` from when gaps were still known."""

    site: str
    made_at: datetime
    keep: Mapping[str, timedelta]
    cameras: Mapping[str, str]
    checkpoint: Mapping[str, Any]
    public_key: str
    ledger: Mapping[str, Any] | None
    problems: tuple[str, ...]
    gaps_since: datetime


def html(month: Month, about: About) -> str:
    """Return the page: one file, with everything in it."""
    template = _ENVIRONMENT.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    checkpoint = json.dumps(about.checkpoint, separators=(",", ":"))
    worst = month.gap_cameras.most_common(_WORST)
    return template.render(
        month=month,
        about=about,
        version=__version__,
        accesses=ACCESSES,
        name=f"{month.span.start:%B %Y}",
        complete=month.as_of == month.span.end,
        footage_hours=sum(month.gaps.values(), timedelta()),
        worst=[(about.cameras.get(camera, camera), timedelta(seconds=seconds)) for camera, seconds in worst],
        least=min(month.key_margins, default=None),
        least_absent=min(month.absence_margins, default=None),
        checkpoint=checkpoint,
        qr=segno.make(checkpoint, error="l").svg_data_uri(scale=2),
        draw=_draw,
    )


def pdf(page: str) -> bytes:
    """Return the page as a PDF that is tagged for screen readers and archives."""
    document: bytes = weasyprint.HTML(string=page).write_pdf(pdf_variant="pdf/ua-1")
    return document


def _draw(name: str, month: Month) -> str:
    svg: str = getattr(plots, name)(month)
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _time(moment: datetime) -> str:
    return f"{moment.day} {moment:%B %Y, %H:%M} UTC"


def _size(size_bytes: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size_bytes < 1000 or unit == "TB":
            return f"{size_bytes:,.3g} {unit}"
        size_bytes /= 1000
    raise AssertionError


def _length(length: timedelta) -> str:
    if abs(length) < timedelta(minutes=2):
        return f"{length.total_seconds():.1f} seconds"
    if abs(length) < timedelta(hours=2):
        return f"{length / timedelta(minutes=1):.1f} minutes"
    if abs(length) < timedelta(days=2):
        return f"{length / timedelta(hours=1):.1f} hours"
    return f"{length / timedelta(days=1):.1f} days"


def _hours(length: timedelta) -> str:
    return f"{length / timedelta(hours=1):,.1f}"


_WORST = 8
_TEMPLATE = files("videostore.report") / "page.html"
_ENVIRONMENT = jinja2.Environment(
    autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_ENVIRONMENT.filters |= {
    "time": _time,
    "count": "{:,}".format,
    "size": _size,
    "span": _length,
    "hours": _hours,
}
