"""``videostore``: puts the commands together and turns errors into exit codes."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from videostore import __version__
from videostore.cli import (
    access,
    backup,
    camera,
    capacity,
    catalogue,
    coverage,
    demo,
    export,
    footage,
    incident,
    keyring,
    ledger,
    login,
    oversight,
    policy,
    presence,
    report,
    retention,
    site,
    staff,
    store,
    verify,
)
from videostore.cli.output import errors, print_error
from videostore.domain.errors import VideostoreError
from videostore.telemetry import configure_logging

DEBUG = "VIDEOSTORE_DEBUG"

app = typer.Typer(
    name="videostore",
    help="Retention service for digital CCTV footage: no frame is readable 30 days after its capture.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"videostore {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[  # noqa: ARG001 - its callback does all
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    configure_logging(level=lambda: "warning")  # to stderr: what a command prints is what was asked for


for module in (site, capacity, coverage, demo, login, oversight, access, footage, report):
    module.register(app)
for name, group in (
    ("camera", camera.app),
    ("retention", retention.app),
    ("policy", policy.app),
    ("staff", staff.app),
    ("incident", incident.app),
    ("export", export.app),
    ("grant", oversight.grant),
    ("keyring", keyring.app),
    ("ledger", ledger.app),
    ("verify", verify.app),
    ("presence", presence.app),
    ("catalogue", catalogue.app),
    ("store", store.app),
    ("backup", backup.app),
):
    app.add_typer(group, name=name)


def main() -> None:
    """Run a command; the only catch-all of the program."""
    try:
        code = app(standalone_mode=False)
    except VideostoreError as error:
        print_error(error)
        code = error.exit_code
    except typer.Exit as done:
        code = done.exit_code
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except typer.TyperException as error:
        if hasattr(error, "show"):
            error.show()
        code = error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except Exception as error:  # noqa: BLE001 - a person gets one line, whatever happened
        if os.environ.get(DEBUG):
            traceback.print_exc()
        errors.print(f"videostore: unexpected {type(error).__name__}: {error}", markup=False, soft_wrap=True)
        errors.print(
            f"  -> This is a fault of videostore. {DEBUG}=1 shows where; please report it.",
            markup=False,
            soft_wrap=True,
        )
        code = 1
    sys.exit(code or 0)


if __name__ == "__main__":
    main()
