"""Port Ledger: what is appended stays, in order, unaltered, or it shows."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.clock import SettableClock
from videostore.check.proof import verify_certificate_proof, verify_growth, verify_proof
from videostore.domain.errors import LedgerBroken, LedgerUnavailable, RequestInvalid
from videostore.domain.ledger import CHECKPOINT_CONTEXT, GENESIS, Checkpoint, Event, Proof
from videostore.domain.merkle import Tree
from videostore.ledger.files import INDEX, FileLedger
from videostore.ledger.lines import CHECKPOINTS, RECORDS
from videostore.ledger.verify import verify
from videostore.signing import SigningKey


@pytest.fixture
def key(tmp_path):
    return SigningKey.create(tmp_path / "ledger.key")


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "ledger"


@pytest.fixture
def ledger(directory, key):
    return FileLedger(directory, key=key, clock=SettableClock())


def fill(ledger, count=5):
    for number in range(count):
        ledger.append(
            Event.VIEWING, actor="officer-1", body={"grant_id": f"g{number}", "cameras": ["a", "b"]}
        )


PAIR = [Event.REQUESTED, Event.GRANTED]


def refuse(_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def rewrite(directory, change):
    path = directory / RECORDS
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


def problems(directory, key):
    """Return what verification finds, which must not depend on where its batches end."""
    found = verify(directory, public_key=key.public)
    for at_once in (1, 2):
        assert verify(directory, public_key=key.public, at_once=at_once) == found
    return found.problems


def test_records_come_back_in_order_and_from_any_point(ledger, directory, key):
    fill(ledger)
    assert [record.sequence for record in ledger.records()] == [0, 1, 2, 3, 4]
    assert [record.sequence for record in ledger.records(after=2)] == [3, 4]
    assert list(ledger.records(after=4)) == list(ledger.records(after=99)) == []
    other = FileLedger(directory, key=key, clock=SettableClock())
    assert list(other.records(after=3)) == list(ledger.records(after=3))


def test_an_empty_ledger_has_no_records(ledger):
    assert list(ledger.records()) == []


def test_processes_that_append_at_once_make_one_chain(directory, key, tmp_path):
    program = (
        "import sys, pathlib\n"
        "from tests.fakes.clock import SettableClock\n"
        "from videostore.domain.ledger import Event\n"
        "from videostore.ledger.files import FileLedger\n"
        "from videostore.signing import SigningKey\n"
        "key = SigningKey.load(pathlib.Path(sys.argv[2]))\n"
        "ledger = FileLedger(pathlib.Path(sys.argv[1]), key=key, clock=SettableClock())\n"
        "for number in range(25): ledger.append(Event.SERVED, actor=sys.argv[3], body={'n': number})\n"
    )
    command = [sys.executable, "-c", program, directory, tmp_path / "ledger.key"]
    writers = [subprocess.Popen([*command, f"writer-{number}"]) for number in range(4)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0, 0]
    report = verify(directory, public_key=key.public)
    assert (report.records, report.problems) == (100, [])


def test_threads_that_append_at_once_make_one_chain_and_spoil_nothing_for_each_other(ledger, directory, key):
    def append(number):
        body = {"n": number, "seconds": 1.5} if number % 10 == 7 else {"n": number}
        try:
            records = ledger.append_all([(event, "officer-1", body) for event in PAIR])
        except TypeError:
            return None
        return [record.sequence for record in records]

    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(append, range(100)))
    assert [number for number, one in enumerate(found) if one is None] == list(range(7, 100, 10))
    assert all(second == first + 1 for first, second in filter(None, found))
    kept = {
        record.sequence: record for record in FileLedger(directory, key=key, clock=SettableClock()).records()
    }
    assert all(
        [kept[place].event for place in one] == PAIR and {kept[place].body["n"] for place in one} == {number}
        for number, one in enumerate(found)
        if one
    )
    assert (len(kept), problems(directory, key)) == (180, [])


def test_threads_that_a_full_disk_refuses_are_all_told_and_leave_nothing(ledger, directory, key, monkeypatch):
    fill(ledger, 1)
    monkeypatch.setattr(os, "fsync", refuse)

    def append(number):
        with pytest.raises(LedgerUnavailable):
            ledger.append(Event.SERVED, actor="officer-1", body={"n": number})

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(append, range(20)))
    monkeypatch.undo()
    fill(ledger, 1)
    assert (len(list(ledger.records())), problems(directory, key)) == (2, [])


def test_a_torn_last_line_was_never_acknowledged_and_is_cut_off_on_the_record(ledger, directory, key):
    fill(ledger, 3)
    with (directory / RECORDS).open("ab") as file:
        file.write(b'{"record":{"actor":"off')
    again = FileLedger(directory, key=key, clock=SettableClock())
    assert len(list(again.records())) == 3
    assert problems(directory, key) == []
    again.append(Event.SERVED, actor="officer-1", body={})
    assert [record.event for record in again.records(after=2)] == [Event.TAIL_REPAIRED, Event.SERVED]
    assert problems(directory, key) == []


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda lines: [lines[0].replace(b"officer-1", b"officer-2"), *lines[1:]], id="edited"),
        pytest.param(lambda lines: [*lines[:2], *lines[3:]], id="taken out"),
        pytest.param(lambda lines: lines[1:], id="beginning cut off"),
        pytest.param(lambda lines: [*lines[:2], lines[1], *lines[2:]], id="doubled"),
        pytest.param(lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], id="reordered"),
        pytest.param(lambda lines: lines[:3], id="cut off below a checkpoint"),
        pytest.param(lambda _: [], id="emptied"),
        pytest.param(lambda lines: [lines[0].replace(b'":', b'": ', 1), *lines[1:]], id="white space"),
        pytest.param(lambda lines: [*lines, b"\n"], id="an empty line"),
    ],
)
def test_whoever_alters_the_file_is_found(ledger, directory, key, change):
    fill(ledger)
    ledger.checkpoint()
    assert problems(directory, key) == []
    rewrite(directory, change)
    assert problems(directory, key)


def test_several_processes_find_what_one_finds(ledger, directory, key):
    fill(ledger, 7)
    ledger.checkpoint()
    (directory / RECORDS).write_bytes((directory / RECORDS).read_bytes() + b'{"record"')
    for harm in (lambda lines: lines, lambda lines: [*lines[:4], lines[4].replace(b"g4", b"g5"), *lines[5:]]):
        rewrite(directory, harm)
        one, several = (verify(directory, public_key=key.public, processes=n, at_once=2) for n in (1, 2))
        assert several == one
    assert [one.records, len(one.problems)] == [5, 3]


def test_a_whole_history_signed_by_another_key_is_found(ledger, directory, key, tmp_path):
    fill(ledger)
    forger = FileLedger(tmp_path / "forged", key=SigningKey.create(tmp_path / "f"), clock=SettableClock())
    fill(forger)
    forger.checkpoint()
    assert len(problems(tmp_path / "forged", key)) >= 5


def test_a_checkpoint_cannot_be_moved_to_another_history(ledger, directory, key, tmp_path):
    fill(ledger)
    ledger.checkpoint()
    other = FileLedger(tmp_path / "other", key=key, clock=SettableClock())
    fill(other, 4)
    other.append(Event.EXPORT, actor="officer-1", body={})
    (tmp_path / "other" / CHECKPOINTS).write_bytes((directory / CHECKPOINTS).read_bytes())
    assert "pins 5" in problems(tmp_path / "other", key)[0]


def test_an_altered_checkpoint_is_found(ledger, directory, key):
    fill(ledger)
    ledger.checkpoint()
    path = directory / CHECKPOINTS
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "size": 3}) + "\n")
    assert "checkpoint 1" in problems(directory, key)[0]


def test_a_report_says_how_far_checkpoints_reach(ledger, directory, key):
    fill(ledger)
    ledger.checkpoint()
    fill(ledger, 2)
    report = verify(directory, public_key=key.public)
    assert (report.records, report.checkpoints, report.covered, report.problems) == (7, 1, 5, [])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_byte_changed_anywhere_is_found(ledger, directory, key, data):
    if not (directory / RECORDS).exists():
        fill(ledger, 3)
        ledger.checkpoint()
    path = directory / RECORDS
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != whole[at]))
    path.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
    try:
        assert problems(directory, key)
    finally:
        path.write_bytes(whole)


def test_a_broken_ledger_takes_no_more_records_and_gives_none_past_the_break(ledger, directory, key):
    fill(ledger)
    rewrite(directory, lambda lines: [*lines[:2], *lines[3:]])
    fresh = FileLedger(directory, key=key, clock=SettableClock())
    with pytest.raises(LedgerBroken):
        fresh.append(Event.SERVED, actor="officer-1", body={})
    read = []
    with pytest.raises(LedgerBroken):
        read.extend(record.sequence for record in fresh.records())
    assert read == [0, 1]


def test_records_taken_away_from_a_running_ledger_are_noticed(ledger, directory):
    fill(ledger)
    rewrite(directory, lambda lines: lines[:2])
    with pytest.raises(LedgerBroken):
        ledger.append(Event.SERVED, actor="officer-1", body={})


@pytest.mark.parametrize("left", [0, 2, 4])
def test_records_taken_away_from_who_follows_are_noticed(ledger, directory, left):
    fill(ledger)
    assert [record.sequence for record in ledger.records(after=2)] == [3, 4]
    assert list(ledger.records(after=4)) == []
    rewrite(directory, lambda lines: lines[:left])
    with pytest.raises(LedgerBroken):
        list(ledger.records(after=4))


def test_a_record_altered_behind_who_follows_is_noticed_with_the_next(ledger, directory, key):
    fill(ledger)
    assert len(list(ledger.records())) == 5
    assert list(ledger.records(after=4)) == []
    rewrite(directory, lambda lines: [*lines[:4], lines[4].replace(b"officer-1", b"officer-2")])
    with pytest.raises(LedgerBroken):
        list(ledger.records(after=4))


def test_who_follows_reads_what_another_process_appended(ledger, directory, key):
    fill(ledger)
    after, read = -1, []
    other = FileLedger(directory, key=key, clock=SettableClock())
    for _ in range(3):
        for record in ledger.records(after=after):
            read.append(record.sequence)
            after = record.sequence
        fill(other, 150)
    assert read == list(range(305))
    assert [record.sequence for record in ledger.records(after=300)] == list(range(301, 455))


def test_a_ledger_that_cannot_be_written_says_so_and_keeps_no_part(key, tmp_path):
    blocked = tmp_path / "ledger"
    blocked.write_text("in the way")
    ledger = FileLedger(blocked, key=key, clock=SettableClock())
    with pytest.raises(LedgerUnavailable):
        ledger.append(Event.SERVED, actor="officer-1", body={})


def test_a_full_disk_leaves_no_part_of_a_record(ledger, directory, key):
    fill(ledger, 1)
    limit = (directory / RECORDS).stat().st_size + 100
    program = (
        "import resource, signal, sys, pathlib\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))\n"
        "from tests.fakes.clock import SettableClock\n"
        "from videostore.domain.ledger import Event\n"
        "from videostore.domain.errors import LedgerUnavailable\n"
        "from videostore.ledger.files import FileLedger\n"
        "from videostore.signing import SigningKey\n"
        "key = SigningKey.load(pathlib.Path(sys.argv[2]))\n"
        "ledger = FileLedger(pathlib.Path(sys.argv[1]), key=key, clock=SettableClock())\n"
        "try: ledger.append(Event.SERVED, actor='x', body={})\n"
        "except LedgerUnavailable: sys.exit(7)\n"
    )
    before = (directory / RECORDS).read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", program, directory, directory.parent / "ledger.key", str(limit)], check=False
    )
    assert done.returncode == 7
    assert (directory / RECORDS).read_bytes() == before


# --- checkpoints kept elsewhere, proofs, the index ---


def cut(directory, records):
    """Cut records and checkpoints off, as who has the disk can."""
    rewrite(directory, lambda lines: lines[:records])
    (directory / CHECKPOINTS).unlink()
    (directory / INDEX).unlink(missing_ok=True)


def test_a_lost_tail_shows_against_a_checkpoint_kept_elsewhere_and_only_there(ledger, directory, key):
    fill(ledger)
    kept = ledger.checkpoint()
    cut(directory, 3)
    assert problems(directory, key) == []
    (problem,) = verify(directory, public_key=key.public, outside=[kept]).problems
    assert "tail is gone" in problem


def test_a_fork_shows_against_a_checkpoint_kept_elsewhere_also_when_it_is_signed(ledger, directory, key):
    fill(ledger)
    kept = [ledger.checkpoint()]
    cut(directory, 3)
    fork = FileLedger(directory, key=key, clock=SettableClock())
    for number in range(3):
        fork.append(Event.VIEWING, actor="officer-1", body={"grant_id": f"other {number}"})
    kept.append(fork.checkpoint())
    assert problems(directory, key) == []
    report = verify(directory, public_key=key.public, outside=kept)
    assert [("forked" in problem) for problem in report.problems] == [True]
    assert report.covered_outside == 6


def test_a_checkpoint_kept_elsewhere_of_another_key_is_not_believed(ledger, directory, key, tmp_path):
    fill(ledger)
    forger = FileLedger(tmp_path / "forged", key=SigningKey.create(tmp_path / "f"), clock=SettableClock())
    fill(forger, 2)
    report = verify(directory, public_key=key.public, outside=[ledger.checkpoint(), forger.checkpoint()])
    assert report.problems == [f"outside checkpoint 1 is not signed by {key.public}"]
    assert report.covered_outside == 5


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A ledger of 700 records with its index: five whole blocks and a part; to be copied, not changed."""
    root = tmp_path_factory.mktemp("long")
    key = SigningKey.create(root / "ledger.key")
    ledger = FileLedger(root / "ledger", key=key, clock=SettableClock())
    fill(ledger, 300)
    ledger.checkpoint()
    fill(ledger, 400)
    return root


