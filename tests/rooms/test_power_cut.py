"""The power fails at any step of recording and uploading: the next start finishes what was begun.

The steps are the calls by which a program changes a disk. A forked process records, uploads and ends before
the Nth of them, for every N; of what was written and not yet synced half is gone. A second one goes on.
"""

from __future__ import annotations

import os
import shutil
import stat
import traceback
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pyrage
import pytest

from tests.fakes.clock import SettableClock
from tests.rooms.test_recorder import Film, frames, heavy
from videostore.catalogue.sql import SqlCatalogue
from videostore.check.segments import Verdict, verify
from videostore.domain import cmaf
from videostore.domain.camera import Camera
from videostore.domain.chain import CONTEXT
from videostore.domain.segment import KeyId, Span
from videostore.ledger.files import FileLedger
from videostore.recorder import session as session_module
from videostore.recorder.session import CameraSession, Recording
from videostore.recorder.spool import Spool
from videostore.recorder.upload import Uploader
from videostore.signing import SigningKey
from videostore.store.directory import DirectoryStore
from videostore.synthetic.film import frame_numbers
from videostore.synthetic.stream import GOP

STEPS = ("open", "fsync", "replace", "unlink", "mkdir", "truncate", "write", "pwrite", "link")
"""Of the os module: whatever changes a disk goes through one of these (SQLite looks after itself)."""
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
START = datetime(2026, 11, 24, 12, 59, 58, tzinfo=UTC)  # the hour key changes on the way
AGAIN = START + 30 * SECOND
FILM = 3 * GOP + 7  # frames
CAMERA = Camera(uuid4(), "lobby", "rtsp://127.0.0.1/lobby")
CUT, DONE = 42, 0  # exit codes


def film(count):
    """Two segments: one may end after its first group, which is large; the other has small groups only."""
    return heavy(frames(count, at=START), every=FILM)


class Host:
    """The disk of a recorder, and what runs on it. The private keys are the test's; ``empty`` is the file of
    an empty catalogue."""

    def __init__(self, root, empty):
        self.root = root
        self.identities = {
            KeyId.covering(at, HOUR): pyrage.x25519.Identity.generate() for at in (START, AGAIN)
        }
        self.key = SigningKey.create(root / "recorder.key")
        self.ledger_key = SigningKey.create(root / "ledger.key")
        DirectoryStore.create(root / "store")
        shutil.copyfile(empty, root / "catalogue.db")

    def recipient(self, key_id):
        return str(self.identities[key_id].to_public())

    def spool(self):
        return Spool(self.root / "spool", sign=lambda run: self.key.sign(run, context=CONTEXT))

    def catalogue(self):
        return SqlCatalogue.open(f"sqlite:///{self.root / 'catalogue.db'}")

    def ledger(self):
        return FileLedger(self.root / "ledger", key=self.ledger_key, clock=SettableClock(START))

    def run(self, packets, *, now):
        """Do all that a recorder does between two starts."""
        spool = self.spool()
        spool.recover()
        recording = Recording(
            source=Film(packets),
            spool=spool,
            keys=self,
            key_id=lambda _camera, moment: KeyId.covering(moment, HOUR),
            segment=2 * SECOND,
            max_clock_offset=2 * SECOND,
            now=lambda: now,
        )
        session = CameraSession(CAMERA, recording, credentials=lambda: None)
        session.run(recording.source.stop)
        uploader = Uploader(
            spool, DirectoryStore(self.root / "store"), self.catalogue(), self.ledger(), now=lambda: now
        )
        uploader.upload_all()

    def in_another_process(self, count, *, cut):
        """Record ``count`` frames in a process that ends before step ``cut``; return its exit code, how many
        frames it had received, and the steps it made."""
        told, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                write, made = os.write, _let_the_power_fail(self.root, cut)

                def received():
                    for one in film(count):
                        write(tell, b"f")
                        yield one

                self.run(received(), now=START)
                write(tell, "".join(name[0] for name in made).upper().encode())
                code = DONE
            except BaseException:
                traceback.print_exc()
                raise
            finally:
                os._exit(code)
        os.close(tell)
        with os.fdopen(told, "rb") as pipe:
            said = pipe.read()
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said.count(b"f"), said.replace(b"f", b"")


