"""The page of the gate, for an officer at a browser: files that are the same for everybody and know nothing.

hls.light.min.js is hls.js 1.7.4 (github.com/video-dev/hls.js, Apache-2.0, 389 kB): most browsers play no HLS
of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files

from fastapi import APIRouter, Response

_FILES = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "hls.light.min.js": "text/javascript; charset=utf-8",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "media-src blob:; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def page_routes() -> APIRouter:
    """Return the routes of the page. They need no login: the page asks for it."""
    router = APIRouter(include_in_schema=False)
    for name, media_type in _FILES.items():
        content = files("videostore.gate").joinpath("page", name).read_bytes()
        path = "/" if name == "index.html" else f"/page/{name}"
        router.get(path)(_file(content, media_type))
    return router


def _file(content: bytes, media_type: str) -> Callable[[], Response]:
    def answer() -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return answer
