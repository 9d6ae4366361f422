"""``videostore status``: one screen that says how a site is."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from videostore import app as composition
from videostore.cli.output import AsJson, SiteDir, cell, console, load_site, print_json, show_size, show_time
from videostore.config.site import Site

_WATCH_SECONDS = 2.0
_STYLES = {"sends": "green", "files": "green", "silent": "bold red", "disabled": "dim"}


def status(
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again, until Ctrl-C.")] = False,
    site: SiteDir = None,
    as_json: AsJson = False,
) -> None:
    """Show at a glance what runs, what is recorded, what goes next and what is wrong."""
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
    return Group(head, _verdict(facts["problems"]), "", _summary(facts), "", _cameras(facts))


def _verdict(problems: list[Mapping[str, str]]) -> RenderableType:
    if not problems:
        return Text("all is well", style="green")
    table = Table.grid(padding=(0, 2))
    for one in problems:
        page = f"docs/guide/runbooks/{one['alert']}.md" if one["alert"] else ""
        table.add_row(Text(one["what"], style="bold red"), Text(page, style="dim"))
    return table


def _summary(facts: Mapping[str, Any]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for role, at in facts["running"].items():
        table.add_row(Text(role), Text("runs", style="green") if at else Text("down", style="bold red"), at)
    footage, keys = facts["footage"], facts["keys"]
    stored = f"{footage['segments']} segments, {show_size(footage['size_bytes'])}"
    table.add_row(
        "footage", stored, f"oldest {_when(footage['oldest'])}, next gone {_when(footage['next_due'])}"
    )
    leaving = f"{footage['condemned']} on their way out"
    overdue = "-" if footage["overdue"] is None else f"{footage['overdue']:.0f}"
    table.add_row("deletion", leaving, f"{overdue} overdue, last sweep {_when(facts['last_sweep'])}")
    living = f"{keys['live']} live, {keys['destroyed']} destroyed"
    table.add_row("keys", living, f"ahead until {_when(keys['ahead_until'])}")
    held = f"{show_size(facts['spool_bytes'])} of {show_size(facts['spool_limit_bytes'])}"
    table.add_row("spool", held, f"oldest {_when(facts['waits_since'])}")
    return table


def _cameras(facts: Mapping[str, Any]) -> RenderableType:
    if not facts["cameras"]:
        return Text("No cameras yet: `videostore camera add NAME rtsp://…`", style="dim")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("camera", "state", "last frame", "footage until", "url"):
        table.add_column(column, overflow="fold")
    for camera in facts["cameras"]:
        since = facts["at"] - camera["last_frame"] if camera["last_frame"] else None
        table.add_row(
            cell(camera["camera"]),
            Text(camera["state"], style=_STYLES.get(camera["state"], "")),
            Text(f"{max(0.0, since.total_seconds()):.1f} s ago") if since else cell(None),
            cell(camera["footage_until"]),
            cell(camera["url"]),
        )
    return table


def _when(moment: datetime | None) -> str:
    return show_time(moment) if moment else "-"