@pytest.fixture
def copied(long, tmp_path):
    """The directory of a copy of it, and how to open that."""
    key = SigningKey.load(long / "ledger.key")
    directory = shutil.copytree(long / "ledger", tmp_path / "copied")
    return directory, key, lambda: FileLedger(directory, key=key, clock=SettableClock())


def test_every_record_is_proven_by_itself_and_nothing_else_is(copied):
    _directory, key, opened = copied
    ledger = opened()
    for number in (0, 1, 127, 128, 255, 299, 300, 639, 640, 699):
        proof = Proof.from_json(json.loads(json.dumps(ledger.prove(number).to_json())))
        assert proof.record.sequence == number
        assert proof.checkpoint.size == (300 if number < 300 else 700)
        assert len(proof.path) <= 10
        document = proof.to_json()
        assert verify_proof(document, public_key=key.public)["sequence"] == number
        forged = {**document, "record": {**document["record"], "actor": "somebody"}}
        with pytest.raises(LedgerBroken, match="not signed"):
            verify_proof(forged, public_key=key.public)
        elsewhere = {**document, "path": [*document["path"][1:], document["path"][0]]}
        with pytest.raises(LedgerBroken, match="does not stand"):
            verify_proof(elsewhere, public_key=key.public)
    with pytest.raises(RequestInvalid):
        ledger.prove(700)
    with pytest.raises(LedgerBroken, match="no certificate"):
        verify_certificate_proof(document, public_key=key.public)


