"""``videostore keyring``: what wraps the hour keys."""

from __future__ import annotations

from typing import Annotated

import typer

from videostore import app as composition
from videostore.app import proof as proofs
from videostore.cli.output import AsJson, SiteDir, load_site, print_facts

app = typer.Typer(help="Look after the master key.", no_args_is_help=True)


@app.command()
def rotate(
    *,
    older: Annotated[
        str,
        typer.Option("--from", help="Master key that wrapped the hour keys until now, when it moved."),
    ] = "",
    give_up: Annotated[
        bool, typer.Option("--give-up", help="Also when some hour keys cannot be unwrapped any more.")
    ] = False,
    site: SiteDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a new master key, wrap every hour key by it, then destroy the one of before.

    To move it, into a token say, name the new place in keyring.master_key and the old one by --from.
    """
    with composition.Parts(load_site(site)) as parts:
        facts = proofs.rotate_master_key(parts, older=older, give_up=give_up)
    print_facts(facts, as_json=as_json)
