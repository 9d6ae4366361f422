"""``videostore staff``: who may see footage. Administrators write it down; approvers sign it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import segno
import typer

from videostore import app as composition
from videostore.cli.output import (
    AsJson,
    SiteDir,
    console,
    errors,
    load_site,
    print_facts,
    print_json,
    print_rows,
    show_time,
)
from videostore.cli.times import parse_time
from videostore.config.site import Site
from videostore.domain.access import DEPARTMENT
from videostore.domain.errors import RequestInvalid, SignatureInvalid
from videostore.domain.ledger import Event, Json
from videostore.domain.segment import Span
from videostore.gate.papers import WHAT_IS_APPROVED, sign_approval
from videostore.signing import SigningKey

app = typer.Typer(help="Add, approve, inform and revoke staff.", no_args_is_help=True)

StaffId = Annotated[str, typer.Argument(metavar="STAFF_ID", help="Staff identifier.")]
Approver = Annotated[str, typer.Option("--approver", help="Your identifier in policies/access.yaml.")]
Key = Annotated[Path, typer.Option("--key", help="Your signing key.")]
MaybeApprover = Annotated[
    str, typer.Option("--approver", help="Your identifier in policies/access.yaml, to sign here.")
]
MaybeKey = Annotated[Path | None, typer.Option("--key", help="Your signing key, to sign here.")]
Days = Annotated[int, typer.Option("--days", help="How long the approval is valid.", min=1, max=366)]
Subject = Annotated[
    str, typer.Option("--subject", help="The person's subject at the OpenID provider, instead of a password.")
]
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
    subject: Subject = "",
    password_file: PasswordFile = None,
    site: SiteDir = None,
    as_json: AsJson = False,
) -> None:
    """Give a person an account, which that person sets up here. It opens nothing until approved and
    acknowledged."""
    place = load_site(site)
    identity = composition.identity(place, subject)
    directory = composition.staff(place)
    directory.may_be_added(staff_id, public_key)
    password = "" if identity else read_password(password_file, confirm=True)
    secret = directory.add(
        staff_id, department=department, password=password, identity=identity, public_key=public_key
    )
    composition.record(
        place, Event.STAFF_ADDED, staff_id=staff_id, department=department, public_key=public_key
    )
    _show_login(place, f"added {staff_id}", staff_id, secret, as_json=as_json)


@app.command()
def recover(
    staff_id: StaffId,
    *,
    approver: MaybeApprover = "",
    key: MaybeKey = None,
    public_key: Annotated[
        str, typer.Option("--public-key", help="The person's new public key, if the old one is lost.")
    ] = "",
    subject: Subject = "",
    password_file: PasswordFile = None,
    site: SiteDir = None,
    as_json: AsJson = False,
) -> None:
    """Give a person a new login: password or authenticator are lost, or the account is locked.

    It ends every approval. With --approver and --key what you had approved stays so, for as long as it was;
    else an approver signs again. The person acknowledges the notice again.
    """
    place = load_site(site)
    identity = composition.identity(place, subject)
    signing_key = SigningKey.load(key) if key else None
    directory = composition.staff(place)
    directory.facts(staff_id)  # nobody types a password for who is not there
    secret, approvals = directory.recover(
        staff_id,
        now=parse_time("now", now=composition.host_time()),
        password="" if identity else read_password(password_file, confirm=True),
        identity=identity,
        public_key=public_key,
        approver=approver,
        key=signing_key,
    )
    ids: list[Json] = [approval.id for approval in approvals]
    composition.record(place, Event.STAFF_RECOVERED, staff_id=staff_id, approver=approver, approval_ids=ids)
    _show_login(place, f"{staff_id} has a new login", staff_id, secret, as_json=as_json)


@app.command()
def facts(staff_id: StaffId, *, site: SiteDir = None) -> None:
    """Print what an approver signs of a person, for `videostore staff sign` elsewhere."""
    print_json(composition.staff(load_site(site)).facts(staff_id))


@app.command()
def sign(
    file: Annotated[Path, typer.Argument(help="What `videostore staff facts` printed.")],
    *,
    approver: Approver,
    key: Key,
    days: Days = 90,
) -> None:
    """Sign an approval on the approver's own machine and print it, for `videostore staff approve --file`."""
    person = _read_json(file)
    missing = [field for field in WHAT_IS_APPROVED if not isinstance(person.get(field), str)]
    if missing:
        raise RequestInvalid(
            f"{file} does not say {', '.join(missing)}", hint="`videostore staff facts STAFF_ID` prints all."
        )
    now = parse_time("now", now=composition.host_time())
    valid = Span(now, now + timedelta(days=days))
    errors.print(
        f"You approve {person['staff_id']} of {person['department']} until {show_time(valid.end)}, "
        f"whose key is {person['public_key']}: does the person say the same?",
        markup=False,
        soft_wrap=True,
    )
    print_json(sign_approval(person, approver, SigningKey.load(key), valid=valid, now=now))