def test_growth_is_proven_from_any_checkpoint_and_a_fork_of_it_is_not(copied):
    _directory, key, opened = copied
    ledger = opened()
    sizes = {0: GENESIS}
    tree = Tree()
    roots = {0: tree.root.hex()}
    for record in ledger.records():
        tree.add(record.leaf)
        sizes[tree.size], roots[tree.size] = record.hash, tree.root.hex()

    def signed(size, root):
        made = Checkpoint(size, sizes[size], root, SettableClock().at)
        return made.with_signature(key.sign(made.signed_fields(), context=CHECKPOINT_CONTEXT))

    now = ledger.checkpoint()
    assert (now.size, now.root) == (700, roots[700])
    for size in (0, 1, 3, 128, 300, 512, 639, 640, 700):
        path = ledger.growth(size, 700)
        assert len(path) <= 11
        document = {"first": signed(size, roots[size]).to_json(), "second": now.to_json(), "path": path}
        verify_growth(document, public_key=key.public)
        forked = {**document, "first": signed(size, roots[699]).to_json()}
        with pytest.raises(LedgerBroken, match="forked"):
            verify_growth(forked, public_key=key.public)
        if size == 640:
            with pytest.raises(LedgerBroken, match="two signed"):
                verify_growth(document, public_key=key.public, outside=[signed(640, roots[639])])
    with pytest.raises(RequestInvalid):
        ledger.growth(1, 701)


