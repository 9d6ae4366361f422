"""``videostore incident``: the occasions on which footage may be seen."""

from __future__ import annotations

from typing import Annotated

import typer

from videostore.cli.access import connected, find_incident
from videostore.cli.output import AsJson, console, print_facts, print_rows
from videostore.domain.access import Purpose

app = typer.Typer(help="Open, list and close incidents, at the gate.", no_args_is_help=True)


@app.command("open")
def open_(
    purpose: Annotated[Purpose, typer.Argument(help="One of the two purposes of paragraph 27 (a).")],
    reference: Annotated[str, typer.Argument(help="What happened, such as 'fire alarm, building B'.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Open an incident. Without one nobody sees anything."""
    with connected() as client:
        incident = client.post("/v1/incidents", {"purpose": purpose.value, "reference": reference})
    print_facts(incident, as_json=as_json)


@app.command("list")
def list_(*, as_json: AsJson = False) -> None:
    """List the incidents that are open."""
    with connected() as client:
        print_rows(client.get("/v1/incidents"), as_json=as_json, empty="No incident is open.")


@app.command()
def close(
    incident: Annotated[str, typer.Argument(metavar="[ID]", help="Not needed while only one is open.")] = "",
) -> None:
    """Close an incident. Every viewing under it stops at its next segment."""
    with connected() as client:
        closed = client.post(f"/v1/incidents/{find_incident(client, incident)}/close")
    console.print(f"closed {closed['incident_id']}: {closed['reference']}", markup=False)
