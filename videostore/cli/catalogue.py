"""``videostore catalogue``: the index of segment facts."""

from __future__ import annotations

import typer

from videostore import app as composition
from videostore.cli.output import AsJson, SiteDir, load_site, print_facts

app = typer.Typer(help="Look after the index of segments.", no_args_is_help=True)


@app.command()
def rebuild(*, site: SiteDir = None, as_json: AsJson = False) -> None:
    """Fill the catalogue from a listing of the store alone. Safe at any time: it only adds."""
    with composition.Parts(load_site(site)) as parts:
        facts = composition.rebuild_catalogue(parts)
    print_facts(facts, as_json=as_json)