def test_a_process_that_starts_reads_the_end_and_goes_on_as_if_it_had_read_all(copied):
    directory, key, opened = copied
    whole = (directory / INDEX).read_bytes()
    (directory / INDEX).unlink()
    assert len(list(opened().records())) == 700
    opened().append(Event.SERVED, actor="x", body={})
    assert (directory / INDEX).read_bytes() == whole
    broken = directory / RECORDS
    broken.write_bytes(b"x" + broken.read_bytes()[1:])
    opened().append(Event.SERVED, actor="x", body={})  # the beginning is not read again
    assert problems(directory, key)


@pytest.mark.parametrize("tail", [b"\x00" * 72, b"\x00" * 30, b"half an entry"])
def test_what_a_power_cut_left_of_the_index_is_made_good(copied, tail):
    directory, key, opened = copied
    whole = (directory / INDEX).read_bytes()
    (directory / INDEX).write_bytes(whole[:-72] + tail)
    ledger = opened()
    fill(ledger, 1)
    assert (directory / INDEX).read_bytes()[: len(whole)] == whole
    assert ledger.prove(600).holds
    fill(ledger, 100)
    ledger.checkpoint()
    assert problems(directory, key) == []


def test_a_wrong_last_entry_of_the_index_is_mended_from_the_records(copied):
    directory, _key, opened = copied
    whole = (directory / INDEX).read_bytes()
    (directory / INDEX).write_bytes(whole[:-40] + bytes(40))
    fill(opened(), 1)
    assert (directory / INDEX).read_bytes() == whole


