"""Secrets by reference: ``env:NAME`` or ``file:PATH``, each holding ``user:password``.

A secret is read at the moment it is used and kept nowhere: not in a process list, a log, the
catalogue or the configuration.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from videostore.domain.errors import CredentialsInvalid


def resolve_credentials(reference: str, *, root: Path) -> tuple[str, str] | None:
    """Return ``(user, password)``, or None for an empty reference. Paths are relative to ``root``."""
    if not reference:
        return None
    user, colon, password = resolve_secret(reference, root=root).partition(":")
    if not colon or not user:
        raise CredentialsInvalid(
            f"{reference} does not hold user:password", hint="Write one line: user:password"
        )
    return user, password


def resolve_secret(reference: str, *, root: Path) -> str:
    """Return the one line that ``env:NAME`` or ``file:PATH`` holds."""
    kind, _, where = reference.partition(":")
    if kind == "env":
        text = os.environ.get(where)
        if text is None:
            raise CredentialsInvalid(
                f"the environment variable {where} is not set",
                hint=f"Set {where} for this process.",
            )
    elif kind == "file":
        text = _read_secret(root / where)
    else:
        raise CredentialsInvalid(
            f"{reference!r} is neither env:NAME nor file:PATH", hint="Correct the reference."
        )
    return text.strip("\r\n")


def _read_secret(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialsInvalid(
            f"cannot read the credentials file {path}: {error}",
            hint="Write one line into it, mode 0600.",
        ) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise CredentialsInvalid(f"{path} can be read by others", hint=f"chmod 600 {path}")
    return text