def _let_the_power_fail(root, cut):
    """Have this process end before the step of that number. Returns the list of steps made, which grows."""
    made, synced = [], {}

    def counted(name, call):
        def step(*args, **kwargs):
            if len(made) == cut:
                _forget_what_is_not_synced(root, synced)
                os._exit(CUT)
            made.append(name)
            done = call(*args, **kwargs)
            if name == "fsync" or (name == "open" and args[1] & os.O_CREAT):
                found = os.fstat(done if name == "open" else args[0])
                synced[found.st_ino] = found.st_size
            return done

        return step

    for name in STEPS:
        setattr(os, name, counted(name, getattr(os, name)))
    return made


def _forget_what_is_not_synced(root, synced):
    for path in (one for place in ("spool", "store", "ledger") for one in (root / place).rglob("*")):
        found = path.stat()
        kept = synced.pop(found.st_ino, None)
        if kept is not None and stat.S_ISREG(found.st_mode) and found.st_size > kept:
            with path.open("r+b") as file:
                file.truncate(kept + (found.st_size - kept) // 2)


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setattr(session_module, "_pause", lambda failures: 0.0)

    SqlCatalogue.open(f"sqlite:///{tmp_path / 'empty.db'}").close()

    def build(name):
        (tmp_path / name).mkdir()
        return Host(tmp_path / name, tmp_path / "empty.db")

    return build


def check(host, received, tmp_path):
    """Nothing is lost but the open group, nothing is there twice, nothing is left over."""
    catalogue, store, ledger = host.catalogue(), DirectoryStore(host.root / "store"), host.ledger()
    ever = Span(START - HOUR, START + HOUR)
    segments, gaps = catalogue.segments([CAMERA.id], ever), catalogue.gaps([CAMERA.id], ever)
    numbers = []
    for segment in (one for one in segments if one.span.start < AGAIN):
        film = tmp_path / "film.mp4"
        opened = pyrage.decrypt(store.get(segment.object_key), [host.identities[segment.key_id]])
        assert cmaf.parse(opened).origin == cmaf.origin_of(CAMERA.id, segment.span.start)
        film.write_bytes(opened)
        numbers += frame_numbers(film)
    assert numbers == list(range(len(numbers)))
    assert received - len(numbers) <= GOP + 1
    assert segments[-1].span.end == AGAIN + SECOND
    spans = sorted(one.span for one in [*segments, *gaps])
    end = START if received else AGAIN  # a camera is recorded from the moment that this is on record
    for span in spans:
        assert span.start <= end + timedelta(milliseconds=1), (spans, end)
        end = max(end, span.end)
    left = [path for path in (host.root / "spool").rglob("*") if path.is_file()]
    assert [path.parent.name for path in left] == ["cameras"]
    found = verify(
        ledger.records(),
        store,
        public=host.key.public,
        cameras={CAMERA.id},
        open_runs=host.spool().open_runs(),
    )
    assert {one.verdict for one in found} == {Verdict.WHOLE}
    catalogue.close()


def test_at_whatever_step_the_power_fails_the_next_start_finishes(host, tmp_path):
    whole = host("whole")
    code, received, steps = whole.in_another_process(FILM, cut=None)
    assert (code, received) == (DONE, FILM)
    assert Counter(steps.decode()).keys() >= set("OFRUM")
    assert len(steps) > 100
    for cut in range(len(steps)):
        one = host(str(cut))
        code, received, _ = one.in_another_process(FILM, cut=cut)
        assert code == CUT
        one.run(iter(frames(GOP, at=AGAIN)), now=AGAIN)
        check(one, received, tmp_path)
