"""``videostore presence``: who is inside, from entry/exit records that live at most 24 hours."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from videostore import app as composition
from videostore.cli.access import Incident, connected, find_incident
from videostore.cli.output import AsJson, SiteDir, console, load_site, print_json, print_rows
from videostore.cli.times import parse_time
from videostore.domain.errors import RecordsUnread
from videostore.presence.register import parse_passage

app = typer.Typer(help="Record entries and exits; ask who is on the premises.", no_args_is_help=True)


@app.command()
def record(*, site: SiteDir = None) -> None:
    """Take entry/exit records from stdin, a JSON object a line: badge, door, direction, read_at."""
    with composition.Parts(load_site(site), role="recorder") as parts:
        register = parts.register()
        taken = 0
        for line in sys.stdin:
            if line.strip():
                register.record(parse_passage(line))
                taken += 1
    console.print(f"recorded {taken} passages")


@app.command("on-premises")
def on_premises(
    *,
    at: Annotated[str, typer.Option("--at", help="Moment, such as now, 14:00 or 10m (ago).")] = "now",
    incident: Incident = "",
    as_json: AsJson = False,
) -> None:
    """Show who was inside at a moment, for an open incident, at the gate.

    Fails after it has answered if there are records that cannot be read: people may be inside who are not
    named."""
    moment = parse_time(at, now=composition.host_time())
    with connected() as client:
        body = {"incident_id": find_incident(client, incident), "at": moment.isoformat()}
        roll = client.post("/v1/presence", body)
    if as_json:
        print_json(roll)
    else:
        print_rows(
            roll["inside"], as_json=False, empty="Nobody is on the premises, by the records there are."
        )
    if roll["unread"]:
        lacking = "; ".join(
            f"{row['hour'][:13]}h: {'all' if row['records'] is None else row['records']} ({row['why']})"
            for row in roll["unread"]
        )
        raise RecordsUnread(
            f"entry/exit records could not be read, by the hour (UTC): {lacking}",
            hint="More people may be inside than are named: count at the doors, and search everywhere.",
        )
