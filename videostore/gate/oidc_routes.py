"""Routes of OpenID Connect: a browser logs in by redirections, a terminal by polling.

A browser's token is in a cookie that no script reads and no other site sends; nothing of it is in a URL.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from pydantic import Field

from videostore.gate.entrance_routes import address_of, show_login
from videostore.gate.inputs import SESSION_COOKIE, Body, Empty
from videostore.gate.lanes import Lane
from videostore.gate.service import Gate

_ASKED_AT_ONCE = 8
"""A provider that does not answer holds each for as long as it is waited for."""
_BINDING_COOKIE = "__Host-videostore-login"
_GO_ON = """<!doctype html><html lang="en"><meta charset="utf-8"><title>videostore</title>
<meta http-equiv="refresh" content="0;url=/"><p><a href="/">Go on</a></p></html>"""


class HandleBody(Body):
    handle: str = Field(max_length=100)


def oidc_routes(gate: Gate) -> APIRouter:
    """Return the routes. They need no login: they are the way to one."""
    router = APIRouter()
    provider = Lane("provider", threads=_ASKED_AT_ONCE)

    @router.get("/v1/oidc/login")
    async def begin(request: Request) -> Response:
        """Redirect a browser to the provider (303)."""
        address, binding = await provider.run(gate.entrance.begin_browser, address=address_of(request))
        answer = RedirectResponse(address, status_code=303)
        answer.set_cookie(_BINDING_COOKIE, binding, max_age=600, secure=True, httponly=True, samesite="lax")
        return answer

    @router.get("/v1/oidc/callback")
    async def finish(request: Request, state: str = "", code: str = "") -> Response:
        """Take a browser back from the provider: its token is in a cookie."""
        binding = request.cookies.get(_BINDING_COOKIE, "")
        token, login = await provider.run(
            gate.entrance.finish_browser, state=state, code=code, binding=binding
        )
        # A page and no redirection: what comes from the provider's site brings no strict cookie along.
        answer = HTMLResponse(_GO_ON)
        answer.set_cookie(
            SESSION_COOKIE, token, expires=login.ends_at, secure=True, httponly=True, samesite="strict"
        )
        answer.delete_cookie(_BINDING_COOKIE, secure=True, httponly=True)
        return answer

    @router.post("/v1/oidc/device")
    async def begin_device(request: Request, _: Empty) -> dict[str, Any]:
        """Begin a login of a terminal: the address and code that the person types, and a handle."""
        return await provider.run(gate.entrance.begin_device, address=address_of(request))

    @router.post("/v1/oidc/token")
    async def poll_device(body: HandleBody) -> Response:
        """Return the token once the person has logged in, until then 202."""
        found = await provider.run(gate.entrance.poll_device, body.handle)
        if found is None:
            return JSONResponse({"waits": True}, status_code=202)
        token, login = found
        return JSONResponse({**show_login(token, login), "ends_at": login.ends_at.isoformat()})

    return router