@app.command()
def approve(
    staff_id: StaffId,
    *,
    file: Annotated[
        Path | None, typer.Option("--file", help="An approval that was signed elsewhere.")
    ] = None,
    approver: MaybeApprover = "",
    key: MaybeKey = None,
    days: Days = 90,
    site: SiteDir = None,
) -> None:
    """Approve a person, as the Under-Secretary-General's delegate, by your signature."""
    place = load_site(site)
    directory = composition.staff(place)
    now = parse_time("now", now=composition.host_time())
    if file is not None:
        paper = _read_json(file)
        if paper.get("staff_id") != staff_id:
            raise RequestInvalid(f"{file} approves somebody else", hint="Name the person that it names.")
        approval = directory.file_approval(paper)
    elif key is not None and approver:
        valid = Span(now, now + timedelta(days=days))
        approval = directory.approve(staff_id, approver, SigningKey.load(key), valid=valid, now=now)
    else:
        raise RequestInvalid("nothing signs", hint="Give --file, or --approver and --key.")
    composition.record(
        place,
        Event.STAFF_APPROVED,
        staff_id=staff_id,
        approval_id=approval.id,
        approver=approval.approver,
        valid=[approval.valid.start.isoformat(), approval.valid.end.isoformat()],
    )
    console.print(f"approved {staff_id} until {show_time(approval.valid.end)}", markup=False)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="An approval.")],
    *,
    public_key: Annotated[str, typer.Option("--public-key", help="The approver's: ed25519:…")],
    ledger: Annotated[
        Path | None, typer.Option("--ledger", help="A copy of the ledger directory: was it withdrawn?")
    ] = None,
    at: Annotated[str, typer.Option("--at", help="When it is to be valid.")] = "now",
    as_json: AsJson = False,
) -> None:
    """Check an approval without its site: signature, validity, and withdrawal by a copy of the ledger."""
    paper, now = _read_json(file), parse_time(at, now=composition.host_time())
    found = composition.verify_approval(paper, public_key, ledger=ledger, now=now)
    print_facts(found, as_json=as_json)
    if not found["ok"]:
        raise SignatureInvalid(f"the approval does not hold: {found['reason']}", hint="Ask its approver.")


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
def revoke(
    staff_id: StaffId,
    *,
    approval: Annotated[str, typer.Option("--approval", help="Id of the only one to withdraw.")] = "",
    site: SiteDir = None,
) -> None:
    """Withdraw every approval of a person, or one. A viewing under way stops at its next segment."""
    place = load_site(site)
    ids: list[Json] = list(composition.staff(place).revoke(staff_id, approval or None))
    composition.record(place, Event.STAFF_REVOKED, staff_id=staff_id, approval_id=approval, approval_ids=ids)
    left = "one approval is withdrawn" if approval else f"{staff_id} sees nothing any more"
    console.print(f"revoked: {left}", markup=False)


@app.command()
def suspend(
    staff_id: StaffId,
    *,
    end: Annotated[bool, typer.Option("--end", help="Open the account again.")] = False,
    site: SiteDir = None,
) -> None:
    """Close a person's account, or open it again. Every session ends at once."""
    place = load_site(site)
    composition.staff(place).suspend(staff_id, suspended=not end)
    composition.record(place, Event.STAFF_SUSPENDED, staff_id=staff_id, suspended=not end)
    console.print(f"{staff_id} is {'open again' if end else 'suspended'}", markup=False)


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
    return _read_line(file)


def read_code(file: Path | None) -> str:
    """Return the code of now from the keyboard, or made from the authenticator's secret in a file."""
    if file is None:
        answer: str = typer.prompt("Code of your authenticator")
        return answer
    return composition.current_code(_read_line(file), now=composition.host_time())


def _read_line(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestInvalid(f"cannot read {file}: {error}", hint="Name a file that holds it.") from error


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise RequestInvalid(
            f"cannot read {file}: {error}", hint="Name a file of one JSON object."
        ) from error
    if not isinstance(value, dict):
        raise RequestInvalid(f"{file} is not a JSON object", hint="Name a file of one JSON object.")
    return value


def _show_login(place: Site, what: str, staff_id: str, secret: str, *, as_json: bool) -> None:
    address = composition.enrolment(place.settings.site, staff_id, secret) if secret else ""
    if as_json:
        print_facts({"staff_id": staff_id, "authenticator": address}, as_json=True)
        return
    console.print(what, markup=False)
    if secret:
        console.print(
            f"  -> put this into your authenticator; it is shown once: {secret}\n     {address}",
            markup=False,
            soft_wrap=True,
        )
        if console.is_terminal:
            segno.make(address, error="l").terminal(compact=True)
