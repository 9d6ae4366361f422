"""TLS of the gate: an authority of the site's own, certificates that renew themselves, and nobody else's."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from threading import Event, Thread

import httpx
import pytest
from cryptography import x509

from tests.servers import until
from videostore.domain.errors import ConfigInvalid
from videostore.gate import guard
from videostore.gate.api import create_api
from videostore.gate.certificates import CERTIFICATE_LIVES, RENEWED_BEFORE, OwnCertificate, ends_at
from videostore.gate.server import serve

NOW = datetime.now(UTC).replace(microsecond=0)
PATIENCE = 3
NAMES = frozenset({"127.0.0.1", "gate.example"})


def made(root, *, names=NAMES, now=NOW):
    own = OwnCertificate("premises", names, root)
    own.renew(now=now)
    return own


def serial(own):
    return x509.load_pem_x509_certificate(own.certificate.read_bytes()).serial_number


def test_a_certificate_is_kept_until_a_month_before_its_end(tmp_path):
    own = made(tmp_path)
    first, end = serial(own), ends_at(own.certificate)
    assert end == NOW + CERTIFICATE_LIVES
    own.renew(now=end - RENEWED_BEFORE - timedelta(seconds=1))
    assert serial(own) == first
    authority = own.authority.read_bytes()
    own.renew(now=end - RENEWED_BEFORE)
    assert serial(own) != first
    assert own.authority.read_bytes() == authority, "nobody has to trust anything new"


@pytest.mark.parametrize("change", ["names", "key", "certificate", "no key"])
def test_a_certificate_that_does_not_fit_is_made_anew(tmp_path, change):
    own = made(tmp_path)
    first = serial(own)
    if change == "names":
        own = made(tmp_path, names=NAMES | {"other.example"})
    else:
        path = own.certificate if change == "certificate" else own.key
        path.unlink() if change == "no key" else path.write_text("nonsense")
        own.renew(now=NOW)
    assert serial(own) != first


def test_private_keys_are_for_their_owner_only(tmp_path):
    made(tmp_path)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "secrets").iterdir()} == {0o600}


def test_an_authority_is_never_replaced_by_itself(tmp_path):
    """Everybody's machine would refuse the gate, and nobody would know why."""
    own = made(tmp_path)
    (tmp_path / "secrets" / "ca.key").unlink()
    with pytest.raises(ConfigInvalid, match=r"ca\.key"):
        own.renew(now=NOW)


@pytest.fixture
def gate(tmp_path, monkeypatch):
    """A gate that listens and has little patience: its address and certificate."""
    monkeypatch.setattr(guard, "REQUESTS", PATIENCE)
    own, stop, told = made(tmp_path), Event(), []
    api = create_api(None, find_camera=lambda name: None, all_cameras=list)  # only healthz is asked
    how = {"host": "127.0.0.1", "port": 0, "certificate": own.certificate, "key": own.key}
    thread = Thread(target=serve, args=[api], kwargs={**how, "started": told.append, "stop": stop})
    thread.start()
    until(lambda: bool(told), seconds=60)
    yield told[0], own
    stop.set()
    thread.join()


def ask(address, authority, headers=None):
    context = ssl.create_default_context(cafile=authority)
    with httpx.Client(verify=context, trust_env=False, timeout=60) as client:
        return client.get(f"{address}/healthz", headers=headers).status_code


def test_who_trusts_the_sites_authority_reaches_the_gate_and_nobody_else_is_fooled(gate, tmp_path):
    address, own = gate
    assert ask(address, own.authority) == 200
    other = made(tmp_path / "elsewhere")
    for wrong in (other.authority, None):
        with pytest.raises(httpx.ConnectError):
            ask(address, wrong)
    with pytest.raises(httpx.ConnectError):
        ask(address.replace("127.0.0.1", "localhost"), own.authority)


def test_a_certificate_that_was_renewed_is_used_at_once(gate):
    address, own = gate
    OwnCertificate(own.site, NAMES | {"localhost"}, own.root).renew(now=NOW)

    def reached():
        try:
            return ask(address.replace("127.0.0.1", "localhost"), own.authority) in {200, 429}
        except httpx.ConnectError:
            return False

    until(reached, seconds=60)


def test_an_address_that_a_client_claims_is_not_believed(gate):
    """Else everybody had as many tries at a password as there are addresses."""
    address, own = gate
    claims = [{"X-Forwarded-For": f"192.0.2.{number}"} for number in range(PATIENCE + 1)]
    answers = [ask(address, own.authority, claim) for claim in claims]
    assert answers == [*[200] * PATIENCE, 429]
