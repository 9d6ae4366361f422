"""How facts reach the terminal: a table for a person, JSON for a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from videostore.config.site import ENVIRONMENT, Site, find_root
from videostore.domain.errors import VideostoreError

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

SiteDir = Annotated[
    Path | None,
    typer.Option("--site", help=f"Site directory; default: ${ENVIRONMENT}, else here.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def load_site(option: Path | None, *, whole: bool = True) -> Site:
    """Return the site that the option, the environment or the current directory names (see ``Site.load``)."""
    return Site.load(find_root(option), whole=whole)


def print_json(value: Any) -> None:
    """Print one JSON value, a line long, so that a program can take the last line."""
    sys.stdout.write(json.dumps(value, default=str, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_rows(rows: Sequence[Mapping[str, Any]], *, as_json: bool, empty: str) -> None:
    """Print dictionaries with the same keys as a JSON list, or as a table with a column for each key."""
    if as_json:
        print_json(list(rows))
        return
    if not rows:
        console.print(empty, style="dim")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in rows[0]:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(cell(value) for value in row.values()))
    console.print(table)


def print_facts(facts: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one dictionary as JSON, or as lines of name and value."""
    if as_json:
        print_json(facts)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in facts.items():
        table.add_row(Text(name.replace("_", " "), style="dim"), cell(value))
    console.print(table)


def cell(value: Any) -> Text:
    """Return ``value`` as a person reads it; text is never taken for markup."""
    match value:
        case None | "":
            return Text("-", style="dim")
        case bool():
            return Text("yes", style="green") if value else Text("no", style="red")
        case datetime():
            return Text(show_time(value))
        case str():
            return Text(value)
        case Iterable():
            return Text(", ".join(str(item) for item in value) or "-")
        case _:
            return Text(str(value))


def cut(text: Text) -> Text:
    """Have ``text`` give way where a line of a terminal is too narrow, instead of going on in the next."""
    if console.is_terminal:
        text.no_wrap, text.overflow = True, "ellipsis"
    return text


def show_time(moment: datetime) -> str:
    """Return a time with its zone, to the second."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def show_size(size_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size_bytes < 1000 or unit == "TB":
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    raise AssertionError


def print_error(error: VideostoreError) -> None:
    """Print one line that says what, and one that says what to do next."""
    errors.print(Text.assemble(("videostore: ", "bold red"), str(error)), soft_wrap=True)
    if error.hint:
        errors.print(Text.assemble(("  -> ", "bold"), error.hint), soft_wrap=True)
