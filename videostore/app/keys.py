"""The keys of a site that are no hour keys, and where they lie."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

from videostore.app.host import host_time
from videostore.config.credentials import resolve_secret
from videostore.config.durations import split_address
from videostore.config.site import Site
from videostore.domain.errors import ConfigInvalid, SignatureInvalid
from videostore.durable import locked
from videostore.gate.certificates import OwnCertificate
from videostore.keyring.master import MasterKeyFile
from videostore.ports import MasterKey
from videostore.signing import ExportKey


def master_key(site: Site, where: str) -> MasterKey:
    """Return the master key in the file, or behind the pkcs11: or transit: URI, that ``where`` names."""
    if where.startswith(TRANSIT):
        from videostore.keyring import transit

        facts = transit.read_uri(where)
        token = resolve_secret(facts["token"], root=site.root)
        ca_file = str(site.path(facts["ca"])) if facts["ca"] else ""
        return transit.MasterKeyTransit(facts["url"], token=token, ca_file=ca_file)
    if not where.startswith(PKCS11):
        return MasterKeyFile(site.path(where))
    try:
        from videostore.keyring.token import MasterKeyToken, read_uri
    except ImportError as error:
        raise ConfigInvalid(
            "a master key in a token needs a library that is not installed",
            hint="pip install 'videostore[pkcs11]'",
        ) from error
    facts = read_uri(where)
    pin = resolve_secret(facts["pin_source"], root=site.root)
    return MasterKeyToken(module=facts["module"], token=facts["token"], label=facts["label"], pin=pin)


PKCS11, TRANSIT = "pkcs11:", "transit:"
ELSEWHERE = (PKCS11, TRANSIT)
"""Where a master key is that is no file."""


def ledger_key(root: Path) -> Path:
    return root / "secrets" / "ledger.key"


def login_key(site: Site) -> MasterKey:
    """Return the key that seals the secrets of authenticators; a site that has none yet gets one."""
    key = MasterKeyFile(path := site.root / "secrets" / "login.key")
    with locked(site.root / "run" / "login-key.lock"):
        if not path.exists():
            key.renew()
    return key


def recorder_key(root: Path) -> Path:
    return root / "secrets" / "recorder.key"


RECORDER_PUBLIC_KEY = "recorder.public.key"


def recorder_public_key(root: Path) -> str:
    try:
        return (root / "ledger" / RECORDER_PUBLIC_KEY).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SignatureInvalid(
            f"there is no public key of the recorder: {error.strerror}",
            hint=f"Restore ledger/{RECORDER_PUBLIC_KEY} from a backup.",
        ) from error


def ledger_public(directory: Path) -> str:
    """Return the public key that lies beside a ledger."""
    try:
        return (directory / "public.key").read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SignatureInvalid(
            f"{directory} has no public.key: {error.strerror}", hint="Give --public-key ed25519:…"
        ) from error


def export_key(site: Site) -> ExportKey:
    """Return the key that signs exports; a site that has none yet gets one."""
    key, certificate = site.root / "secrets" / "export.key", site.root / "ledger" / "export.crt"
    if not key.exists():
        return ExportKey.create(key, certificate, name=site.settings.site, now=host_time())
    return ExportKey.load(key, certificate)


def own_certificate(site: Site) -> OwnCertificate:
    """Return the certificate that the gate makes itself, for every name that leads to it."""
    settings = site.settings.gate
    host, _ = split_address(settings.listen)
    told = urlsplit(settings.url).hostname
    here = {socket.gethostname(), socket.getfqdn()} if host in {"0.0.0.0", "::"} else {host}  # noqa: S104
    names = {"localhost", "127.0.0.1", "::1", *here, *([told] if told else [])}
    return OwnCertificate(site.settings.site, frozenset(names), site.root)
