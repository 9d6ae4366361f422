"""``videostore coverage``: what became of every second of a camera."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from videostore import app as composition
from videostore.cli.output import AsJson, SiteDir, console, load_site, print_json, show_time
from videostore.cli.times import parse_time
from videostore.domain.coverage import State, Stretch, total
from videostore.domain.errors import PromiseBroken, RequestInvalid
from videostore.domain.segment import Span
from videostore.durable import write_file

_STYLES = {State.FOOTAGE: "green", State.GAP: "yellow", State.UNEXPLAINED: "bold red"}


def register(app: typer.Typer) -> None:
    app.command()(coverage)


def coverage(
    *,
    camera: Annotated[
        list[str], typer.Option("--camera", help="Name or UUID; give it again for more; default: all.")
    ] = [],  # noqa: B006 - typer copies it
    start: Annotated[str, typer.Option("--from", help="Begin, such as 14:00 or 24h (ago).")] = "24h",
    end: Annotated[str, typer.Option("--to", help="End.")] = "now",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Draw a time line too: a file .svg or .png.")
    ] = None,
    site: SiteDir = None,
    as_json: AsJson = False,
) -> None:
    """Explain every second of a camera: footage, gap and why, deleted; exit code 70 if one is unexplained."""
    place = load_site(site)
    now = composition.host_time()
    begins, ends = parse_time(start, now=now), parse_time(end, now=now)
    if begins >= ends:
        raise RequestInvalid("the span ends before it starts", hint="Give --from and --to in order.")
    span = Span(begins, ends)
    cameras = [place.cameras.find(name) for name in camera] or place.cameras.present()
    with composition.Parts(place) as parts:
        found = {one.name: composition.coverage(parts, one, span) for one in cameras}
    if as_json:
        print_json({name: _facts(stretches) for name, stretches in found.items()})
    else:
        for name, stretches in found.items():
            _print(name, stretches)
    if output is not None:
        _draw(output, span, found)
    unexplained = sum(
        (total(one).get(State.UNEXPLAINED.value, timedelta(0)) for one in found.values()), timedelta(0)
    )
    if unexplained:
        raise PromiseBroken(
            f"{unexplained.total_seconds():.1f} s are unexplained",
            hint="`videostore status` shows whether the recorder runs; its log names what failed then.",
        )


def _facts(stretches: Sequence[Stretch]) -> dict[str, Any]:
    return {
        "seconds": {name: length.total_seconds() for name, length in total(stretches).items()},
        "stretches": [
            {
                "start": one.span.start.isoformat(),
                "end": one.span.end.isoformat(),
                "state": one.state.value,
                "detail": one.detail,
            }
            for one in stretches
        ],
    }


def _print(name: str, stretches: Sequence[Stretch]) -> None:
    console.print(Text(name, style="bold"))
    for one in stretches:
        seconds = f"{one.span.duration.total_seconds():>12.1f} s"
        console.print(
            Text.assemble(
                f"  {show_time(one.span.start)}{seconds}  ",
                (one.state.value, _STYLES.get(one.state, "dim")),
                f" {one.detail}" if one.detail else "",
            ),
            soft_wrap=True,
        )


def _draw(output: Path, span: Span, found: Mapping[str, Sequence[Stretch]]) -> None:
    from videostore.cli import timeline  # OpenCV, for pictures only

    drawers = {".svg": timeline.svg, ".png": timeline.png}
    if output.suffix not in drawers:
        raise RequestInvalid(f"{output} is neither .svg nor .png", hint="Name a file .svg or .png.")
    write_file(output, drawers[output.suffix](span, found))
