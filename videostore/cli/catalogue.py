"""``videostore catalogue``: the index of segment facts."""

from __future__ import annotations

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from videostore import app as composition
from videostore.cli.output import AsJson, SiteDir, errors, load_site, print_facts

app = typer.Typer(help="Look after the index of segments.", no_args_is_help=True)


@app.command()
def rebuild(*, site: SiteDir = None, as_json: AsJson = False) -> None:
    """Fill the catalogue from a listing of the store alone. Safe at any time: it only adds, and puts
    right what somebody altered."""
    bar = Progress(
        TextColumn("day {task.completed:.0f} of {task.total:.0f}"),
        BarColumn(),
        TextColumn("{task.fields[objects]:,} objects"),
        TimeElapsedColumn(),
        console=errors,
        disable=not errors.is_terminal,
        transient=True,
    )
    with composition.Parts(load_site(site)) as parts, bar:
        task = bar.add_task("", total=0, objects=0)
        facts = composition.rebuild_catalogue(
            parts, lambda come: bar.update(task, completed=come.day, total=come.days, objects=come.objects)
        )
    print_facts(facts, as_json=as_json)
