"""``videostore report``: a month for the oversight body."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from videostore import app as composition
from videostore.app import reporting
from videostore.cli.output import AsJson, SiteDir, load_site, print_facts


def register(app: typer.Typer) -> None:
    app.command()(report)


def report(
    *,
    month: Annotated[
        str, typer.Option("--month", help="YYYY-MM; default: the last one that is over.", show_default=False)
    ] = "",
    to_dir: Annotated[Path, typer.Option("--to-dir", help="Directory to write to.")] = Path(),
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Verify the whole ledger first; the report says so.")
    ] = True,
    site: SiteDir = None,
    as_json: AsJson = False,
) -> None:
    """Write the report of a month for the oversight body, as HTML and PDF.

    It says whether anything was readable past its deadline, who looked and why, who was refused, and
    what was not recorded. Nothing personal but staff identifiers. Needs `pip install videostore[report]`.
    """
    with composition.Parts(load_site(site)) as parts:
        name = month or reporting.last_month(parts.clock.now())
        facts = reporting.make_report(parts, name, to_dir, verify=verify)
    print_facts(facts, as_json=as_json)
