"""Logging in by a provider of OpenID Connect: discovery, authorization code with PKCE, device flow.

The gate is the client, so no token of the provider ever reaches a person's machine or a log: a browser
brings back a code that is worth nothing without the verifier kept here, a terminal polls the gate. What the
provider says is judged by ``domain.identity``; here are its protocol (OpenID Connect Discovery 1.0, RFC 6749,
7636, 8628) and its keys. Authlib speaks the first, joserfc checks signatures.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import httpx2
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import OAuth2Client
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from videostore.domain.errors import NotLoggedIn, ProviderUnavailable
from videostore.domain.identity import Fault, Identity, judge_claims

SIGNATURES = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519")
"""Of ID tokens: public keys only. A secret that we share would let us forge what we believe."""

_DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
_ATTEMPT = timedelta(minutes=10)  # what a person has time for at the provider
_MOST_ATTEMPTS = 1000
_FACTS_LIVE = timedelta(minutes=10)  # discovery and keys: a key that is withdrawn is believed no longer
_KEYS_APART = timedelta(seconds=10)  # between two looks for a key that we do not know
_TIMEOUT = httpx2.Timeout(10.0)
_HINT = "videostore login"


@dataclass(frozen=True, slots=True)
class Settings:
    """Who the provider is, and who we are to it. ``ca_file`` is a private authority."""

    issuer: str
    client_id: str
    client_secret: str
    scope: str
    max_clock_skew: timedelta
    redirect_uri: str
    ca_file: str = ""


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A login under way: in a browser that holds ``binding``, or at a terminal that holds a device code."""

    begun_at: datetime
    binding: str = ""
    nonce: str = ""
    verifier: str = ""
    device_code: str = ""
    interval: timedelta = timedelta(0)
    ask_at: datetime | None = None


