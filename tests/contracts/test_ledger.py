"""Port Ledger: what is appended stays, in order, unaltered, or it shows."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.clock import SettableClock
from videostore.domain.errors import LedgerBroken, LedgerUnavailable
from videostore.domain.ledger import Event
from videostore.ledger.files import CHECKPOINTS, RECORDS, FileLedger
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


def rewrite(directory, change):
    path = directory / RECORDS
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


def problems(directory, key):
    return verify(directory, public_key=key.public).problems


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


def test_times_are_those_of_the_clock(directory, key):
    clock = SettableClock()
    ledger = FileLedger(directory, key=key, clock=clock)
    ledger.append(Event.SERVED, actor="x", body={})
    clock.passes(timedelta(hours=1))
    ledger.append(Event.SERVED, actor="x", body={})
    first, second = (record.at for record in ledger.records())
    assert second - first == timedelta(hours=1)
