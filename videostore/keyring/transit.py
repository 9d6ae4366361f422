"""The master key in the transit engine of OpenBao or HashiCorp Vault: it never leaves the server.

Named ``transit:URL/v1/MOUNT/keys/NAME?token=file:PATH``, with ``&ca=PATH`` for a private authority. The
server's own versions are the generations; what it wraps is ``vault:vN:…``, the context authenticated with it
(``associated_data``). The token needs to encrypt and decrypt by the key; to rotate also to write it.
"""

from __future__ import annotations

import base64
import ssl
from typing import Any
from urllib.parse import parse_qsl

import httpx

from videostore.domain.errors import ConfigInvalid, KeyUnavailable, SealBroken

SCHEME = "transit:"
_SECONDS = 10


class MasterKeyTransit:
    """Port MasterKey, on a server. ``url`` is that of the key; no ``ca_file``: the usual authorities."""

    def __init__(self, url: str, *, token: str, ca_file: str = "") -> None:
        self._mount, _, self._name = url.rpartition("/keys/")
        self._headers = {"X-Vault-Token": token}
        self._trust = ssl.create_default_context(cafile=ca_file or None)

    def wrap(self, secret: bytes, *, context: bytes) -> bytes:
        answer = self._ask(f"encrypt/{self._name}", plaintext=_text(secret), associated_data=_text(context))
        return str(answer["ciphertext"]).encode()

    def unwrap(self, wrapped: bytes, *, context: bytes) -> bytes:
        try:
            ciphertext = wrapped.decode("ascii")
        except UnicodeDecodeError as error:
            raise SealBroken("this is nothing that a transit engine wrapped", hint=_ALTERED) from error
        answer = self._ask(
            f"decrypt/{self._name}", altered=True, ciphertext=ciphertext, associated_data=_text(context)
        )
        return base64.b64decode(str(answer["plaintext"]))

    def renew(self) -> None:
        """The server makes the key when there is none, and a new version when there is."""
        there = self._send("GET", f"keys/{self._name}", {}).status_code != httpx.codes.NOT_FOUND
        self._ask(f"keys/{self._name}/rotate" if there else f"keys/{self._name}")

    def retire(self) -> None:
        newest = self._answer(self._send("GET", f"keys/{self._name}", {}))["latest_version"]
        self._ask(f"keys/{self._name}/config", min_decryption_version=newest, min_encryption_version=newest)
        self._ask(f"keys/{self._name}/trim", min_available_version=newest)

    def _ask(self, path: str, *, altered: bool = False, **fields: str | int) -> dict[str, Any]:
        answer = self._send("POST", path, fields)
        if altered and answer.status_code == httpx.codes.BAD_REQUEST:
            raise SealBroken(f"the server does not unwrap this: {_why(answer)}", hint=_ALTERED)
        return self._answer(answer)

    def _answer(self, answer: httpx.Response) -> dict[str, Any]:
        if answer.is_error:
            raise KeyUnavailable(
                f"{self._mount} does not serve the master key: {answer.status_code} {_why(answer)}",
                hint="Check keyring.master_key, the token's policy, and whether the server is sealed.",
            )
        data: dict[str, Any] = answer.json().get("data") or {} if answer.content else {}
        return data

    def _send(self, method: str, path: str, fields: dict[str, str | int]) -> httpx.Response:
        try:
            return httpx.request(
                method,
                f"{self._mount}/{path}",
                json=fields or None,
                headers=self._headers,
                verify=self._trust,
                timeout=_SECONDS,
                trust_env=False,  # no proxy, and no login of .netrc, comes between
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise KeyUnavailable(
                f"{self._mount} cannot be reached: {error}",
                hint="Check the network and the certificate; keys are destroyed on time without it.",
            ) from error


def read_uri(uri: str) -> dict[str, str]:
    """Return ``url``, ``token`` and ``ca`` of a transit: URI. Raises ConfigInvalid."""
    url, _, query = uri.removeprefix(SCHEME).partition("?")
    given = {"ca": "", **dict(parse_qsl(query))}
    if given.keys() != {"token", "ca"} or "/keys/" not in url or not url.startswith(("https://", _HERE)):
        raise ConfigInvalid(
            f"keyring.master_key {uri!r} must name an https key of a transit engine and a token",
            hint="transit:https://HOST:8200/v1/transit/keys/NAME?token=file:secrets/transit",
        )
    return {"url": url, **given}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _why(answer: httpx.Response) -> str:
    try:
        return "; ".join(str(one).strip() for one in answer.json()["errors"])
    except (ValueError, KeyError, TypeError):
        return answer.reason_phrase


_HERE = "http://127.0.0.1:"
_ALTERED = "The wrapped key or its header was altered, or its version of the master key was destroyed."
