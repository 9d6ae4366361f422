"""``videostore demo``: the whole promise on one machine, in a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from videostore.cli.output import AsJson, console, print_json, show_size
from videostore.domain.errors import PromiseBroken


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    *,
    cameras: Annotated[int, typer.Option("--cameras", help="How many synthetic cameras.", min=1, max=64)] = 2,
    seconds: Annotated[
        int | None,
        typer.Option(
            "--seconds", help="How long to record; without it until Ctrl-C.", min=1, show_default=False
        ),
    ] = None,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="New directory for it all; default: a temporary one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Record, refuse, view, export, expire: the whole promise on this machine, in about a minute."""
    from videostore.cli.demonstration import Demonstration  # synthetic cameras need numpy and OpenCV

    with Demonstration(cameras, directory, hasty=seconds is not None) as demonstration:
        demonstration.play(seconds)
        facts = demonstration.facts()
    for name, value in facts.items() if not as_json else ():
        console.print(Text.assemble((f"  {name.replace('_', ' '):<18}", "dim"), _show(name, value)))
    if as_json:
        print_json(facts)
    if not facts["ok"]:
        raise PromiseBroken(
            f"the demonstration fell short: {'; '.join(facts['problems'])}",
            hint=f"The log of its processes: {demonstration.log}",
        )


def _show(name: str, value: Any) -> str:
    if name == "bytes_stored":
        return show_size(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "none"
    return str(value)
