"""``videostore reviews | review | grant``: what approved people look at of each other, at the gate."""

from __future__ import annotations

from typing import Annotated

import typer

from videostore.cli.access import connected
from videostore.cli.output import AsJson, console, print_rows

grant = typer.Typer(help="List and revoke grants, at the gate.", no_args_is_help=True)

GrantId = Annotated[str, typer.Argument(metavar="GRANT", help="Id of a grant.")]


def register(app: typer.Typer) -> None:
    for command in (reviews, review):
        app.command()(command)


def reviews(*, as_json: AsJson = False) -> None:
    """List the grants that were taken by breaking the glass and wait for review."""
    with connected() as client:
        print_rows(client.get("/v1/reviews"), as_json=as_json, empty="Nothing waits for review.")


def review(
    grant_id: GrantId,
    verdict: Annotated[str, typer.Argument(help="What you found, such as 'fire alarm, confirmed'.")],
) -> None:
    """Close the review of a broken glass, as a second person."""
    with connected() as client:
        client.post(f"/v1/reviews/{grant_id}", {"verdict": verdict})
    console.print(f"reviewed {grant_id}", markup=False)


@grant.command("list")
def list_(*, as_json: AsJson = False) -> None:
    """List the grants in force."""
    with connected() as client:
        print_rows(client.get("/v1/grants"), as_json=as_json, empty="No grant is in force.")


@grant.command()
def revoke(grant_id: GrantId) -> None:
    """End a grant, one's own or another's. What plays under it stops at its next segment."""
    with connected() as client:
        client.post(f"/v1/grants/{grant_id}/revoke")
    console.print(f"revoked {grant_id}", markup=False)
