"""The master key in a PKCS #11 token (an HSM, a smart card, SoftHSM): it never leaves it.

Named by a URI of RFC 7512: ``pkcs11:token=NAME;object=LABEL?module-path=/usr/lib/….so&pin-source=file:PATH``.
Each generation is an AES-256 key, sensitive and not extractable, whose CKA_ID counts up. A private half is
wrapped with AES-GCM (CKM_AES_GCM): ``generation (4 bytes) | nonce (12) | sealed``, the context authenticated.
The only place that imports pkcs11.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Protocol, cast
from urllib.parse import parse_qsl, unquote

import pkcs11
from pkcs11 import Attribute, GCMParams, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11.exceptions import (
    ArgumentsBad,
    EncryptedDataInvalid,
    EncryptedDataLenRange,
    FunctionFailed,
    GeneralError,
    PKCS11Error,
)

from videostore.domain.errors import ConfigInvalid, KeyUnavailable, SealBroken

SCHEME = "pkcs11:"
_GENERATION_BYTES, _NONCE_BYTES, _TAG_BYTES = 4, 12, 16
_ALTERED = (EncryptedDataInvalid, EncryptedDataLenRange, GeneralError, FunctionFailed, ArgumentsBad)
"""What tokens answer when a tag does not match; SoftHSM says GeneralError."""


class _Key(Protocol):
    """What the library makes of an AES key, at run time."""

    id: bytes

    def encrypt(self, data: bytes, *, mechanism: Mechanism, mechanism_param: GCMParams) -> bytes: ...

    def decrypt(self, data: bytes, *, mechanism: Mechanism, mechanism_param: GCMParams) -> bytes: ...

    def destroy(self) -> None: ...


class MasterKeyToken:
    """Port MasterKey, in a token. One session for each use: what another process rotated counts at once."""

    def __init__(self, *, module: str, token: str, label: str, pin: str) -> None:
        self._module, self._token, self._label, self._pin = module, token, label, pin
        self._lock = Lock()

    def wrap(self, secret: bytes, *, context: bytes) -> bytes:
        with self._session() as session:
            number, key = max(self._generations(session).items())
            nonce = os.urandom(_NONCE_BYTES)
            sealed = key.encrypt(
                secret, mechanism=Mechanism.AES_GCM, mechanism_param=GCMParams(nonce, context)
            )
            return number.to_bytes(_GENERATION_BYTES, "big") + nonce + sealed

    def unwrap(self, wrapped: bytes, *, context: bytes) -> bytes:
        number = int.from_bytes(wrapped[:_GENERATION_BYTES], "big")
        nonce = wrapped[_GENERATION_BYTES : _GENERATION_BYTES + _NONCE_BYTES]
        sealed = wrapped[_GENERATION_BYTES + _NONCE_BYTES :]
        with self._session() as session:
            key = self._generations(session).get(number)
            if key is None or len(sealed) < _TAG_BYTES:
                raise _altered(f"the token has no generation {number}" if key is None else "it is cut short")
            try:
                opened = key.decrypt(
                    sealed, mechanism=Mechanism.AES_GCM, mechanism_param=GCMParams(nonce, context)
                )
            except _ALTERED as error:
                raise _altered(type(error).__name__) from error
            return opened

    def renew(self) -> None:
        with self._session() as session:
            number = max(self._generations(session, may_be_none=True), default=0) + 1
            session.generate_key(
                KeyType.AES,
                256,
                id=number.to_bytes(_GENERATION_BYTES, "big"),
                label=self._label,
                store=True,
                capabilities=MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT,
                template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.PRIVATE: True},
            )

    def retire(self) -> None:
        with self._session() as session:
            generations = self._generations(session)
            for number in sorted(generations)[:-1]:
                generations[number].destroy()

    @contextmanager
    def _session(self) -> Iterator[pkcs11.Session]:
        try:
            with self._lock:
                token = pkcs11.lib(self._module).get_token(token_label=self._token)
                with token.open(rw=True, user_pin=self._pin) as session:
                    yield session
        except (PKCS11Error, RuntimeError) as error:
            raise KeyUnavailable(
                f"the token {self._token!r} of {self._module} does not serve: {type(error).__name__} {error}",
                hint="Check module-path, token and PIN of keyring.master_key; `pkcs11-tool -L` lists tokens.",
            ) from error

    def _generations(self, session: pkcs11.Session, *, may_be_none: bool = False) -> dict[int, _Key]:
        found = session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: self._label})
        generations = {int.from_bytes(key.id, "big"): key for key in cast("Iterator[_Key]", found)}
        if not generations and not may_be_none:
            raise KeyUnavailable(
                f"the token {self._token!r} has no key {self._label!r}",
                hint="Make it with `videostore keyring rotate`.",
            )
        return generations


def read_uri(uri: str) -> dict[str, str]:
    """Return ``module``, ``token``, ``label`` and ``pin_source`` of an RFC 7512 URI. Raises ConfigInvalid."""
    path, _, query = uri.removeprefix(SCHEME).partition("?")
    pairs = [part.partition("=") for part in path.split(";") if part]
    given = {name: unquote(value) for name, _, value in pairs} | dict(parse_qsl(query))
    names = {"token": "token", "object": "label", "module-path": "module", "pin-source": "pin_source"}
    if given.keys() != names.keys():
        raise ConfigInvalid(
            f"keyring.master_key {uri!r} must name {', '.join(names)} and nothing else",
            hint="pkcs11:token=NAME;object=LABEL?module-path=/usr/lib/….so&pin-source=file:secrets/pin",
        )
    return {names[name]: value for name, value in given.items()}


def _altered(why: str) -> SealBroken:
    return SealBroken(
        f"the token does not unwrap this: {why}",
        hint="The wrapped key or its header was altered, or the token's key was destroyed.",
    )
