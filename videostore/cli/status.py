"""``videostore status``: one screen that says how a site is."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from videostore import app as composition
from videostore.cli.output import (
    AsJson,
    SiteDir,
    cell,
    console,
    cut,
    load_site,
    print_json,
    show_size,
    show_time,
)
from videostore.config.site import Site

_WATCH_SECONDS = 2.0
_STYLES = {"sends": "green", "files": "green", "silent": "bold red", "disabled": "dim"}


def status(
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again, until Ctrl-C.")] = False,
    site: SiteDir = None,
    as_json: AsJson = False,
) -> None:
    """Show at a glance what runs, what is recorded, what goes next and what is wrong.

    On a terminal it is one screen, the worst cameras first; in a pipe, and with --json, all of them.
    """
    place = load_site(site)
    if as_json:
        for facts in _looks(place, watch):
            print_json(facts)
    elif watch and console.is_terminal:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            for facts in _looks(place, watch):
                live.update(_page(facts), refresh=True)
    else:
        for facts in _looks(place, watch):
            console.print(_page(facts))


def _looks(site: Site, watch: bool) -> Iterator[Mapping[str, Any]]:
    with composition.Parts(site) as parts:
        yield composition.status(parts)
        while watch:
            time.sleep(_WATCH_SECONDS)  # between two looks of a person
            yield composition.status(parts)


def _page(facts: Mapping[str, Any]) -> RenderableType:
    head = Text.assemble((facts["site"], "bold"), "  ", (show_time(facts["at"]), "dim"))
    top = Group(head, _verdict(facts["problems"]), "", _summary(facts), "")
    taken = len(console.render_lines(top)) + 3  # the heading of the table, what is left out, the prompt
    room = max(3, console.height - taken) if console.is_terminal else len(facts["cameras"])
    return Group(top, _cameras(facts, room))


def _verdict(problems: Sequence[Mapping[str, str]]) -> RenderableType:
    if not problems:
        return Text("all is well", style="green")
    table = Table.grid(padding=(0, 2))
    for one in problems:
        table.add_row(Text(one["alert"], style="bold red"), Text(one["what"], style="red"))
    page = Text("docs/guide/runbooks/NAME.md says what to do", style="dim")
    return Group(table, page) if any(one["alert"] for one in problems) else table


def _summary(facts: Mapping[str, Any]) -> RenderableType:
    table, at = Table.grid(padding=(0, 2)), facts["at"]
    for may_wrap in (False, False, True):
        table.add_column(no_wrap=not may_wrap)
    for role, address in facts["running"].items():
        runs = Text("runs", style="green") if address else Text("down", style="bold red")
        table.add_row(Text(role), runs, cut(Text(address, style="dim")))
    footage, keys = facts["footage"], facts["keys"]
    about = "" if footage["counted"] else "about "
    stored = f"{about}{show_size(footage['size_bytes'])} in {footage['segments']:,} segments"
    table.add_row(
        "footage",
        stored,
        f"oldest {_ago(footage['oldest'], at)}, next gone {_in(footage['next_due'], at)}",
    )
    overdue = "-" if footage["overdue"] is None else f"{footage['overdue']:.0f}"
    leaving = f"{footage['condemned']:,} on their way out"
    table.add_row("deletion", leaving, f"{overdue} overdue, last sweep {_ago(facts['last_sweep'], at)}")
    living = f"{keys['live']} live, {keys['destroyed']} destroyed"
    table.add_row("keys", living, f"the last ends {_in(keys['ahead_until'], at)}")
    held = f"{show_size(facts['spool_bytes'])} of {show_size(facts['spool_limit_bytes'])}"
    table.add_row("spool", held, f"oldest {_ago(facts['waits_since'], at)}")
    disks = ", ".join(
        f"{name} {show_size(one['free_bytes'])} ({one['free_bytes'] / one['size_bytes']:.0%})"
        for name, one in facts["disks"].items()
    )
    table.add_row("free", disks, f"last backup {_ago(facts['last_backup'], at)}")
    return table


def _cameras(facts: Mapping[str, Any], room: int) -> RenderableType:
    if not facts["cameras"]:
        return Text("No cameras yet: `videostore camera add NAME rtsp://…`", style="dim")
    shown, rest = facts["cameras"][:room], facts["cameras"][room:]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("camera", "state", "last frame", "footage until", "url"):
        table.add_column(column, no_wrap=column != "url")
    for camera in shown:
        table.add_row(
            cell(camera["camera"]),
            Text(camera["state"], style=_STYLES.get(camera["state"], "")),
            Text(_ago(camera["last_frame"], facts["at"])),
            Text(_ago(camera["footage_until"], facts["at"])),
            cut(cell(camera["url"])),
        )
    if not rest:
        return table
    states = Counter(camera["state"] for camera in rest)
    left = ", ".join(f"{count} {state}" for state, count in states.items())
    return Group(table, Text(f"and {len(rest)} more: {left}", style="dim"))


def _ago(moment: datetime | None, now: datetime) -> str:
    return f"{_length(now - moment)} ago" if moment else "-"


def _in(moment: datetime | None, now: datetime) -> str:
    return f"in {_length(moment - now)}" if moment else "-"


def _length(length: timedelta) -> str:
    """Return a length in its largest unit: a glance wants no more."""
    seconds = max(0.0, length.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}" if seconds < 10 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