class Provider:
    """The provider of a site; safe to share between threads. All may raise ProviderUnavailable."""

    def __init__(self, settings: Settings, *, now: Callable[[], datetime]) -> None:
        self._settings = settings
        self._now = now
        self._attempts: dict[str, _Attempt] = {}
        self._lock = Lock()
        self._facts: Mapping[str, Any] = {}
        self._facts_at: datetime | None = None
        self._keys = KeySet([])
        self._keys_at: datetime | None = None

    # --- in a browser ---

    def begin(self) -> tuple[str, str]:
        """Return where the browser goes, and what it has to bring back in a cookie."""
        state, nonce, verifier, binding = (secrets.token_urlsafe(48) for _ in range(4))
        with self._client() as client:
            address, _ = client.create_authorization_url(
                self._endpoint("authorization_endpoint"), state=state, nonce=nonce, code_verifier=verifier
            )
        self._remember(state, _Attempt(self._now(), binding=_hash(binding), nonce=nonce, verifier=verifier))
        return str(address), binding

    def finish(self, *, state: str, code: str, binding: str) -> Identity | Fault:
        """Change the code that a browser brought back for who it is. Raises NotLoggedIn for another's."""
        attempt = self._take(state)
        if not attempt.nonce or not secrets.compare_digest(attempt.binding, _hash(binding)):
            raise NotLoggedIn("this login was begun in another browser", hint="Begin again.")
        try:
            with self._client() as client:
                answer = client.fetch_token(
                    self._endpoint("token_endpoint"), code=code, code_verifier=attempt.verifier
                )
        except OAuthError:
            return Fault.PROVIDER_REFUSED
        return self._identify(answer, nonce=attempt.nonce)

    # --- at a terminal ---

    def begin_device(self) -> dict[str, Any]:
        """Return what a person is shown, and the ``handle`` by which the terminal asks again."""
        form = {"client_id": self._settings.client_id, "scope": self._settings.scope}
        with self._client() as client:
            endpoint = self._endpoint("device_authorization_endpoint")
            auth = client.client_auth(client.token_endpoint_auth_method)
            answer = _object(client.request("POST", endpoint, data=form, auth=auth, withhold_token=True))
        try:
            shown = {name: str(answer[name]) for name in ("user_code", "verification_uri")}
            device_code = str(answer["device_code"])
            interval, expires_in = int(answer.get("interval", 5)), int(answer["expires_in"])
        except (KeyError, ValueError, TypeError) as error:
            raise ProviderUnavailable(
                f"the provider begins no device flow: {answer.get('error', error)}",
                hint="Allow the device grant to the client at the provider.",
            ) from error
        handle = secrets.token_urlsafe(32)
        now, pace = self._now(), timedelta(seconds=max(1, interval))
        self._remember(handle, _Attempt(now, device_code=device_code, interval=pace, ask_at=now))
        complete = str(answer.get("verification_uri_complete") or "")
        return {**shown, "verification_uri_complete": complete, "interval_seconds": interval,
                "expires_in_seconds": expires_in, "handle": handle}  # fmt: skip

    def poll_device(self, handle: str) -> Identity | Fault | None:
        """Return who it is once the person has agreed at the provider, None until then."""
        attempt = self._take(handle)
        if not attempt.device_code:
            raise NotLoggedIn("this is no login of a terminal", hint=_HINT)
        now = self._now()
        if attempt.ask_at is not None and now < attempt.ask_at:  # the provider is not asked more often
            self._remember(handle, attempt)
            return None
        attempt = replace(attempt, ask_at=now + attempt.interval)
        try:
            with self._client() as client:
                answer = client.fetch_token(
                    self._endpoint("token_endpoint"),
                    grant_type=_DEVICE,
                    device_code=attempt.device_code,
                )
        except ProviderUnavailable:
            self._remember(handle, attempt)
            raise
        except OAuthError as error:
            if error.error not in {"authorization_pending", "slow_down"}:
                return Fault.PROVIDER_REFUSED
            self._remember(handle, attempt)
            return None
        return self._identify(answer, nonce=None)

    # --- what the provider says ---

    def _identify(self, answer: Mapping[str, Any], *, nonce: str | None) -> Identity | Fault:
        token = answer.get("id_token")
        if not isinstance(token, str):
            return Fault.TOKEN_MALFORMED
        claims = self._claims(token)
        if isinstance(claims, Fault):
            return claims
        settings = self._settings
        fault = judge_claims(
            claims,
            issuer=settings.issuer,
            client_id=settings.client_id,
            nonce=nonce,
            skew=settings.max_clock_skew,
            now=self._now(),
        )
        return fault or Identity(settings.issuer, str(claims["sub"]))

    def _claims(self, token: str) -> Mapping[str, Any] | Fault:
        """Return what a token says if one of the provider's keys of now signed it."""
        for keys in (self._known_keys, self._fresh_keys):
            try:
                claims = jwt.decode(token, keys(), algorithms=list(SIGNATURES)).claims
            except InvalidKeyIdError:
                continue
            except (JoseError, ValueError):
                return Fault.TOKEN_UNSIGNED
            return claims
        return Fault.TOKEN_UNSIGNED

    def _known_keys(self) -> KeySet:
        return self._keys if self._is_fresh(self._keys_at, _FACTS_LIVE) else self._fetch_keys()

    def _fresh_keys(self) -> KeySet:
        """A key that we do not know: look again, but not as often as somebody makes up key ids."""
        return self._keys if self._is_fresh(self._keys_at, _KEYS_APART) else self._fetch_keys()

    def _fetch_keys(self) -> KeySet:
        with self._client() as client:
            endpoint = self._endpoint("jwks_uri")
            answer = _object(client.request("GET", endpoint, withhold_token=True))
        try:
            self._keys = KeySet.import_key_set({"keys": answer["keys"]})
        except (JoseError, KeyError, ValueError, TypeError) as error:
            raise ProviderUnavailable("the keys of the provider cannot be read", hint=_ASK) from error
        self._keys_at = self._now()
        return self._keys

    def _endpoint(self, name: str) -> str:
        """Return an address that the provider publishes."""
        if not self._is_fresh(self._facts_at, _FACTS_LIVE):
            issuer = self._settings.issuer
            with self._client() as client:
                address = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
                facts = _object(client.request("GET", address, withhold_token=True))
            if facts.get("issuer") != issuer:
                raise ProviderUnavailable(
                    f"{issuer} calls itself {facts.get('issuer')!r}",
                    hint="gate.oidc.issuer must be the provider's own name, to the letter.",
                )
            self._facts, self._facts_at = facts, self._now()
        endpoint = str(self._facts.get(name, ""))
        ours = urlsplit(self._settings.issuer)
        if urlsplit(endpoint).scheme != "https" and urlsplit(endpoint)[:2] != ours[:2]:
            raise ProviderUnavailable(f"the provider has no {name} by https", hint=_ASK)
        return endpoint

    def _is_fresh(self, at: datetime | None, live: timedelta) -> bool:
        return at is not None and timedelta(0) <= self._now() - at < live

    @contextmanager
    def _client(self) -> Iterator[OAuth2Client]:
        settings = self._settings
        client = OAuth2Client(
            settings.client_id,
            settings.client_secret or None,
            token_endpoint_auth_method="client_secret_basic" if settings.client_secret else "none",
            scope=settings.scope,
            redirect_uri=settings.redirect_uri,
            code_challenge_method="S256",
            timeout=_TIMEOUT,
            verify=settings.ca_file or True,
            trust_env=False,
        )
        try:
            yield client
        except httpx2.HTTPError as error:
            raise ProviderUnavailable(
                f"the provider {settings.issuer} does not answer: {type(error).__name__}", hint=_ASK
            ) from error
        finally:
            client.close()

    # --- attempts ---

    def _remember(self, name: str, attempt: _Attempt) -> None:
        with self._lock:
            now = self._now()
            self._attempts = {
                key: one for key, one in self._attempts.items() if one.begun_at > now - _ATTEMPT
            }
            if len(self._attempts) >= _MOST_ATTEMPTS:
                del self._attempts[next(iter(self._attempts))]
            self._attempts[_hash(name)] = attempt

    def _take(self, name: str) -> _Attempt:
        """Return an attempt, which serves once."""
        with self._lock:
            attempt = self._attempts.pop(_hash(name), None)
        if attempt is None or self._now() - attempt.begun_at >= _ATTEMPT:
            raise NotLoggedIn("this login took too long, or was finished already", hint="Begin again.")
        return attempt


_ASK = "Ask who runs it; staff with a local account can still log in."


def _object(response: httpx2.Response) -> Mapping[str, Any]:
    try:
        value = response.json()
    except ValueError as error:
        raise ProviderUnavailable(f"the provider answers {response.status_code}", hint=_ASK) from error
    if not isinstance(value, dict):
        raise ProviderUnavailable("the provider answers what is no object", hint=_ASK)
    return value


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
