"""``videostore backup``: survive the loss of a host."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from videostore import app as composition
from videostore.cli.output import AsJson, SiteDir, console, load_site, print_facts
from videostore.sealing import read_identity

app = typer.Typer(help="Back up a site, and bring it back on another host.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="The backup.")]


@app.command()
def key(file: Annotated[Path, typer.Argument(help="New file for the private key (mode 0600).")]) -> None:
    """Make the key that backups are sealed to, and print its public half. Keep FILE elsewhere."""
    console.print(composition.backup_key(file), markup=False, soft_wrap=True)


@app.command()
def create(
    file: File,
    *,
    recipient: Annotated[str, typer.Option("--recipient", help="Public key that it is sealed to: age1…")],
    site: SiteDir = None,
    as_json: AsJson = False,
) -> None:
    """Write configuration, people, ledger and gaps into one sealed file, while the site runs.

    Hour keys are never in it: a copy of them could outlive their deadline.
    """
    print_facts(composition.back_up(load_site(site), file, recipient=recipient), as_json=as_json)


@app.command()
def restore(
    file: File,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="New directory of the site.")],
    *,
    identity: Annotated[Path, typer.Option("--identity", help="File of the private key.")],
    as_json: AsJson = False,
) -> None:
    """Make a site from a backup. It shows nothing to anybody until `videostore backup reconcile`."""
    print_facts(composition.restore(file, directory, identity=read_identity(identity)), as_json=as_json)
    if not as_json:
        console.print(
            f"Next:\n"
            f"  mount the store where videostore.yaml says, and run\n"
            f"  videostore backup reconcile --site {directory}",
            markup=False,
            soft_wrap=True,
        )


@app.command()
def reconcile(
    *,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="Newest checkpoint that anybody has: tells what the ledger lost."),
    ] = None,
    new_store: Annotated[
        bool, typer.Option("--new-store", help="Begin an empty store: the old one was lost with the host.")
    ] = False,
    site: SiteDir = None,
    as_json: AsJson = False,
) -> None:
    """Compare a restored site with store and checkpoint, write down what is lost, and open its ledger.

    Approvals, incidents and grants of before end: nobody knows which of them the lost records had ended.
    """
    print_facts(composition.reconcile(load_site(site), checkpoint, new_store=new_store), as_json=as_json)
