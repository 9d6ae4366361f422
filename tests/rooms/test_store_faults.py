"""Whatever network and server do: nothing acknowledged is lost, nothing counts as gone that is not."""

from __future__ import annotations

import os
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Event, Thread

import pytest
import time_machine

from tests import servers
from tests.contracts.test_segment_store import ADAPTERS, A, B, put
from tests.fakes.catalogue import MemoryCatalogue
from tests.premises import HOUR, LOBBY, SECOND, START, ledger_in
from tests.proxies import Fault, proxy
from tests.servers import until
from videostore.domain.errors import IntegrityError, StoreError, StoreRefused, StoreUnavailable
from videostore.domain.segment import KeyId, Span
from videostore.recorder.spool import Spool, facts_of
from videostore.recorder.upload import Uploader
from videostore.store.decorators import Retrying
from videostore.store.minio import MinioStore
from videostore.store.provision import make_identities
from videostore.store.s3 import S3Store

BODY = bytes(range(256)) * 1024
ALTERED = b"\xff" + BODY[1:4096]


def answer(status, code):
    xml = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(xml)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + xml


FAULTS = {
    "503": (Fault(reply=answer("503 Slow Down", "SlowDown")), StoreUnavailable),
    "500": (Fault(reply=answer("500 Internal Server Error", "InternalError")), StoreUnavailable),
    "403": (Fault(reply=answer("403 Forbidden", "AccessDenied")), StoreRefused),
    "not S3": (Fault(reply=b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\nno"), StoreUnavailable),
    "silence": (Fault(hang=True), StoreUnavailable),
    "reset in the request": (Fault(cut_after=100), StoreUnavailable),
    "reset before the answer": (Fault(lose_answer=True), StoreUnavailable),
    "reset in the answer": (Fault(cut_answer_after=40), StoreUnavailable),
}


@pytest.fixture(scope="module")
def network(s3_server):
    with proxy(s3_server.endpoint) as network:
        yield network


@pytest.fixture(params=ADAPTERS)
def far(request, s3_server, network):
    """The store over a bad network, the network, and the store over a good one."""
    near = s3_server.as_admin(s3_server.bucket(f"far-{uuid.uuid4().hex[:12]}"))
    network.fault = Fault()
    impatient = "silence" in request.node.name
    bucket = replace(near, endpoint=network.endpoint, read_seconds=0.3 if impatient else 30.0)
    return ADAPTERS[request.param](bucket), network, S3Store(near)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_an_error_and_never_absence_and_a_later_try_succeeds(far, fault):
    store, network, near = far
    put(near, A, BODY)
    network.fault, expected = FAULTS[fault]
    cold = (lambda: store.size(A), lambda: store.delete([A]), lambda: list(store.objects()), store.prefixes)
    for ask in (lambda: store.get(A), *(() if isinstance(store, MinioStore) else cold)):
        with pytest.raises(expected) as caught:
            ask()
        assert caught.value.hint
    network.fault = Fault()
    if near.size(A) is not None or fault != "reset before the answer":
        assert near.get(A) == BODY
    assert near.delete([A]) == {}
    assert near.size(A) is None


@pytest.mark.parametrize("fault", [*FAULTS, "reset in the body"])
def test_a_put_that_failed_is_whole_or_absent_and_may_be_sent_again(far, fault):
    store, network, near = far
    network.fault, expected = FAULTS.get(fault, (Fault(cut_after=100_000), StoreUnavailable))
    with pytest.raises(expected) as caught:
        put(store, A, BODY)
    assert caught.value.hint
    assert near.size(A) in ({len(BODY)} if fault == "reset before the answer" else {None, len(BODY)})
    network.fault = Fault()
    put(near if fault == "silence" else store, A, BODY)
    assert near.get(A) == BODY
    assert [found.key for found in near.objects()] == [A]


def test_bytes_that_the_network_alters_are_refused_by_the_store(far):
    store, network, near = far
    network.fault = Fault(alter=lambda data: data.replace(BODY[:4096], ALTERED))
    with pytest.raises(IntegrityError):
        put(store, A, BODY)
    assert near.size(A) is None


def test_an_answer_that_ends_early_is_not_the_object(far):
    store, network, near = far
    put(near, A, BODY)
    network.fault = Fault(cut_answer_after=100_000)
    with pytest.raises(StoreUnavailable):
        store.get(A)


def test_a_stumble_of_the_network_is_not_noticed_by_whoever_retries(far):
    store, network, _ = far
    patient = Retrying(store, attempts=5, longest_wait_seconds=0.5)
    network.fault = Fault(reply=answer("503 Slow Down", "SlowDown"))
    healing = Thread(target=lambda: setattr(network, "fault", Fault()))
    healing.start()
    put(patient, A, BODY)
    assert patient.get(A) == BODY
    healing.join()


def test_a_clock_that_is_wrong_is_told_from_a_wrong_password(s3_server):
    bucket = s3_server.as_admin(s3_server.bucket(f"clock-{uuid.uuid4().hex[:12]}"))
    true = datetime.now(UTC)
    for adapter in ADAPTERS.values():
        store = adapter(bucket)
        with time_machine.travel(true + timedelta(hours=1)):
            with pytest.raises(StoreRefused, match="clock"):
                put(store, A)
            told = store.time()
        assert abs(told - true) < timedelta(minutes=1)


def test_a_bucket_that_is_deleted_under_the_recorder_is_named_and_not_made_anew(s3_server):
    bucket = s3_server.as_admin(s3_server.bucket(f"gone-{uuid.uuid4().hex[:12]}"))
    key = dict(make_identities(bucket, known=[]))["recorder"]
    store = MinioStore(replace(bucket, credentials=key))
    put(store, A)
    S3Store(bucket).delete([A])
    bucket.client.delete_bucket(Bucket=bucket.name)
    with pytest.raises(StoreRefused) as caught:
        put(store, A)
    assert caught.value.hint


def test_a_store_without_room_takes_nothing_more_and_keeps_what_it_has(s3_server):
    bucket = s3_server.as_admin(s3_server.bucket(f"full-{uuid.uuid4().hex[:12]}"))
    store = S3Store(bucket)
    put(store, A, BODY * 8)
    s3_server.shell(f"s3.bucket.quota -name={bucket.name} -op=set -sizeMB=1")

    def full():  # the server counts what it holds now and then
        s3_server.shell("s3.bucket.quota.enforce -apply")
        try:
            put(MinioStore(bucket), B)
        except (StoreRefused, StoreUnavailable) as error:
            return bool(error.hint)
        return False

    until(full, seconds=60)
    assert store.get(A) == BODY * 8
    assert store.delete([A]) == {}


def test_a_server_that_is_killed_in_the_middle_of_puts_loses_nothing_that_was_acknowledged(tmp_path):
    spool, catalogue, ledger = Spool(tmp_path / "spool"), MemoryCatalogue(), ledger_in(tmp_path)
    sealed, add, killed = {}, catalogue.add, Event()

    def add_some(segment):  # some are left, however late this test wakes up to kill the server
        if len(catalogue.rows) >= 30:
            assert killed.wait(60)
        add(segment)

    catalogue.add = add_some
    for number in range(40):
        body, span = os.urandom(1_000_000), Span(START + number * SECOND, START + (number + 1) * SECOND)
        key_id = KeyId.covering(span.start, HOUR)
        segment = facts_of(body, camera_id=LOBBY, span=span, sequence=number, key_id=key_id)
        spool.commit(segment, body, groups=[])
        sealed[segment.object_key] = body

    def uploader(store):
        return Uploader(spool, store, catalogue, ledger, now=lambda: START, at_once=4)

    failed = []

    def upload(store):
        try:
            uploader(store).upload_all()
        except StoreError as error:
            failed.append(error)

    alone = "-master.peers=none"  # else a master that was killed waits 20 s for the votes of nobody
    with servers.seaweedfs(tmp_path, alone) as server:
        bucket = server.as_admin(server.bucket("killed"))
        uploading = Thread(target=upload, args=(MinioStore(bucket),))
        uploading.start()
        until(lambda: len(catalogue.rows) >= 5, seconds=60)
        server.stop()
        killed.set()
        uploading.join()
        down = S3Store(bucket)
        for ask in (lambda: down.size(A), lambda: down.get(A), lambda: list(down.objects()), down.time):
            with pytest.raises(StoreUnavailable):
                ask()
    assert [type(error) for error in failed] == [StoreUnavailable]
    acknowledged = set(catalogue.rows)
    assert 5 <= len(acknowledged) < 40
    assert {segment.object_key for segment in spool.pending()} == sealed.keys() - acknowledged
    with servers.seaweedfs(tmp_path, alone) as again:
        store = MinioStore(again.as_admin("killed"))
        for key in acknowledged:
            assert store.get(key) == sealed[key]
        uploader(store).upload_all()
        assert {found.key: found.size_bytes for found in store.objects()} == dict.fromkeys(sealed, 1_000_000)
    assert spool.pending() == []
