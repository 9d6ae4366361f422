"""Answers to a camera's question for a password: basic (RFC 7617), digest (RFC 7616, 2069). Pure.

RTSP (RFC 2326, appendix D.1) takes both from HTTP, with the method and URL of RTSP.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

_HASHES = {"MD5": "md5", "SHA-256": "sha256"}
_PAIR = re.compile(r'([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^",\s]+))')


@dataclass(frozen=True, slots=True)
class Challenge:
    """How a camera wants to be answered. ``algorithm`` is empty for basic."""

    realm: str = ""
    nonce: str = ""
    opaque: str | None = None
    algorithm: str = ""
    named: bool = False
    session: bool = False
    qop: bool = False
    stale: bool = False


def challenge(headers: Sequence[str]) -> Challenge | None:
    """Return the strongest question that can be answered: SHA-256, then MD5, then basic."""
    found = [one for header in headers for one in _schemes(header)]
    return max(found, key=lambda one: ("", "MD5", "SHA-256").index(one.algorithm), default=None)


def _schemes(header: str) -> list[Challenge]:
    """One header may hold several: a scheme begins where a word stands without ``=``."""
    found = []
    for scheme, rest in re.findall(
        r"\b(Digest|Basic)\b\s*((?:(?!\b(?:Digest|Basic)\s+\w+\s*=).)*)", header, re.IGNORECASE | re.DOTALL
    ):
        said = {name.lower(): _unescaped(quoted) or plain for name, quoted, plain in _PAIR.findall(rest)}
        if scheme.lower() == "basic":
            found.append(Challenge(realm=said.get("realm", "")))
            continue
        algorithm = said.get("algorithm", "").upper()
        kind, session = algorithm.removesuffix("-SESS") or "MD5", algorithm.endswith("-SESS")
        offers = {one.strip().lower() for one in said.get("qop", "").split(",")}
        if kind not in _HASHES or "nonce" not in said or (offers - {""} and "auth" not in offers):
            continue
        found.append(
            Challenge(
                said.get("realm", ""),
                said["nonce"],
                said.get("opaque"),
                kind,
                bool(algorithm),
                session,
                "auth" in offers,
                said.get("stale", "").lower() == "true",
            )
        )
    return found


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def authorization(
    asked: Challenge, credentials: tuple[str, str], *, method: str, url: str, count: int, cnonce: str
) -> str:
    """Return the header ``Authorization`` of one request. ``count`` says how often the nonce was used, this
    time included; ``cnonce`` is our own part, new for each."""
    user, password = credentials
    if not asked.algorithm:
        return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"

    def hashed(*parts: str) -> str:
        name = _HASHES[asked.algorithm]
        return hashlib.new(name, ":".join(parts).encode(), usedforsecurity=False).hexdigest()

    secret = hashed(user, asked.realm, password)
    if asked.session:
        secret = hashed(secret, asked.nonce, cnonce)
    fields = {"username": user, "realm": asked.realm, "nonce": asked.nonce, "uri": url}
    bare = {}
    if asked.qop:
        bare = {"qop": "auth", "nc": f"{count:08x}"}
        fields["response"] = hashed(secret, asked.nonce, bare["nc"], cnonce, "auth", hashed(method, url))
    else:
        fields["response"] = hashed(secret, asked.nonce, hashed(method, url))
    if asked.qop or asked.session:
        fields["cnonce"] = cnonce
    if asked.opaque is not None:
        fields["opaque"] = asked.opaque
    if asked.named:
        bare["algorithm"] = asked.algorithm + ("-sess" if asked.session else "")
    said = [f'{name}="{_escaped(value)}"' for name, value in fields.items()]
    return "Digest " + ", ".join([*said, *(f"{name}={value}" for name, value in bare.items())])


def _escaped(text: str) -> str:
    return re.sub(r'(["\\])', r"\\\1", text)
