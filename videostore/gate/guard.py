"""What stands before every route: limits on size, time and number of requests; headers on every answer."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import timedelta

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from videostore.domain.errors import RequestInvalid, RequestTooLarge, VideostoreError
from videostore.gate.rates import Rate, counted

LARGEST_BODY = 256 * 1024
"""Bytes. A request for 1,000 cameras has 40 kB."""
LONGEST_ADDRESS = 2048
"""Characters of path and query."""
BODY_SECONDS = 10.0
"""Within which a body has arrived."""
REQUESTS = 6000
"""In a minute, of one address: 100 films downloaded at once, segment by segment, have fewer."""

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=31536000",
    "X-Content-Type-Options": "nosniff",
}
"""On every answer that does not say otherwise."""


class Guard:
    """ASGI middleware. What it refuses, no route has seen."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._requests = Rate(REQUESTS, timedelta(minutes=1))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no web socket is served

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            body = await self._admit(scope, receive)
        except VideostoreError as error:
            await _refuse(error, send_with_headers)
            return
        await self._app(scope, _again(body, receive), send_with_headers)

    async def _admit(self, scope: Scope, receive: Receive) -> bytes:
        """Return the body. Raises TooManyRequests, RequestTooLarge or RequestInvalid."""
        address = scope["client"][0] if scope.get("client") else ""
        self._requests.spend(counted(address), now=time.monotonic())
        if len(scope["path"]) + len(scope["query_string"]) > LONGEST_ADDRESS:
            raise RequestTooLarge(f"an address has at most {LONGEST_ADDRESS} characters")
        headers = Headers(scope=scope)
        if "transfer-encoding" in headers and "content-length" in headers:
            raise _TWO_LENGTHS
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > LARGEST_BODY:
            raise _TOO_LARGE
        try:
            return await asyncio.wait_for(_read(receive), BODY_SECONDS)
        except TimeoutError:
            raise RequestTooLarge(f"a request arrives within {BODY_SECONDS:.0f} seconds") from None


_TWO_LENGTHS = RequestInvalid("a request says once how long it is", hint="Correct the request.")
"""Two who read it differently, such as a proxy and the gate, would take what follows for another's."""
_TOO_LARGE = RequestTooLarge(f"a request has at most {LARGEST_BODY} bytes")


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > LARGEST_BODY:
            raise _TOO_LARGE
        if not message.get("more_body"):
            return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    """Return what gives the route the body that was read, and afterwards what comes."""
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return left.pop() if left else await receive()

    return again


async def _refuse(error: VideostoreError, send: Send) -> None:
    body = json.dumps({"error": type(error).__name__, "message": str(error), "hint": error.hint}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # what follows on it is not looked at
    ]
    await send({"type": "http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
