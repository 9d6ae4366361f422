"""Routes of the entrance: logging in and out, and the notice. Thin, as in ``gate.api``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from videostore.gate.inputs import Body, Empty, StaffId, bearer_token
from videostore.gate.lanes import Lane
from videostore.gate.logins import Login
from videostore.gate.rates import counted
from videostore.gate.service import Gate

LOGINS_AT_ONCE = 2
"""Each takes 64 MiB and four processors for a tenth of a second."""


class LoginBody(Body):
    staff_id: str = Field(max_length=200)
    password: str = Field(max_length=1000)
    code: str = Field("", max_length=20)


class AcknowledgementBody(Body):
    staff_id: str = Field(max_length=200)
    notice_sha256: str = Field(max_length=64)
    login_sha256: str = Field(max_length=64)
    at: str = Field(max_length=40)
    signature: str = Field(max_length=200)


def entrance_routes(gate: Gate) -> APIRouter:
    """Return the routes of a person's own login. None of them opens anything."""
    router = APIRouter(prefix="/v1")
    hashing = Lane("login", threads=LOGINS_AT_ONCE)

    @router.post("/login")
    async def login(body: LoginBody, request: Request) -> dict[str, Any]:
        """Log in by password and code of the authenticator. Returns the token and when it ends."""
        credentials = (body.staff_id, body.password, body.code)
        return show_login(*await hashing.run(gate.entrance.login, *credentials, address=address_of(request)))

    @router.get("/login")
    def ways() -> dict[str, bool]:
        """Say which ways to log in there are."""
        return {"password": True, "oidc": gate.entrance.has_provider}

    @router.post("/logout")
    def logout(request: Request, _: StaffId, __: Empty) -> dict[str, Any]:
        """End this login."""
        gate.entrance.logout(bearer_token(request))
        return {}

    @router.get("/whoami")
    def whoami(staff_id: StaffId) -> dict[str, Any]:
        """Say who is logged in and whether that person may see footage; if not, why."""
        decision = gate.right(staff_id)
        return {"staff_id": staff_id, "may_see_footage": decision.allowed, "reason": decision.reason.value}

    @router.get("/notice")
    def notice(staff_id: StaffId) -> dict[str, str]:
        """Return the notice, and what is signed under it."""
        return gate.entrance.notice(staff_id)

    @router.post("/acknowledgements")
    def acknowledge(staff_id: StaffId, body: AcknowledgementBody) -> dict[str, Any]:
        """Take in the person's signature under the notice."""
        gate.entrance.acknowledge(staff_id, body.model_dump())
        return {}

    return router


def address_of(request: Request) -> str:
    """Return where a request comes from, as it is counted."""
    return counted(request.client.host) if request.client else ""


def show_login(token: str, login: Login) -> dict[str, Any]:
    """Return what a person who has logged in gets."""
    return {"token": token, "staff_id": login.staff_id, "ends_at": login.ends_at}
