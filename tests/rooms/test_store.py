"""What only one kind of store can get wrong."""

from __future__ import annotations

import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial

import pytest

from tests.contracts.test_segment_store import A, B, put
from tests.fakes.segment_store import MemorySegmentStore
from tests.servers import ACCESS, SECRET
from videostore.domain.errors import DiskError, IntegrityError, StoreRefused, StoreUnavailable
from videostore.domain.segment import ObjectKey
from videostore.store.bucket import Bucket
from videostore.store.decorators import Metered, ReadBack, Retrying
from videostore.store.directory import MARKER, DirectoryStore
from videostore.store.minio import MinioStore
from videostore.store.s3 import S3Store


@pytest.fixture
def directory(tmp_path):
    return DirectoryStore.create(tmp_path / "store")


def test_a_disk_that_is_not_mounted_is_never_taken_for_absence(directory, tmp_path):
    put(directory, A)
    (tmp_path / "store" / MARKER).unlink()
    for ask in (
        lambda: directory.size(A),
        lambda: directory.get(A),
        lambda: directory.delete([A]),
        lambda: list(directory.objects()),
        directory.prefixes,
    ):
        with pytest.raises(StoreUnavailable, match="not a store"):
            ask()


def test_a_file_of_the_same_disk_is_not_copied(directory, tmp_path):
    file = tmp_path / "spooled"
    file.write_bytes(b"sealed")
    assert Metered(Retrying(directory)).link(A, file)
    assert file.samefile(tmp_path / "store" / A)


@pytest.mark.parametrize(
    "key", ["../escape", "a/../../escape", "/etc/passwd", "a//b", ".hidden", "a/.hidden", ""]
)
def test_no_key_leads_out_of_the_store(directory, key):
    with pytest.raises(StoreRefused):
        put(directory, ObjectKey(key))


def test_half_written_files_are_not_listed_and_old_ones_are_removed(directory, tmp_path):
    put(directory, A)
    half = (tmp_path / "store" / A).parent / ".half.1.tmp"
    half.write_bytes(b"half")
    assert [found.key for found in directory.objects()] == [A]
    assert half.exists()
    os.utime(half, (1, 1))
    assert [found.key for found in directory.objects()] == [A]
    assert not half.exists()


def test_deleting_leaves_no_empty_directories(directory, tmp_path):
    put(directory, A)
    put(directory, B)
    directory.delete([A, B])
    assert [path.name for path in (tmp_path / "store").iterdir()] == [MARKER]


def test_something_in_the_way_is_an_error_with_a_hint(directory, tmp_path):
    (tmp_path / "store" / "segments").write_text("in the way")
    with pytest.raises(DiskError) as caught:
        put(directory, A)
    assert caught.value.hint


@pytest.mark.parametrize("adapter", [S3Store, MinioStore])
def test_wrong_credentials_are_refused_and_no_retry_helps(s3_server, adapter):
    bucket = s3_server.bucket(f"refused-{uuid.uuid4().hex[:12]}")
    store = adapter(Bucket(bucket, endpoint=s3_server.endpoint, credentials=(ACCESS, "wrong-secret")))
    for ask in (lambda: put(store, A), lambda: store.size(A), lambda: store.delete([A]), store.prefixes):
        with pytest.raises(StoreRefused) as caught:
            ask()
        assert "wrong-secret" not in f"{caught.value}{caught.value.hint}"


def bucket_of(server, **settings):
    """Return a new bucket, the S3Store over it and an administrator's client."""
    name, client = f"room-{uuid.uuid4().hex[:12]}", server.client()
    client.create_bucket(Bucket=name, **settings)
    return name, S3Store(server.as_admin(name)), client


def test_no_version_marker_or_unfinished_upload_outlives_a_deletion(s3_server):
    bucket, store, client = bucket_of(s3_server)
    put(store, A)  # from before the bucket had versions
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    put(store, A, b"a second version")
    put(store, B)
    client.delete_object(Bucket=bucket, Key=B)
    assert store.size(B) == len(b"sealed")  # behind the marker
    client.create_multipart_upload(Bucket=bucket, Key=A)
    assert [found.key for found in store.remains()] == [A, A, A, B, B]  # versions, upload, marker
    assert store.delete([A, B]) == {}
    assert list(store.remains()) == []
    assert (store.size(A), store.size(B)) == (None, None)
    left = client.list_object_versions(Bucket=bucket)
    assert (left.get("Versions"), left.get("DeleteMarkers")) == (None, None)
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)


