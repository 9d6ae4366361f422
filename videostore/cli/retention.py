"""``videostore retention``: what is due, what is gone, and the proof."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from videostore import app as composition
from videostore.app import proof as proofs
from videostore.cli import certificates
from videostore.cli.output import (
    AsJson,
    SiteDir,
    console,
    load_site,
    print_facts,
    print_json,
    print_rows,
    show_size,
    show_time,
)
from videostore.cli.times import parse_time
from videostore.domain.errors import PromiseBroken, RequestInvalid
from videostore.domain.ledger import Event

app = typer.Typer(help="See and run what deletes footage.", no_args_is_help=True)
app.add_typer(certificates.app, name="certificates")


@app.command()
def plan(
    *,
    at: Annotated[
        str, typer.Option("--at", help="Moment to plan for, such as now or 2026-12-24T12:00Z.")
    ] = "now",
    site: SiteDir = None,
    as_json: AsJson = False,
) -> None:
    """Show what would be deleted at a moment, and when each of it becomes due: objects and bytes.

    Deletes nothing.
    """
    place = load_site(site)
    with composition.Parts(place) as parts:
        moment = parse_time(at, now=parts.clock.now())
        rows = composition.plan(parts, moment)
    total = {
        "at": moment.isoformat(),
        "keys": sum(row["key_ends"] for row in rows),
        "objects": sum(row["objects"] for row in rows),
        "size_bytes": sum(row["size_bytes"] for row in rows),
    }
    if as_json:
        print_json({**total, "planned": rows})
        return
    shown = [
        {
            "due_at": row["due_at"],
            "deadline": row["deadline"],
            "kind": row["kind"],
            "key_id": row["key_id"],
            "goes": "the key and all" if row["key_ends"] else f"{row['camera']}, kept for less",
            "objects": row["objects"],
            "size": show_size(row["size_bytes"]),
        }
        for row in rows
    ]
    print_rows(shown, as_json=False, empty=f"Nothing is due at {show_time(moment)}.")
    if rows:
        console.print(
            f"by {show_time(moment)}: {total['keys']} keys, {total['objects']} objects, "
            f"{show_size(total['size_bytes'])}",
            style="dim",
        )


@app.command()
def status(*, site: SiteDir = None, as_json: AsJson = False) -> None:
    """Show how old the oldest footage is against the ceiling, what is being deleted and what is next.

    Exit code 70 if anything is past its deadline.
    """
    with composition.Parts(load_site(site)) as parts:
        facts = composition.retention_status(parts)
    print_facts(facts, as_json=as_json)
    late = facts["keys_past_their_deadline"] + facts["of_them_past_their_deadline"]
    if late or (facts["oldest_footage_age_seconds"] or 0) >= facts["ceiling_seconds"]:
        what = f"{late} keys or segments are" if late else "the oldest footage is"
        raise PromiseBroken(
            f"{what} past the deadline",
            hint="Nobody can open that. `videostore retention sweep` says what stops the deletion.",
        )


@app.command()
def sweep(*, site: SiteDir = None, as_json: AsJson = False) -> None:
    """Run one pass of retention now. `videostore run retention` does this by itself."""
    place = load_site(site, whole=False)
    with composition.Parts(place, role="retention") as parts:
        parts.clock.advance()
        report = composition.sweep(parts).run()
    facts: dict[str, Any] = {
        "at": report.reading.earliest.isoformat(),
        "clock": report.reading.doubt.value if report.reading.doubt else "believed",
        "keys_destroyed": len(report.keys_destroyed),
        "keys_created": report.keys_created,
        "segments_deleted": report.segments_deleted,
        "bytes_deleted": report.bytes_deleted,
        "copies_removed": report.copies_removed,
        "certificates": report.certificates,
        "errors": report.errors,
    }
    if not as_json:
        facts["bytes_deleted"] = show_size(report.bytes_deleted)
        facts["certificates"] = len(report.certificates)
    print_facts(facts, as_json=as_json)
    if report.errors:
        raise PromiseBroken(
            f"{len(report.errors)} parts of the sweep could not be done",
            hint="Mend what the errors name; the next sweep goes on from there.",
        )


@app.command()
def verify(
    certificate: Annotated[str, typer.Argument(help="Id of a certificate.")],
    *,
    site: SiteDir = None,
    as_json: AsJson = False,
) -> None:
    """Check one certificate: it stands in a ledger that verifies, its key and its objects are gone."""
    place = load_site(site)
    with composition.Parts(place) as parts:
        answer = proofs.verify_certificate(parts, certificate)
    print_facts(answer, as_json=as_json)


@app.command("confirm-clock")
def confirm_clock(
    *,
    overrule: Annotated[
        bool,
        typer.Option("--overrule-store", help="The store's clock is wrong and cannot be put right now."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    site: SiteDir = None,
) -> None:
    """Vouch for this host's clock after a jump, so that destruction goes on by it.

    A store whose clock says another time is overruled only on demand; nothing opens that either calls due.
    """
    place = load_site(site)
    with composition.Parts(place) as parts:
        host, store = parts.clock.now(), parts.clock.against()
        if store is not None and not overrule:
            raise RequestInvalid(
                f"this host says {show_time(host)}, the store {show_time(store)}",
                hint="Put right whichever is wrong. If it is the store and cannot be: --overrule-store.",
            )
        if not yes:
            against = f", and the store's {show_time(store)} wrong" if store else ""
            typer.confirm(
                f"Is it really {show_time(host)}{against}? Footage due by then is destroyed", abort=True
            )
        parts.clock.confirm(overrule=overrule)
        facts = {"store": store.isoformat()} if store else {}
        composition.record(place, Event.CLOCK_CONFIRMED, host=host.isoformat(), **facts)
    console.print(f"confirmed: {show_time(host)}")
