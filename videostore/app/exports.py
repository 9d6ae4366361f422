"""Exports, after they left: no site is needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from videostore.check import export
from videostore.sealing import read_identity
from videostore.signing import ExportKey, read_certificate


def verify_export(
    path: Path,
    *,
    certificate: Path | None = None,
    recorder_key: str = "",
    signers: Sequence[Path] = (),
    identity: Path | None = None,
) -> list[export.Finding]:
    """Verify a film, a manifest or an archive, offline."""
    trust = export.Trust(
        read_certificate(certificate) if certificate else None,
        recorder_key,
        [read_certificate(one) for one in signers],
        read_identity(identity) if identity else "",
    )
    return list(export.verify(path, trust))


def sign_export(path: Path, *, key: Path, certificate: Path, remark: str) -> None:
    """Sign a film again, as somebody else than the site."""
    export.sign_again(path, ExportKey.load(key, certificate), remark=remark)
