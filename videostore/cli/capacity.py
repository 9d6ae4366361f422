"""``videostore plan-capacity``: what to buy before cameras are bought."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Annotated

import typer

from videostore.cli.output import AsJson, console, print_rows, show_size
from videostore.config.durations import parse_duration
from videostore.domain.capacity import INGEST, Need, Wanted, advice, needs
from videostore.domain.errors import RequestInvalid

_BITRATE = re.compile(r"(\d+(?:\.\d+)?)([kMG]?)")
_SCALE = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}


def register(app: typer.Typer) -> None:
    app.command("plan-capacity")(plan_capacity)


def plan_capacity(
    *,
    cameras: Annotated[int, typer.Option("--cameras", min=1, help="How many cameras.")],
    bitrate: Annotated[str, typer.Option("--bitrate", help="Of one camera, such as 4M bit/s.")] = "4M",
    keep: Annotated[str, typer.Option("--keep", help="How long footage is kept.")] = "30d",
    segment: Annotated[str, typer.Option("--segment", help="Length of a segment.")] = "10s",
    outage: Annotated[str, typer.Option("--outage", help="How long the store may be away.")] = "8h",
    as_json: AsJson = False,
) -> None:
    """Tell what a site needs: storage, requests, CPU, network, keys. From figures that were measured."""
    try:
        wanted = Wanted(
            cameras=cameras,
            bitrate_bits=_bits(bitrate),
            keep=parse_duration(keep),
            segment=parse_duration(segment),
            outage=parse_duration(outage),
        )
        rows = list(needs(wanted))
    except (ValueError, ZeroDivisionError) as error:
        raise RequestInvalid(str(error), hint="Such as --bitrate 4M --keep 30d --segment 10s.") from error
    if as_json:
        print_rows([asdict(row) for row in rows], as_json=True, empty="")
        return
    shown = [{"what": row.what, "need": _show(row), "because": row.because} for row in rows]
    print_rows(shown, as_json=False, empty="")
    console.print()
    for line in advice(wanted):
        console.print(f"- {line}", markup=False)
    console.print(f"Measure your own hardware: {INGEST}", markup=False, soft_wrap=True, style="dim")


def _bits(text: str) -> float:
    found = _BITRATE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a bitrate")
    return float(found[1]) * _SCALE[found[2]]


def _show(need: Need) -> str:
    if need.unit.startswith("bytes"):
        return show_size(need.value) + need.unit.removeprefix("bytes")
    if need.unit == "bit/s":
        return f"{need.value / 1e6:,.0f} Mbit/s"
    digits = 0 if need.value >= 100 or float(need.value).is_integer() else 1
    return f"{need.value:,.{digits}f} {need.unit}"
