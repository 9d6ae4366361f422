"""Port SegmentStore: durable, verified, idempotent, and honest about absence. Every adapter runs this."""

from __future__ import annotations

import hashlib
import os
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from tests.fakes.segment_store import MemorySegmentStore
from videostore.domain.errors import IntegrityError, ObjectMissing
from videostore.domain.segment import ObjectKey, Sha256Hex
from videostore.store.bucket import Bucket
from videostore.store.decorators import Metered, ReadBack, Retrying
from videostore.store.directory import DirectoryStore
from videostore.store.minio import MinioStore
from videostore.store.s3 import S3Store

A, B, C = (ObjectKey(f"segments/2026-11-{day}/camera/{day}.mp4.age") for day in (22, 23, 24))


ADAPTERS = {"s3": S3Store, "minio": MinioStore}
ELSEWHERE = os.environ.get("VIDEOSTORE_TEST_S3", "")
"""URL of an S3 store to try besides SeaweedFS; VIDEOSTORE_TEST_S3_CREDENTIALS holds ACCESS_KEY:SECRET_KEY.
Buckets are made, and removed again."""


@pytest.fixture(
    params=[
        *("memory", "directory", "decorated", "s3", "s3-versioned", "minio"),
        *(["s3-elsewhere", "minio-elsewhere"] if ELSEWHERE else []),
    ]
)
def store(request, tmp_path):
    adapter, _, way = request.param.partition("-")
    match adapter:
        case "memory":
            yield MemorySegmentStore()
        case "directory":
            yield DirectoryStore.create(tmp_path / "store")
        case "decorated":
            yield Metered(Retrying(ReadBack(DirectoryStore.create(tmp_path / "store"), "content")))
        case _:
            name = f"contract-{uuid.uuid4().hex[:12]}"
            if way == "elsewhere":
                access, _, secret = os.environ["VIDEOSTORE_TEST_S3_CREDENTIALS"].partition(":")
                bucket = Bucket(name, endpoint=ELSEWHERE, credentials=(access, secret))
            else:
                bucket = request.getfixturevalue("s3_server").as_admin(name)
            bucket.client.create_bucket(Bucket=name)
            if way == "versioned":
                versioned = {"Status": "Enabled"}
                bucket.client.put_bucket_versioning(Bucket=name, VersioningConfiguration=versioned)
            yield ADAPTERS[adapter](bucket)
            if way == "elsewhere":
                remove(bucket)


def remove(bucket):
    everything = S3Store(bucket)
    everything.delete([found.key for found in everything.objects()])
    bucket.client.delete_bucket(Bucket=bucket.name)


def put(store, key, body=b"sealed"):
    store.put(key, body, sha256=Sha256Hex(hashlib.sha256(body).hexdigest()))


@pytest.mark.parametrize("body", [b"", b"x", bytes(range(256)) * 4096], ids=["empty", "a byte", "a megabyte"])
def test_what_was_put_comes_back_unaltered(store, body):
    put(store, A, body)
    assert store.get(A) == body
    assert store.size(A) == len(body)


def test_the_same_bytes_again_are_no_error(store):
    put(store, A)
    put(store, A)
    assert store.get(A) == b"sealed"


def test_bytes_that_are_not_those_of_the_hash_are_not_stored(store):
    with pytest.raises(IntegrityError):
        store.put(A, b"altered", sha256=Sha256Hex("0" * 64))
    assert store.size(A) is None


def test_a_file_is_kept_as_it_is_or_not_at_all(store, tmp_path):
    file, other = tmp_path / "spooled", tmp_path / "other"
    file.write_bytes(b"sealed")
    other.write_bytes(b"something else")
    if store.link(A, file):
        assert not store.link(A, other)
        file.unlink()
        assert store.get(A) == b"sealed"
        put(store, A, b"another version")
        assert store.get(A) == b"another version"
    else:
        assert store.size(A) is None
    assert not store.link(B, tmp_path / "nothing")
    assert store.size(B) is None


def test_what_was_never_there_is_absent(store):
    put(store, B)
    assert store.size(A) is None
    with pytest.raises(ObjectMissing):
        store.get(A)


def test_what_was_deleted_is_absent_and_deleting_again_is_no_error(store):
    put(store, A)
    put(store, A, b"another version")
    put(store, B)
    assert store.delete([A]) == {}
    assert store.delete([A, C]) == {}
    assert store.size(A) is None
    with pytest.raises(ObjectMissing):
        store.get(A)
    assert [found.key for found in store.objects()] == [B]
    assert [found.key for found in store.remains()] == [B]


def test_many_are_deleted_at_once_and_their_neighbours_stay(store):
    day = [ObjectKey(f"segments/2026-11-22/camera/{number:05d}.mp4.age") for number in range(40)]
    for key in (*day, B):
        put(store, key)
    assert store.delete([]) == {}
    assert store.delete([*day[5:], B]) == {}
    assert [found.key for found in store.objects()] == day[:5]


def test_a_listing_is_complete_in_order_and_by_prefix(store):
    for key in (C, A, B):
        put(store, key, key.encode())
    listed = list(store.objects())
    assert [found.key for found in listed] == [A, B, C]
    assert [found.size_bytes for found in listed] == [len(key) for key in (A, B, C)]
    assert [found.key for found in store.objects("segments/2026-11-23/")] == [B]
    assert [found.key for found in store.objects(A)] == [A]
    assert list(store.objects("segments/2025")) == []


def test_a_listing_goes_on_behind_any_key_in_byte_order_also_one_that_is_gone(store):
    """``-`` comes before ``/``, whatever a store makes of it."""
    keys = [
        *("a", "segments/2026-11-22-0604800/cam/1", "segments/2026-11-22-0604800/cam/2"),
        *("segments/2026-11-22/cam/1", "segments/2026-11-22/other/1", "segments/x", "zz"),
    ]
    for key in reversed(keys):
        put(store, ObjectKey(key))
    assert [found.key for found in store.remains()] == keys
    for number, key in enumerate(keys, start=1):
        assert [found.key for found in store.remains(after=key)] == keys[number:]
    gone = keys.index("segments/2026-11-22/cam/1")
    store.delete([ObjectKey(keys[gone])])
    assert [found.key for found in store.remains(after=keys[gone])] == keys[gone + 1 :]
    assert [found.key for found in store.remains("segments/", after=keys[gone])] == keys[gone + 1 : -1]


def test_a_listing_says_when_the_store_wrote(store):
    put(store, A)
    (found,) = store.objects()
    assert abs(found.stored_at - datetime.now(UTC)) < timedelta(minutes=1)


def test_prefixes_name_the_days_and_only_those_that_have_objects(store):
    assert store.prefixes() == []
    for key in (C, A, B):
        put(store, key)
    put(store, ObjectKey("presence/x"))
    assert store.prefixes() == ["presence/", "segments/"]
    assert store.prefixes("segments/") == [f"segments/2026-11-{day}/" for day in (22, 23, 24)]
    assert store.prefixes("segments/2026-11-22/") == ["segments/2026-11-22/camera/"]
