"""The monthly report, put together from the parts of a site."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from videostore.app.host import host_time
from videostore.app.ledger import verify_ledger
from videostore.app.parts import Parts
from videostore.app.proof import OPERATOR
from videostore.domain.breach import suspected
from videostore.domain.errors import ConfigInvalid, RequestInvalid
from videostore.domain.ledger import Event
from videostore.domain.retention import Kind
from videostore.domain.segment import Span
from videostore.durable import write_file
from videostore.report.facts import EVENTS, Month, fold, month_span


def last_month(now: datetime) -> str:
    """Return the last month that is over, as YYYY-MM."""
    return f"{now.replace(day=1) - timedelta(days=1):%Y-%m}"


def make_report(parts: Parts, name: str, directory: Path, *, verify: bool) -> dict[str, Any]:
    """Write the report of the month ``name`` (YYYY-MM) as HTML and PDF; the ledger gets their hashes.

    With ``verify`` the whole ledger is verified first. Raises RequestInvalid for a month that is none.
    """
    try:
        from videostore.report import pages  # its libraries are an extra
    except (ImportError, OSError) as error:  # OSError: Pango, which is no Python package, is not installed
        raise ConfigInvalid(
            f"reports need libraries that are not installed: {error}",
            hint="pip install 'videostore[report]' and apt-get install libpangoft2-1.0-0",
        ) from error
    now, span = host_time(), _span(name)
    if span.start > now:
        raise RequestInvalid(f"{name} has not begun", hint="Name a month that has: YYYY-MM.")
    facts, problems = verify_ledger(parts.site.root / "ledger", "") if verify else (None, ())
    month, cameras = _month(parts, span, now)
    keep = {kind.value: policy.keep for kind, policy in parts.policies().items()}
    about = pages.About(
        site=parts.site.settings.site,
        made_at=now,
        keep=keep,
        cameras=cameras,
        checkpoint=parts.ledger.checkpoint().to_json(),
        public_key=parts.ledger.public_key,
        ledger=facts,
        problems=tuple(problems),
        gaps_since=now - keep[Kind.VIDEO.value],
    )
    page = pages.html(month, about)
    written = {"html": page.encode(), "pdf": pages.pdf(page)}
    files: dict[str, str] = {}
    hashes: dict[str, str] = {}
    for suffix, data in written.items():
        path = directory / f"{name}.{suffix}"
        write_file(path, data)
        files[suffix] = str(path)
        hashes[f"{suffix}_sha256"] = hashlib.sha256(data).hexdigest()
    parts.ledger.append(Event.REPORT_MADE, actor=OPERATOR, body={"month": name, **hashes})
    return {
        "month": name,
        "kept": month.kept,
        "late": month.late,
        "problems": list(problems),
        **files,
        **hashes,
    }


def _span(name: str) -> Span:
    try:
        return month_span(name)
    except ValueError:
        raise RequestInvalid(f"{name!r} is no month", hint="Write it as 2026-11.") from None


def _month(parts: Parts, span: Span, now: datetime) -> tuple[Month, Mapping[str, str]]:
    cameras = parts.site.cameras.all()
    gaps = parts.catalogue.gaps([camera.id for camera in cameras], span)
    breaches = suspected(parts.ledger.records(), parts.site.watch())
    month = fold(parts.ledger.find(*EVENTS), gaps, breaches, span=span, now=now)
    return month, {str(camera.id): camera.name for camera in cameras}
