"""``videostore ledger``: the record of every decision and deletion."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated

import segno
import typer
from rich.text import Text

from videostore import app as composition
from videostore.app import proof as proofs
from videostore.cli.access import connected
from videostore.cli.output import (
    AsJson,
    SiteDir,
    console,
    load_site,
    print_facts,
    print_json,
    print_rows,
    show_time,
)
from videostore.domain.errors import ConfigInvalid, LedgerBroken
from videostore.domain.ledger import Event, Json, Record
from videostore.durable import disk_errors

app = typer.Typer(help="Show and verify the ledger.", no_args_is_help=True)


@app.command()
def show(
    *,
    last: Annotated[int, typer.Option("--last", help="How many of the newest records.", min=1)] = 20,
    event: Annotated[Event | None, typer.Option("--event", help="Only records of this kind.")] = None,
    breaches: Annotated[
        bool, typer.Option("--breaches", help="Suspected breaches, instead of records.")
    ] = False,
    gate: Annotated[
        bool,
        typer.Option("--gate", help="Ask the gate, by your login, instead of the site's files."),
    ] = False,
    site: SiteDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the newest records. Reading the ledger is itself recorded."""
    if gate:
        with connected() as client:
            answer = client.post("/v1/ledger", {"last": last, "event": event.value if event else None})
        if as_json:
            print_rows(answer, as_json=True, empty="")
        else:
            _print([Record.from_json({name: row[name] for name in row if name != "hash"}) for row in answer])
        return
    place = load_site(site)
    if breaches:
        composition.record(place, Event.LEDGER_READ, last=last, event=None, breaches=True)
        rows = composition.suspected_breaches(place)[-last:]
        print_rows(rows, as_json=as_json, empty="Nothing suspicious is in the ledger.")
        return
    composition.record(place, Event.LEDGER_READ, last=last, event=event.value if event else None)
    with composition.Parts(place) as parts:
        found = parts.ledger.find(event) if event else parts.ledger.records()
        records = list(deque(found, maxlen=last))
    if as_json:
        print_rows([{**record.to_json(), "hash": record.hash} for record in records], as_json=True, empty="")
    else:
        _print(records)


def _print(records: Collection[Record]) -> None:
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


PublicKey = Annotated[
    str, typer.Option("--public-key", help="ed25519:… that must have signed; default: that of the site.")
]
Against = Annotated[
    list[Path] | None,
    typer.Option("--against", help="Checkpoint kept elsewhere: a file, or a directory of them."),
]


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
    against: Against = None,
    site: SiteDir = None,
    as_json: AsJson = False,
) -> None:
    """Verify chain, tree, signatures and checkpoints. Needs only the ledger's files and the public key.

    A checkpoint kept elsewhere also shows a tail that was cut off, and a history exchanged as a whole.
    """
    place = directory or load_site(site).root / "ledger"
    facts, problems = composition.verify_ledger(place, public_key, against=against or [])
    print_facts({**facts, "problems": problems, "ok": not problems}, as_json=as_json)
    if problems:
        raise LedgerBroken(
            f"the ledger does not verify: {problems[0]}",
            hint="Keep the files as they are and start the misconduct procedure.",
        )


@app.command()
def checkpoint(
    *,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Append the line to a file.")] = None,
    qr: Annotated[bool, typer.Option("--qr", help="Show it as a QR code, for a phone or a printer.")] = False,
    png: Annotated[Path | None, typer.Option("--png", help="Draw the QR code into a PNG file.")] = None,
    site: SiteDir = None,
    as_json: AsJson = False,
) -> None:
    """Sign the head of the ledger now. Keep the line it prints where nobody here can change it."""
    with composition.Parts(load_site(site)) as parts:
        facts = proofs.checkpoint(parts)
    line = json.dumps(facts, separators=(",", ":"))
    with disk_errors(output or png or Path()):
        if output:
            with output.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        if png:
            segno.make(line, error="m").save(str(png), scale=8)
    if as_json:
        print_facts(facts, as_json=True)
        return
    if qr:
        segno.make(line, error="l").terminal(compact=True)
    console.print(line, markup=False, soft_wrap=True)


@app.command()
def anchor(*, site: SiteDir = None, as_json: AsJson = False) -> None:
    """Sign the head of the ledger and take it to every place of ledger.anchors now.

    `videostore run retention` does this by itself, each hour by default.
    """
    place = load_site(site)
    with composition.Parts(place) as parts:
        checkpoint_, failures = proofs.anchor(parts)
    names = place.settings.ledger.anchors
    outcome = {name: str(failures[name]) if name in failures else "kept" for name in names}
    print_facts({"records": checkpoint_["size"], "at": checkpoint_["at"], **outcome}, as_json=as_json)
    if not names:
        raise ConfigInvalid("ledger.anchors names no place", hint="See docs/reference/configuration.md.")
    for error in failures.values():
        raise error


@app.command()
def prove(
    record: Annotated[int | None, typer.Argument(help="Number of a record.")] = None,
    *,
    since: Annotated[
        Path | None,
        typer.Option("--since", help="File of an earlier checkpoint: prove that nothing changed."),
    ] = None,
    site: SiteDir = None,
) -> None:
    """Print the proof (JSON) that a record stands in the ledger, or that it only grew since a checkpoint."""
    if (record is None) == (since is None):
        raise typer.BadParameter("name a record, or a checkpoint by --since")
    with composition.Parts(load_site(site)) as parts:
        if since is not None:
            print_json(proofs.prove_growth(parts, since))
        elif record is not None:
            print_json(proofs.prove_record(parts, record))


@app.command("verify-proof")
def verify_proof(
    file: Annotated[Path, typer.Argument(help="What `videostore ledger prove` printed.")],
    *,
    public_key: PublicKey = "",
    against: Against = None,
    site: SiteDir = None,
    as_json: AsJson = False,
) -> None:
    """Check a proof. Needs only its file and the public key: no site, no ledger, no network."""
    key = public_key or proofs.site_public_key(load_site(site).root)
    facts = proofs.verify_proof(file, public_key=key, against=against or [])
    body = facts.get("body")
    if not as_json and isinstance(body, Mapping):
        facts = {**{name: value for name, value in facts.items() if name != "body"}, **body}
    print_facts(facts, as_json=as_json)
