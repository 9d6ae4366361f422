"""``videostore staff``: who may see footage. Administrators write it down; approvers sign it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from videostore import app as composition
from videostore.cli.output import AsJson, SiteDir, console, load_site, print_rows, show_time
from videostore.cli.times import parse_time
from videostore.domain.access import DEPARTMENT
from videostore.domain.errors import RequestInvalid
from videostore.domain.ledger import Event
from videostore.domain.segment import Span
from videostore.signing import SigningKey

app = typer.Typer(help="Add, approve, inform and revoke staff.", no_args_is_help=True)

StaffId = Annotated[str, typer.Argument(metavar="STAFF_ID", help="Staff identifier.")]
PasswordFile = Annotated[
    Path | None, typer.Option("--password-file", help="File with the password; without it you are asked.")
]


@app.command()
def key(file: Annotated[Path, typer.Argument(help="New file for the private key (mode 0600).")]) -> None:
    """Make a signing key and print its public half. Each person makes their own and keeps it."""
    console.print(SigningKey.create(file).public, markup=False, soft_wrap=True)


@app.command()
def add(
    staff_id: StaffId,
    *,
    public_key: Annotated[str, typer.Option("--public-key", help="The person's public key, ed25519:…")],
    department: Annotated[str, typer.Option("--department", help="Only DSS can be approved.")] = DEPARTMENT,
    password_file: PasswordFile = None,
    site: SiteDir = None,
) -> None:
    """Give a person an account. It opens nothing until approved and acknowledged."""
    place = load_site(site)
    composition.staff(place).add(
        staff_id,
        department=department,
        password=read_password(password_file, confirm=True),
        public_key=public_key,
    )
    composition.record(
        place, Event.STAFF_ADDED, staff_id=staff_id, department=department, public_key=public_key
    )
    console.print(f"added {staff_id}", markup=False)


@app.command()
def approve(
    staff_id: StaffId,
    *,
    approver: Annotated[str, typer.Option("--approver", help="Your identifier in policies/access.yaml.")],
    key: Annotated[Path, typer.Option("--key", help="Your signing key.")],
    days: Annotated[int, typer.Option("--days", help="How long the approval is valid.", min=1, max=366)] = 90,
    site: SiteDir = None,
) -> None:
    """Approve a person, as the Under-Secretary-General's delegate, by your signature."""
    place = load_site(site)
    now = parse_time("now", now=composition.host_time())
    valid = Span(now, now + timedelta(days=days))
    approval = composition.staff(place).approve(
        staff_id, approver, SigningKey.load(key), valid=valid, now=now
    )
    composition.record(
        place,
        Event.STAFF_APPROVED,
        staff_id=staff_id,
        approval_id=approval.id,
        approver=approver,
        valid=[valid.start.isoformat(), valid.end.isoformat()],
    )
    console.print(f"approved {staff_id} until {show_time(valid.end)}", markup=False)


@app.command()
def acknowledge(
    staff_id: StaffId,
    *,
    key: Annotated[Path, typer.Option("--key", help="Your signing key.")],
    yes: Annotated[bool, typer.Option("--yes", help="You have read the notice; do not ask.")] = False,
    site: SiteDir = None,
) -> None:
    """Read the notice of paragraph 27 and sign it."""
    place = load_site(site)
    console.print(place.notice(), markup=False)
    if not yes:
        typer.confirm(f"{staff_id}: I have read this and I sign it", abort=True)
    notice = place.access().notice_sha256
    composition.staff(place).acknowledge(
        staff_id, SigningKey.load(key), notice_sha256=notice, now=composition.host_time()
    )
    composition.record(place, Event.STAFF_ACKNOWLEDGED, staff_id=staff_id, notice_sha256=notice)
    console.print(f"{staff_id} acknowledged the notice {notice[:12]}…", markup=False)


@app.command()
def revoke(staff_id: StaffId, *, site: SiteDir = None) -> None:
    """Withdraw every approval of a person. A viewing under way stops at its next segment."""
    place = load_site(site)
    composition.staff(place).revoke(staff_id)
    composition.record(place, Event.STAFF_REVOKED, staff_id=staff_id)
    console.print(f"revoked: {staff_id} sees nothing any more", markup=False)


@app.command("list")
def list_(*, site: SiteDir = None, as_json: AsJson = False) -> None:
    """List people, and whether they may see footage now, or why not."""
    rows = composition.staff_rows(load_site(site))
    print_rows(rows, as_json=as_json, empty="Nobody yet: `videostore staff add STAFF_ID --public-key …`")


def read_password(file: Path | None, *, confirm: bool = False) -> str:
    """Return the password from a file or from the keyboard, never from an argument."""
    if file is None:
        answer: str = typer.prompt("Password", hide_input=True, confirmation_prompt=confirm)
        return answer
    try:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestInvalid(
            f"cannot read {file}: {error}", hint="Name a file that holds the password."
        ) from error
