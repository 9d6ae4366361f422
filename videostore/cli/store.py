"""``videostore store``: choose, set up and watch the object store."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

import typer

from videostore import app as composition
from videostore.cli.output import AsJson, SiteDir, console, load_site, print_rows
from videostore.domain.errors import PromiseBroken

app = typer.Typer(help="Choose, set up and watch the object store.", no_args_is_help=True)

Admin = Annotated[
    str,
    typer.Option(
        "--admin", help="env:NAME or file:PATH of an administrator's keys; default: store.credentials."
    ),
]


@app.command()
def qualify(*, admin: Admin = "", site: SiteDir = None, as_json: AsJson = False) -> None:
    """Ask a store everything that our promises need of it. Works in a bucket of its own, and removes it."""
    rows: list[dict[str, Any]] = []
    with composition.Parts(load_site(site)) as parts:
        for finding in composition.qualify_store(parts, admin):
            rows.append(asdict(finding))
            if not as_json:
                mark = "yes" if finding.ok else "NO " if finding.needed else "no "
                console.print(f"{mark}  {finding.question}  {finding.detail}", markup=False, soft_wrap=True)
    if as_json:
        print_rows(rows, as_json=True, empty="")
    unfit = [row for row in rows if row["needed"] and not row["ok"]]
    if unfit:
        raise PromiseBroken(
            f"{len(unfit)} promises do not hold with this store",
            hint="Choose another store or mend this one before footage is put there.",
        )


@app.command()
def provision(
    *,
    admin: Admin = "",
    identities: Annotated[
        Literal["none", "iam", "files"],
        typer.Option(
            "--identities",
            help="Make an identity for each role: through the store's IAM API, or as files to give to it.",
        ),
    ] = "none",
    site: SiteDir = None,
    as_json: AsJson = False,
) -> None:
    """Make the bucket, write its lifecycle rules, and make an identity for each role. Safe to repeat."""
    with composition.Parts(load_site(site)) as parts:
        rows = [
            {"what": what, "done": done}
            for what, done in composition.provision_store(parts, admin, identities)
        ]
    print_rows(rows, as_json=as_json, empty="")


@app.command()
def drift(
    *,
    objects: Annotated[
        bool, typer.Option("--objects", help="Look for a lock at every object; long.")
    ] = False,
    site: SiteDir = None,
    as_json: AsJson = False,
) -> None:
    """Show what about the bucket is not as it must be: rules, locks, copies, public access."""
    with composition.Parts(load_site(site)) as parts:
        rows = [asdict(one) for one in composition.store_drift(parts, objects=objects)]
    print_rows(rows, as_json=as_json, empty="The bucket is as it must be.")
    if rows:
        raise PromiseBroken(
            f"{len(rows)} things about the bucket are not as they must be",
            hint="`videostore store provision` writes the rules anew; who set a lock or a copy must undo it.",
        )