def test_no_day_is_left_out_behind_the_first_thousand(s3_server):
    """SeaweedFS lists a day before those whose names go on with ``-``, and forgets them behind a page."""
    name, store, _ = bucket_of(s3_server)
    keys = ["segments/2026-11-22-0604800/cam/1", *(f"segments/2026-11-22/cam/{n:04}" for n in range(1001))]
    with ThreadPoolExecutor(4) as several:
        list(several.map(partial(put, MinioStore(s3_server.as_admin(name))), keys))
    assert [found.key for found in store.remains()] == keys
    assert [found.key for found in store.remains(after=keys[1000])] == keys[1001:]


def test_a_locked_object_is_named_holds_up_no_other_and_does_not_hide(s3_server):
    bucket, store, client = bucket_of(s3_server, ObjectLockEnabledForBucket=True)
    put(store, A)
    put(store, B)
    client.put_object_legal_hold(Bucket=bucket, Key=A, LegalHold={"Status": "ON"})
    failures = Retrying(store, longest_wait_seconds=0.01).delete([A, B])
    assert list(failures) == [A]
    assert "AccessDenied" in failures[A]
    assert (store.size(A), store.size(B)) == (len(b"sealed"), None)


@pytest.mark.parametrize("adapter", [S3Store, MinioStore])
def test_a_bucket_that_is_missing_is_not_an_empty_one(s3_server, adapter):
    store = adapter(s3_server.as_admin("never-made"))
    for ask in (lambda: list(store.objects()), lambda: store.size(A), store.prefixes):
        with pytest.raises((StoreRefused, StoreUnavailable)):
            ask()


class Flaky(MemorySegmentStore):
    """Fails so many times before it answers."""

    failures = 0

    def _up(self):
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("not now")


@pytest.mark.parametrize(("failures", "succeeds"), [(2, True), (3, False)])
def test_a_store_that_stumbles_is_asked_again_and_one_that_is_down_is_not_asked_for_ever(failures, succeeds):
    flaky = Flaky()
    store = Retrying(flaky, attempts=3, longest_wait_seconds=0.01)
    flaky.failures = failures
    if succeeds:
        put(store, A)
        assert flaky.get(A) == b"sealed"
    else:
        with pytest.raises(StoreUnavailable):
            put(store, A)


class Lossy(MemorySegmentStore):
    """Confirms everything and keeps half of it."""

    def put(self, key, body, *, sha256):
        super().put(key, body, sha256=sha256)
        self.bodies[key] = body[: len(body) // 2], self.bodies[key][1]


@pytest.mark.parametrize(("how", "caught"), [("never", False), ("size", True), ("content", True)])
def test_reading_back_catches_a_store_that_keeps_something_else(how, caught):
    store = ReadBack(Lossy(), how)
    with pytest.raises(IntegrityError) if caught else nullcontext():
        put(store, A)


def test_credentials_may_come_from_the_aws_chain(s3_server, tmp_path, monkeypatch):
    name = s3_server.bucket(f"chain-{uuid.uuid4().hex[:12]}")
    profile = tmp_path / "credentials"
    profile.write_text(f"[site]\naws_access_key_id = {ACCESS}\naws_secret_access_key = {SECRET}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profile))
    monkeypatch.setenv("AWS_PROFILE", "site")
    bucket = Bucket(name, endpoint=s3_server.endpoint)
    put(S3Store(bucket), A)
    assert MinioStore(bucket).get(A) == b"sealed"


def test_nobody_to_sign_is_refused_with_a_hint(s3_server, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    bucket = Bucket("unsigned", endpoint=s3_server.endpoint)
    for ask in (lambda: put(S3Store(bucket), A), lambda: MinioStore(bucket)):
        with pytest.raises(StoreRefused, match="nobody signs") as caught:
            ask()
        assert "store.credentials" in caught.value.hint
