"""The gate's client: what the commands of an investigator talk through. Never holds store credentials."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from videostore.domain.errors import (
    AccessRefused,
    GateUnavailable,
    NotLoggedIn,
    RequestInvalid,
    VideostoreError,
    every_error,
)
from videostore.durable import remove_file, write_file

ENVIRONMENT = "VIDEOSTORE_SESSION"
_TIMEOUT = httpx.Timeout(10.0, read=60.0)


@dataclass(frozen=True, slots=True)
class Session:
    """A login, kept in a file of mode 0600. ``ca_file`` is the authority of a private certificate."""

    gate: str
    staff_id: str
    token: str
    ca_file: str = ""

    @staticmethod
    def path() -> Path:
        named = os.environ.get(ENVIRONMENT)
        base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        return Path(named) if named else base / "videostore" / "session.json"

    @classmethod
    def load(cls) -> Session:
        """Return the stored login. Raises NotLoggedIn."""
        try:
            return cls(**json.loads(cls.path().read_bytes()))
        except (OSError, ValueError, TypeError):
            raise NotLoggedIn("you are not logged in", hint="videostore login STAFF_ID") from None

    def save(self) -> None:
        write_file(self.path(), json.dumps(asdict(self)).encode(), mode=0o600)

    @classmethod
    def forget(cls) -> None:
        remove_file(cls.path())


class GateClient:
    """One person's connection to the gate; a context manager. Errors come back as they left the gate."""

    def __init__(self, gate: str, *, token: str = "", ca_file: str = "") -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.gate = gate.rstrip("/")
        try:
            trust = ssl.create_default_context(cafile=ca_file) if ca_file else True
            self._http = httpx.Client(
                base_url=self.gate, headers=headers, timeout=_TIMEOUT, verify=trust, trust_env=False
            )
        except OSError as error:
            raise GateUnavailable(
                f"the authority {ca_file} of the gate cannot be read: {error.strerror}",
                hint="Log in again with --ca-file: the site's is tls/ca.pem.",
            ) from error

    @classmethod
    def of(cls, session: Session) -> GateClient:
        return cls(session.gate, token=session.token, ca_file=session.ca_file)

    def __enter__(self) -> GateClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **query: str) -> Any:
        with _reached(self.gate):
            return _answer(self._http.get(path, params=query))

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        with _reached(self.gate):
            return _answer(self._http.post(path, json=dict(body or {})))

    def fetch(self, path: str) -> bytes:
        """GET what is not JSON."""
        with _reached(self.gate):
            response = self._http.get(path)
        if response.is_error:
            _answer(response)
        return response.content

    @contextmanager
    def stream(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        patience_seconds: float | None = None,
    ) -> Iterator[httpx.Response]:
        """POST and yield the answer while its body still arrives: the next bytes of it within so long."""
        timeout = httpx.Timeout(_TIMEOUT.connect, read=patience_seconds or _TIMEOUT.read)
        asked = self._http.stream("POST", path, json=dict(body or {}), timeout=timeout)
        with _reached(self.gate), asked as response:
            if response.is_error:
                response.read()
                _answer(response)
            yield response


@contextmanager
def _reached(gate: str) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        raise GateUnavailable(
            f"the gate {gate} does not answer: {error}",
            hint="Is `videostore run gate` running there? Ask the operator.",
        ) from error


def _answer(response: httpx.Response) -> Any:
    if response.is_success:
        return response.json()
    try:
        fault = response.json()
        name, message = str(fault["error"]), str(fault.get("message") or fault["error"])
        reason, hint = str(fault.get("reason") or ""), str(fault.get("hint") or "")
    except (ValueError, KeyError, TypeError):
        raise GateUnavailable(
            f"the gate answered {response.status_code}", hint="Is this really the gate of a site?"
        ) from None
    if name == AccessRefused.__name__:
        raise AccessRefused(reason or "not-granted", hint=hint)
    known: dict[str, type[VideostoreError]] = {kind.__name__: kind for kind in every_error()}
    kind = known.get(name, RequestInvalid)
    error = kind.__new__(kind)  # a kind that words its own message has been worded at the gate
    VideostoreError.__init__(error, message, hint=hint)
    raise error
