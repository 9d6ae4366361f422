"""``videostore login | logout | whoami | acknowledge``: a person at the gate."""

from __future__ import annotations

import hashlib
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from videostore import app as composition
from videostore.cli.access import connected
from videostore.cli.client import GateClient, Session
from videostore.cli.output import AsJson, console, print_facts, show_time
from videostore.cli.staff import PasswordFile, read_code, read_password
from videostore.domain.errors import IntegrityError, NotLoggedIn
from videostore.gate.papers import sign_acknowledgement
from videostore.signing import SigningKey

GATE = "https://127.0.0.1:8470"


def register(app: typer.Typer) -> None:
    for command in (login, logout, whoami, acknowledge):
        app.command()(command)


def login(
    staff_id: Annotated[
        str,
        typer.Argument(metavar="[STAFF_ID]", help="Of a local account; without it, by OpenID."),
    ] = "",
    *,
    gate: Annotated[str, typer.Option("--gate", envvar="VIDEOSTORE_GATE", help="URL of the gate.")] = GATE,
    ca_file: Annotated[
        Path | None,
        typer.Option(
            "--ca-file", envvar="VIDEOSTORE_CA", help="The site's tls/ca.pem; not needed in its directory."
        ),
    ] = None,
    password_file: PasswordFile = None,
    authenticator: Annotated[
        Path | None,
        typer.Option("--authenticator", help="File with the authenticator's secret, for tests."),
    ] = None,
) -> None:
    """Log in at a gate. It opens nothing by itself: approval and notice are asked at every step."""
    authority = composition.authority_here(ca_file)
    with GateClient(gate, ca_file=authority) as client:
        if staff_id:
            password = read_password(password_file)
            body = {"staff_id": staff_id, "password": password, "code": read_code(authenticator)}
            answer = client.post("/v1/login", body)
        else:
            answer = _log_in_by_provider(client)
    staff_id = answer["staff_id"]
    session = Session(gate=gate, staff_id=staff_id, token=answer["token"], ca_file=authority)
    session.save()
    with GateClient.of(session) as client:
        right = client.get("/v1/whoami")
    console.print(
        f"logged in as {staff_id} until {show_time(datetime.fromisoformat(answer['ends_at']))}",
        markup=False,
    )
    if not right["may_see_footage"]:
        console.print(f"  -> you cannot see footage: {right['reason']}", markup=False)


def _log_in_by_provider(client: GateClient) -> dict[str, Any]:
    """Have the person agree at the provider, on any machine with a browser (RFC 8628)."""
    asked = client.post("/v1/oidc/device")
    console.print(
        f"open {asked['verification_uri_complete'] or asked['verification_uri']}\n"
        f"and see that it shows the code {asked['user_code']}",
        markup=False,
        soft_wrap=True,
    )
    until = time.monotonic() + asked["expires_in_seconds"]
    while time.monotonic() < until:
        time.sleep(asked["interval_seconds"])
        answer: dict[str, Any] = client.post("/v1/oidc/token", {"handle": asked["handle"]})
        if "token" in answer:
            return answer
    raise NotLoggedIn("nobody agreed at the provider", hint="videostore login")


def logout() -> None:
    """End the login."""
    with connected() as client:
        client.post("/v1/logout")
    Session.forget()


def whoami(*, as_json: AsJson = False) -> None:
    """Show who is logged in, and whether that person may see footage now, or why not."""
    with connected() as client:
        print_facts({**client.get("/v1/whoami"), "gate": client.gate}, as_json=as_json)


def acknowledge(
    *,
    key: Annotated[Path, typer.Option("--key", help="Your signing key; it does not leave this machine.")],
    yes: Annotated[bool, typer.Option("--yes", help="You have read the notice; do not ask.")] = False,
) -> None:
    """Read the notice of paragraph 27 and sign it."""
    with connected() as client:
        asked = client.get("/v1/notice")
        console.print(asked["notice"], markup=False)
        if hashlib.sha256(asked["notice"].encode()).hexdigest() != asked["notice_sha256"]:
            raise IntegrityError("the gate asks to sign another text than it shows", hint="Do not sign.")
        if not yes:
            typer.confirm(f"{asked['staff_id']}: I have read this and I sign it", abort=True)
        paper = sign_acknowledgement(
            asked["staff_id"],
            SigningKey.load(key),
            notice_sha256=asked["notice_sha256"],
            login_sha256=asked["login_sha256"],
            now=composition.host_time(),
        )
        client.post("/v1/acknowledgements", paper)
    console.print(f"{asked['staff_id']} acknowledged the notice {asked['notice_sha256'][:12]}…", markup=False)
