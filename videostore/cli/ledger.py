"""``videostore ledger``: the record of every decision and deletion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from videostore import app as composition
from videostore.cli.output import AsJson, SiteDir, console, load_site, print_facts, print_rows, show_time
from videostore.domain.errors import LedgerBroken
from videostore.domain.ledger import Event, Json

app = typer.Typer(help="Show and verify the ledger.", no_args_is_help=True)


@app.command()
def show(
    *,
    last: Annotated[int, typer.Option("--last", help="How many of the newest records.", min=1)] = 20,
    event: Annotated[Event | None, typer.Option("--event", help="Only records of this kind.")] = None,
    site: SiteDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the newest records. Reading the ledger is itself recorded."""
    place = load_site(site)
    composition.record(place, Event.LEDGER_READ, last=last, event=event.value if event else None)
    with composition.Parts(place) as parts:
        records = [record for record in parts.ledger.records() if event in {None, record.event}][-last:]
    if as_json:
        print_rows([{**record.to_json(), "hash": record.hash} for record in records], as_json=True, empty="")
        return
    for record in records:
        facts = ", ".join(f"{name} {_short(value)}" for name, value in record.body.items())
        console.print(
            Text.assemble(
                (f"{record.sequence:>6}  {show_time(record.at)}  ", "dim"),
                (f"{record.event.value:<22}", "bold"),
                f" {record.actor:<10} {facts}",
            ),
            soft_wrap=True,
        )
    if not records:
        console.print("No records of that kind.", style="dim")


def _short(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@app.command()
def verify(
    directory: Annotated[
        Path | None, typer.Argument(help="A copy of the ledger directory, to verify without its site.")
    ] = None,
    *,
    public_key: Annotated[
        str,
        typer.Option("--public-key", help="ed25519:… that must have signed it; default: the key beside it."),
    ] = "",
    site: SiteDir = None,
    as_json: AsJson = False,
) -> None:
    """Verify chain, signatures and checkpoints. Needs only the ledger's files and the public key."""
    place = directory or load_site(site).root / "ledger"
    facts, problems = composition.verify_ledger(place, public_key)
    print_facts({**facts, "problems": problems, "ok": not problems}, as_json=as_json)
    if problems:
        raise LedgerBroken(
            f"the ledger does not verify: {problems[0]}",
            hint="Keep the files as they are and start the misconduct procedure.",
        )


@app.command()
def checkpoint(*, site: SiteDir = None, as_json: AsJson = False) -> None:
    """Sign the head of the ledger now. Keep the line it prints where nobody here can change it."""
    with composition.Parts(load_site(site)) as parts:
        facts = composition.checkpoint(parts)
    if as_json:
        print_facts(facts, as_json=True)
    else:
        console.print(json.dumps(facts), markup=False, soft_wrap=True)
