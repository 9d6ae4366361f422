"""The segment being recorded: it may end after each large group, whatever of its files reaches the disk."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pyrage
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videostore.age import CHUNK, AgeStream
from videostore.domain.chain import Item
from videostore.domain.errors import DiskFull, DiskNotWritable, KeyUnavailable
from videostore.domain.segment import KeyId, Span
from videostore.recorder.growing import SMALLEST, begin, end_again, last_end
from videostore.recorder.spool import Spool, facts_of

START = datetime(2026, 11, 24, 12, tzinfo=UTC)
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
CAMERA = uuid4()
IDENTITY = pyrage.x25519.Identity.generate()
RECIPIENT = str(IDENTITY.to_public())


def plain(size, *, of=0):
    """Return bytes that are not found elsewhere in what is sealed."""
    return hashlib.shake_128(of.to_bytes(4, "big")).digest(size)


def opened(sealed):
    return pyrage.decrypt(bytes(sealed), [IDENTITY])


# --- the format ---


@pytest.mark.parametrize("size", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 5 * CHUNK // 2])
@pytest.mark.parametrize("piece", [1000, 10 * CHUNK])
def test_pyrage_and_the_age_program_open_what_grew(tmp_path, age_program, size, piece):
    sealed, data = bytearray(), plain(size)
    stream = AgeStream(RECIPIENT, sealed.extend)
    for at in range(0, size, piece):
        stream.add(memoryview(data)[at : at + piece])
    sealed += stream.end()
    assert opened(sealed) == data
    identity = tmp_path / "identity"
    identity.write_text(f"{IDENTITY}\n")
    done = subprocess.run(
        [age_program, "-d", "-i", identity], input=bytes(sealed), capture_output=True, check=True
    )
    assert done.stdout == data


@given(
    st.lists(st.sampled_from([0, 1, 1000, CHUNK // 2, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK]), max_size=12)
)
def test_no_chunk_is_sealed_as_the_last_one_with_different_content(sizes):
    """And wherever it says that the file may end, it may: the file opens, and holds all until then."""
    sealed, data, ends = bytearray(), bytearray(), {}
    stream = AgeStream(RECIPIENT, sealed.extend)
    for number, size in enumerate(sizes):
        piece = plain(size, of=number)
        stream.add(piece)
        data += piece
        if not stream.may_end:
            with pytest.raises(ValueError, match="last one"):
                stream.end()
            continue
        end = stream.end()
        assert ends.setdefault(len(sealed), end) == end
        assert opened(sealed + end) == data


@given(st.integers(4, len(RECIPIENT) - 1), st.sampled_from("qpzry9x8gf2tvdw0s3jn54khce6mua7l"))
def test_a_recipient_with_a_wrong_letter_is_none(at, letter):
    wrong = RECIPIENT[:at] + letter + RECIPIENT[at + 1 :]
    if wrong != RECIPIENT:
        with pytest.raises(pyrage.RecipientError):
            pyrage.x25519.Recipient.from_str(wrong)
        with pytest.raises(KeyUnavailable, match="is not an age recipient"):
            AgeStream(wrong, bytearray().extend)


@pytest.mark.parametrize(
    "wrong",
    ["", "age1", RECIPIENT[:-1], f"{RECIPIENT}q", str(IDENTITY)],
    ids=["nothing", "a prefix", "short", "long", "a secret"],
)
def test_what_is_no_recipient_is_refused(wrong):
    with pytest.raises(KeyUnavailable):
        AgeStream(wrong, bytearray().extend)


def test_a_recipient_to_whom_everybody_has_the_key_is_refused():
    """A point of low order: the shared secret would be zero (RFC 7748, 6.1)."""
    with pytest.raises(KeyUnavailable):
        AgeStream("age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq5cu47z", bytearray().extend)


# --- the files ---


class Recorder:
    """Grows a segment in a spool, group by group. ``data`` is all that it was given."""

    def __init__(self, root, **how):
        self.root, self.spool, self.data, self.ends = root, Spool(root, **how), b"", []
        begun = begin(CAMERA, START, sequence=0, key_id=KeyId.covering(START, HOUR))
        self.growing = self.spool.grow(begun, recipient=RECIPIENT)

    def span(self):
        return Span(START, START + (len(self.ends) + 1) * SECOND)

    def add(self, size):
        group = plain(size, of=len(self.ends))
        self.growing.add([group])
        self.data += group
        self.growing.note_end(self.span())
        self.ends.append(self.data)

    def small(self):
        """Keep a small group of the second after the last end in a file of its own."""
        group = plain(100, of=99)
        self.growing.add([group])
        sealed = pyrage.encrypt(group, [IDENTITY.to_public()])
        span = Span(self.span().end - SECOND, self.span().end)
        key_id = KeyId.covering(START, HOUR)
        facts = facts_of(sealed, camera_id=CAMERA, span=span, sequence=0, key_id=key_id)
        self.spool.keep_group(facts, sealed)
        return facts

    def files(self):
        return self.growing.path, self.growing.ends


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def waiting(start):
    """Return a whole segment, and its bytes."""
    key_id = KeyId.covering(start, HOUR)
    return facts_of(
        b"sealed", camera_id=CAMERA, span=Span(start, start + SECOND), sequence=0, key_id=key_id
    ), b"sealed"


@pytest.fixture
def recorder(tmp_path):
    return Recorder(tmp_path / "spool")


def test_a_file_cut_anywhere_ends_after_the_last_group_that_is_whole(recorder):
    for size in (SMALLEST, 3 * SMALLEST + 17, SMALLEST + 1):
        recorder.add(size)
    recorder.growing.add([plain(2 * SMALLEST)])  # the power fails before its end is noted
    path, ends = recorder.files()
    grown, noted = path.read_bytes(), ends.read_bytes()
    seen = set()
    for there in (0, 100, 200, CHUNK, len(grown) // 3, len(grown) // 2, len(grown) - CHUNK, len(grown)):
        for said in (0, 10, 200, len(noted) // 2, len(noted) - 1, len(noted)):
            path.write_bytes(grown[:there])
            ends.write_bytes(noted[:said])
            segment = end_again(path)
            if segment is None:
                assert last_end(path) is None
                continue
            number = segment.span.duration // SECOND
            seen.add(number)
            assert opened(path.read_bytes()) == recorder.ends[number - 1]
            assert segment.size_bytes == path.stat().st_size
            assert segment.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
            assert end_again(path) == segment == last_end(path)
            if (there, said) == (len(grown), len(noted)):
                assert number == 3
    assert seen == {1, 2, 3}


@pytest.mark.parametrize("place", ["grown", "noted"])
def test_an_end_that_is_not_what_was_written_is_not_believed(recorder, place):
    for _ in range(2):
        recorder.add(SMALLEST)
    path = recorder.files()[place == "noted"]
    body = bytearray(path.read_bytes())
    body[-1] ^= 1  # of the last chunk, or of what the second end needs
    path.write_bytes(body)
    segment = end_again(recorder.growing.path)
    assert segment is not None
    assert segment.span.duration == SECOND
    assert opened(recorder.growing.path.read_bytes()) == recorder.ends[0]


def test_after_a_crash_the_segment_is_whole_up_to_its_last_end_and_small_groups_follow(recorder):
    for _ in range(2):
        recorder.add(2 * SMALLEST)
    small = recorder.small()
    again = Spool(recorder.root)
    assert again.recover() == 2
    first, second = again.pending()
    assert (first.span, second) == (Span(START, START + 2 * SECOND), small)
    assert opened(again.read(first)) == recorder.ends[-1]
    assert again.size_bytes() == first.size_bytes + second.size_bytes
    assert not list((recorder.root / "open").rglob("*.*"))
    assert again.recover() == 0


def test_a_small_group_that_a_later_end_covers_is_not_stored_twice(recorder):
    recorder.add(SMALLEST)
    recorder.small()
    recorder.ends.append(b"")
    recorder.add(SMALLEST)
    again = Spool(recorder.root)
    assert again.recover() == 1
    (segment,) = again.pending()
    assert segment.span == Span(START, START + 3 * SECOND)


def test_a_whole_segment_is_one_age_file_and_nothing_else_is_left(recorder):
    recorder.add(2 * SMALLEST + 1)
    small = recorder.small()
    segment = recorder.spool.end(recorder.growing, Span(START, START + 2 * SECOND), groups=[small])
    assert recorder.spool.pending() == [segment]
    sealed = recorder.spool.read(segment)
    assert segment.sha256 == hashlib.sha256(sealed).hexdigest()
    free = opened(sealed)[2 * SMALLEST + 101 :]  # the chunk had been the last one with less in it
    assert int.from_bytes(free[:4], "big") == len(free)
    assert free[4:8] == b"free"
    assert not any(free[8:])
    assert recorder.spool.size_bytes() == segment.size_bytes
    assert not list((recorder.root / "open").rglob("*.*"))


def test_what_the_store_has_linked_is_not_ended_again(recorder, tmp_path):
    """The move from ``open`` had not reached the disk when the power failed, the link had."""
    recorder.add(SMALLEST)
    segment = recorder.spool.end(recorder.growing, recorder.span(), groups=[])
    ready = recorder.spool.as_sealed(segment)
    sealed = ready.read_bytes()
    (tmp_path / "object").hardlink_to(ready)
    path, _ = recorder.files()
    ready.rename(path)
    Spool(recorder.root).recover()
    assert (tmp_path / "object").read_bytes() == sealed


def test_a_segment_that_finds_no_room_for_its_header_leaves_nothing(tmp_path):
    spool = Spool(tmp_path / "spool", limit_bytes=10)
    begun = begin(CAMERA, START, sequence=0, key_id=KeyId.covering(START, HOUR))
    with pytest.raises(DiskFull):
        spool.grow(begun, recipient=RECIPIENT)
    assert not list((tmp_path / "spool").rglob("*.*"))


def test_what_an_earlier_process_left_under_the_same_name_is_not_touched(recorder):
    recorder.add(SMALLEST)
    begun = begin(CAMERA, START, sequence=0, key_id=KeyId.covering(START, HOUR))
    with pytest.raises(DiskNotWritable, match="File exists"):
        recorder.spool.grow(begun, recipient=RECIPIENT)
    assert last_end(recorder.growing.path).span == Span(START, START + SECOND)


def test_an_end_that_the_disk_did_not_sync_is_not_believed_though_it_can_be_read(recorder, monkeypatch):
    """What a failed fsync leaves in memory looks written until it is gone (fsync(2), "ERRORS")."""
    recorder.add(SMALLEST)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull):
        recorder.add(SMALLEST)
    monkeypatch.undo()
    recorder.growing.close()
    (segment,) = recorder.spool.promote(CAMERA)
    assert segment.span == Span(START, START + SECOND)


def test_a_start_on_a_full_disk_gives_up_the_oldest_for_what_was_being_recorded(recorder, monkeypatch):
    old, body = waiting(START - HOUR)
    recorder.spool.commit(old, body, groups=[])
    recorder.add(SMALLEST)
    pwrite, again = os.pwrite, Spool(recorder.root)

    def pwrite_if_there_is_room(*args):
        return full() if again.read(old) else pwrite(*args)

    monkeypatch.setattr(os, "pwrite", pwrite_if_there_is_room)
    assert again.recover() == 1
    (segment,) = again.pending()
    assert opened(again.read(segment)) == recorder.ends[-1]
    assert [gap.span for _, gap in again.gaps()] == [old.span]
    assert again.progress(CAMERA).chained == Item.of(segment)


def test_a_directory_of_no_camera_holds_up_no_start(recorder):
    recorder.add(SMALLEST)
    (recorder.root / "open" / "lost+found").mkdir()
    assert Spool(recorder.root).recover() == 1


def test_retention_in_another_process_takes_what_grows_when_its_key_is_due(recorder):
    recorder.add(SMALLEST)
    other = Spool(recorder.root)
    (key_id,) = other.key_ids()
    assert key_id == KeyId.covering(START, HOUR)
    assert other.remove(key_id) == 2
    assert not list((recorder.root / "open").rglob("*.*"))


def test_what_is_being_recorded_is_known_to_be_there(recorder):
    recorder.add(SMALLEST)
    (held,) = Spool(recorder.root).held(CAMERA)
    assert held.span == Span(START, START + SECOND)
    assert Spool(recorder.root).held(uuid4()) == []
    assert Spool(recorder.root).size_bytes() == sum(path.stat().st_size for path in recorder.files())


def test_a_segment_that_finds_no_room_is_kept_up_to_its_last_end(tmp_path):
    recorder = Recorder(tmp_path / "spool", limit_bytes=4 * SMALLEST)
    recorder.add(SMALLEST + 1)
    with pytest.raises(DiskFull):
        recorder.add(4 * SMALLEST)
    recorder.growing.close()
    (segment,) = recorder.spool.promote(CAMERA)
    assert opened(recorder.spool.read(segment)) == recorder.ends[-1]
    assert recorder.spool.pending() == [segment]
    assert recorder.spool.size_bytes() == segment.size_bytes
