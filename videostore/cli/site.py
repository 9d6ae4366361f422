"""``videostore init | run | status | check | doctor``: a site as a whole."""

from __future__ import annotations

import signal
from enum import StrEnum
from pathlib import Path
from threading import Event
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from videostore import app as composition
from videostore.cli.ledger import Against
from videostore.cli.output import (
    AsJson,
    SiteDir,
    cell,
    console,
    cut,
    load_site,
    print_json,
)
from videostore.cli.status import status
from videostore.config.follow import Followed
from videostore.config.site import SETTINGS, Site
from videostore.domain.errors import PromiseBroken, PromiseUnproven, RequestInvalid
from videostore.telemetry import configure_logging


class Role(StrEnum):
    """What a process of a site can do; ``all`` is one process of each."""

    RECORDER = "recorder"
    RETENTION = "retention"
    GATE = "gate"
    ALL = "all"


def register(app: typer.Typer) -> None:
    for command in (init, run, status, check, doctor):
        app.command()(command)


def init(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="New or empty directory.")] = Path(
        "site"
    ),
    *,
    name: Annotated[str, typer.Option("--name", help="Name of the premises.")] = "",
) -> None:
    """Make a site: settings, policies, keys, embedded store and catalogue."""
    composition.create(directory, name=name or directory.absolute().name)
    console.print(f"made the site {directory}", markup=False)
    console.print(
        f"Next:\n"
        f"  export VIDEOSTORE_SITE={directory.absolute()}\n"
        f"  videostore camera add NAME rtsp://HOST/PATH --credentials-file secrets/NAME\n"
        f"  videostore run all",
        markup=False,
        soft_wrap=True,
    )


def run(
    role: Annotated[Role, typer.Argument(help="Which part of the site.")] = Role.ALL,
    *,
    site: SiteDir = None,
    share: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run a part of the site, or one process of each, until stopped by Ctrl-C or SIGTERM."""
    place = load_site(site, whole=role is not Role.RETENTION)
    level = Followed(place.root / SETTINGS, lambda: Site.load(place.root, whole=False).settings.logging.level)
    configure_logging(level=level, json=place.settings.logging.form == "json")
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    composition.run(place, role.value, stop, share=share)


def check(
    *,
    listing: Annotated[
        bool, typer.Option("--listing", help="Ask the store's listing alone: an auditor needs no more.")
    ] = False,
    ledger: Annotated[
        Path | None,
        typer.Option(
            "--ledger",
            help="With --listing: judge by the policies in this copy of the ledger, not by the files.",
        ),
    ] = None,
    public_key: Annotated[
        str,
        typer.Option("--public-key", help="ed25519:… that must have signed it; default: the key beside it."),
    ] = "",
    against: Against = None,
    site: SiteDir = None,
    as_json: AsJson = False,
) -> None:
    """Ask every promise of the live site; exit code 70 if one does not hold.

    71 if all that could be asked hold, and checkpoints of the ledger are kept where they could not be read:
    that is shown as "?", and in JSON holds is null.
    """
    if (ledger is None and (public_key or (listing and against))) or (ledger and not listing):
        raise RequestInvalid(
            "--ledger goes with --listing, --public-key and --against with a ledger",
            hint="Without --listing the site's own ledger is verified.",
        )
    with composition.Parts(load_site(site)) as parts:
        if listing:
            findings = composition.check_listing(
                parts, ledger=ledger, public_key=public_key, against=against or []
            )
        else:
            findings = composition.check(parts, against=against or [])
    if as_json:
        print_json([finding.to_json() for finding in findings])
    else:
        for finding in findings:
            console.print(
                Text.assemble(
                    *_MARKS[finding.holds],
                    f"{finding.invariant}  {finding.question}  ",
                )
                + Text(finding.answer, style=_STYLES[finding.holds]),
                soft_wrap=True,
            )
            for line in finding.evidence if not finding.holds else ():
                console.print(f"        {line}", markup=False, soft_wrap=True)
    broken, unproven = ([one for one in findings if one.holds is state] for state in (False, None))
    if broken:
        raise PromiseBroken(
            f"{len(broken)} of {len(findings)} promises do not hold",
            hint="docs/design/invariants.md explains each; the number stands before the question.",
        )
    if unproven:
        raise PromiseUnproven(
            f"the ledger was not compared with what {len(unproven)} of its anchors kept",
            hint="Each `?` says how it is mended; `ledger verify --against` compares what was fetched there.",
        )


_MARKS = {True: (cell(True), "  "), False: (cell(False), "   "), None: (Text("?", style="yellow"), "    ")}
_STYLES = {True: "dim", False: "bold red", None: "yellow"}


def doctor(*, site: SiteDir = None, as_json: AsJson = False) -> None:
    """Look for what is wrong with this machine's set-up; exit code 70 if something is.

    What is wrong comes first, with how it is mended.
    """
    rows = composition.diagnose(load_site(site))
    bad = [row for row in rows if not row["ok"]]
    if as_json:
        print_json(rows)
    else:
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        for row in sorted(rows, key=lambda row: bool(row["ok"])):
            wrong = Text.assemble((row["answer"], "bold red"), f"\n-> {row['hint']}")
            table.add_row(cell(row["ok"]), row["what"], cut(cell(row["answer"])) if row["ok"] else wrong)
        console.print(table)
    if bad:
        raise PromiseBroken(
            f"{len(bad)} of {len(rows)} looks found something wrong",
            hint="Each line with an arrow says how it is mended.",
        )
