"""The ways of a network to an S3 store: a private authority, a proxy, buckets as host names, STS."""

from __future__ import annotations

import base64
import uuid
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
import trustme

from tests.contracts.test_segment_store import ADAPTERS, A, put
from tests.proxies import forward_proxy, proxy
from tests.servers import ACCESS, DOMAIN, SECRET
from videostore.domain.errors import StoreRefused, StoreUnavailable

BODY = bytes(range(256)) * 1024


@pytest.fixture
def carrier(s3_server):
    with forward_proxy(s3_server.endpoint, s3_server.tls_endpoint) as carrier:
        yield carrier


@pytest.fixture
def bucket(s3_server, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return s3_server.as_admin(s3_server.bucket(f"network-{uuid.uuid4().hex[:12]}"))


adapters = pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)


def works(store):
    put(store, A, BODY)
    assert store.get(A) == BODY
    assert [found.key for found in store.objects()] == [A]
    assert store.delete([A]) == {}
    assert store.size(A) is None


@adapters
@pytest.mark.parametrize("named", ["setting", "environment"])
def test_a_private_authority_that_is_named_is_trusted(adapter, named, bucket, s3_server, monkeypatch):
    ca_file = s3_server.ca_file
    if named == "environment":
        monkeypatch.setenv("AWS_CA_BUNDLE", ca_file)
    ca_file = ca_file if named == "setting" else ""
    works(adapter(replace(bucket, endpoint=s3_server.tls_endpoint, ca_file=ca_file)))


@adapters
@pytest.mark.parametrize("fault", ["none is named", "another is named", "another host"])
def test_a_certificate_that_proves_nothing_is_refused_at_once(adapter, fault, bucket, s3_server, tmp_path):
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    named = {"none is named": "", "another is named": str(tmp_path / "ca.pem")}
    trusted = named.get(fault, s3_server.ca_file)
    with proxy(s3_server.tls_endpoint) as hop:
        host = "127.0.0.1" if fault == "another host" else "localhost"
        endpoint = f"https://{host}:{urlsplit(hop.endpoint).port}"
        store = adapter(replace(bucket, endpoint=endpoint, ca_file=trusted))
        asked = (lambda: put(store, A, BODY), lambda: store.get(A), lambda: store.size(A))
        for number, ask in enumerate(asked, 1):
            with pytest.raises(StoreUnavailable, match="no TLS") as caught:
                ask()
            assert "store.ca_file" in caught.value.hint
            assert hop.connections == number


@adapters
@pytest.mark.parametrize(
    ("scheme", "addressing", "named"),
    [
        ("http", "path", "environment"),
        ("http", "virtual", "setting"),
        ("https", "path", "setting"),
        ("https", "virtual", "environment"),
    ],
)
def test_every_request_goes_through_the_proxy(
    adapter, scheme, addressing, named, bucket, carrier, s3_server, monkeypatch
):
    """Nobody but the proxy knows the host; its login is in its URL."""
    url = f"http://porter:pass%20word@{carrier.host}"
    if named == "environment":
        monkeypatch.setenv(f"{scheme}_proxy", url)
    proxy_url = url if named == "setting" else ""
    there = replace(bucket, endpoint=f"{scheme}://{DOMAIN}", ca_file=s3_server.ca_file, proxy=proxy_url)
    works(adapter(replace(there, addressing=addressing)))
    login = f"Basic {base64.b64encode(b'porter:pass word').decode()}"
    assert {headers.get("proxy-authorization") for _, _, headers in carrier.seen} == {login}
    host = f"{bucket.name}.{DOMAIN}" if addressing == "virtual" else DOMAIN
    if scheme == "https":
        assert {(method, target) for method, target, _ in carrier.seen} == {("CONNECT", f"{host}:443")}
    else:
        root = f"http://{host}/" if addressing == "virtual" else f"http://{host}/{bucket.name}"
        assert {"PUT", "GET", "POST"} == {method for method, _, _ in carrier.seen}
        assert all(target.startswith(root) for _, target, _ in carrier.seen)


@adapters
def test_a_host_that_the_environment_exempts_is_asked_without_the_proxy(
    adapter, bucket, carrier, monkeypatch
):
    monkeypatch.setenv("http_proxy", f"http://{carrier.host}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    works(adapter(bucket))
    assert carrier.seen == []


@adapters
def test_the_token_of_a_session_goes_with_every_request(adapter, bucket, carrier, monkeypatch):
    """SeaweedFS knows no such session and refuses it: what counts is that it was told."""
    for name, value in (("ACCESS_KEY_ID", ACCESS), ("SECRET_ACCESS_KEY", SECRET), ("SESSION_TOKEN", "lent")):
        monkeypatch.setenv(f"AWS_{name}", value)
    store = adapter(replace(bucket, credentials=None, proxy=f"http://{carrier.host}"))
    for ask in (lambda: put(store, A), lambda: store.get(A), lambda: store.size(A)):
        with pytest.raises(StoreRefused):
            ask()
    assert len(carrier.seen) == 3
    for _, _, headers in carrier.seen:
        assert headers["x-amz-security-token"] == "lent"
        assert "x-amz-security-token" in headers["authorization"]