@pytest.mark.parametrize("left", [0, 1, 200, 639])
def test_records_taken_away_between_two_starts_are_missed(copied, left):
    directory, _key, opened = copied
    rewrite(directory, lambda lines: lines[:left])
    with pytest.raises(LedgerBroken):
        fill(opened(), 1)


def test_two_processes_share_the_index(copied):
    directory, key, opened = copied
    one, other = opened(), opened()
    for _ in range(3):
        fill(one, 70)
        fill(other, 70)
    assert one.checkpoint().root == verify(directory, public_key=key.public).root
    assert verify(directory, public_key=key.public).problems == []


def test_records_of_one_kind_are_found_wherever_they_stand(ledger, directory):
    fill(ledger, 2)
    ledger.append(
        Event.SERVED, actor="x", body={"event": "access.export", "nested": {"event": "key.created"}}
    )
    ledger.append(Event.EXPORT, actor="x", body={})
    assert [record.sequence for record in ledger.find(Event.EXPORT)] == [3]
    assert [record.sequence for record in ledger.find(Event.VIEWING)] == [0, 1]
    assert list(ledger.find(Event.KEY_CREATED)) == []
    rewrite(directory, lambda lines: [line.replace(b'"actor":"x"', b'"actor":"y"') for line in lines])
    with pytest.raises(LedgerBroken):
        list(ledger.find(Event.EXPORT))


def test_times_are_those_of_the_clock(directory, key):
    clock = SettableClock()
    ledger = FileLedger(directory, key=key, clock=clock)
    ledger.append(Event.SERVED, actor="x", body={})
    clock.passes(timedelta(hours=1))
    ledger.append(Event.SERVED, actor="x", body={})
    first, second = (record.at for record in ledger.records())
    assert second - first == timedelta(hours=1)
