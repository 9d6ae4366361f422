"""``videostore retention certificates``: the signed proofs that an hour of a camera is gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from videostore import app as composition
from videostore.app import proof as proofs
from videostore.cli.ledger import Against, PublicKey
from videostore.cli.output import AsJson, SiteDir, console, load_site, print_facts, print_json, print_rows
from videostore.domain.ledger import Json
from videostore.durable import write_file

app = typer.Typer(help="The proofs that footage is gone.", no_args_is_help=True)


@app.command("list")
def list_(
    *,
    camera: Annotated[str, typer.Option("--camera", help="Only of this camera: name or UUID.")] = "",
    site: SiteDir = None,
    as_json: AsJson = False,
) -> None:
    """List the certificates of deletion in the ledger."""
    place = load_site(site)
    only = place.cameras.find(camera).id if camera else None
    with composition.Parts(place) as parts:
        bodies = proofs.certificates(parts, only)
    if as_json:
        print_rows(bodies, as_json=True, empty="")
        return
    for body in bodies:
        console.print(
            f"{body['id']}  camera {body['camera_id']}  hour {body['key_id']}  {body['segments']} segments  "
            f"key destroyed {body['key_destroyed_at'] or 'never known'}  "
            f"absence confirmed {body['confirmed_at']}",
            markup=False,
            soft_wrap=True,
        )
    if not bodies:
        console.print("No certificates yet: nothing has reached its deadline.", style="dim")


@app.command()
def show(
    certificate: Annotated[str, typer.Argument(help="Id of a certificate.")],
    *,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the proof to a file.")] = None,
    site: SiteDir = None,
    as_json: AsJson = False,
) -> None:
    """Show a certificate; --json or -o gives it to an outsider, with signature, checkpoint and proof."""
    with composition.Parts(load_site(site)) as parts:
        proof = proofs.prove_certificate(parts, certificate)
    if output:
        write_file(output, json.dumps(proof, indent=1).encode())
    if as_json:
        print_json(proof)
        return
    print_facts(_facts(proof), as_json=False)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="What `videostore retention certificates show -o` wrote.")],
    *,
    public_key: PublicKey = "",
    against: Against = None,
    site: SiteDir = None,
    as_json: AsJson = False,
) -> None:
    """Check a certificate from its file and the public key alone: no site, no ledger, no network.

    `videostore retention verify` asks the live site whether key and objects are really gone.
    """
    key = public_key or proofs.site_public_key(load_site(site).root)
    facts = proofs.verify_proof(file, public_key=key, against=against or [], certificate_only=True)
    print_facts(facts, as_json=as_json)


def _facts(proof: dict[str, Json]) -> dict[str, Any]:
    match proof:
        case {"record": {"sequence": sequence, "body": dict(body)}, "checkpoint": {"size": size, "at": at}}:
            return {**body, "record": sequence, "proven under": f"the checkpoint of {size} records, {at}"}
        case _:
            raise AssertionError(proof)
