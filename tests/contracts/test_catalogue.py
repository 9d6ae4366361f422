"""Port Catalogue: overlap search, and one way out for every row. Every adapter runs this."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import uuid
from contextlib import closing
from datetime import UTC, datetime, timedelta
from threading import Thread
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.fakes.catalogue import MemoryCatalogue
from tests.fakes.segment_store import MemorySegmentStore
from tests.servers import POSTGRESQL_LOGIN
from videostore.catalogue.rebuild import Progress, rebuild
from videostore.catalogue.sql import SqlCatalogue
from videostore.domain.errors import CatalogueUnavailable, SiteTooNew
from videostore.domain.retention import SegmentState
from videostore.domain.segment import (
    MICROSECOND,
    SITE_KEEP,
    Gap,
    GapReason,
    ObjectKey,
    Segment,
    Sha256Hex,
    Span,
)
from videostore.ports import Amount

START = datetime(2026, 11, 24, 12, 59, 30, tzinfo=UTC)
ONE, TWO = UUID(int=1), UUID(int=2)
HOUR = timedelta(hours=1)


def segment(camera=ONE, at=0.0, seconds=10.0, size=100, keep=SITE_KEEP):
    start = START + timedelta(seconds=at)
    span = Span(start, start + timedelta(seconds=seconds))
    return Segment(
        camera, span, int(at) % 1000, HOUR, size, Sha256Hex(f"{int(at * 1000) % 16**6:064x}"), keep
    )


def span(start, end):
    return Span(START + timedelta(seconds=start), START + timedelta(seconds=end))


def fresh_postgresql(server):
    name = f"c{uuid.uuid4().hex[:12]}"
    user, password = POSTGRESQL_LOGIN
    admin = sa.make_url(f"{server}postgres").set(
        drivername="postgresql+psycopg", username=user, password=password
    )
    engine = sa.create_engine(admin, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"{server}{name}"


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def make(request, tmp_path):
    """Return a function that makes an empty catalogue."""
    opened = []

    def build():
        match request.param:
            case "memory":
                return MemoryCatalogue()
            case "sqlite":
                url = f"sqlite:///{tmp_path}/{uuid.uuid4().hex}.db"
            case _:
                url = fresh_postgresql(request.getfixturevalue("postgresql_server"))
        opened.append(SqlCatalogue.open(url, credentials=POSTGRESQL_LOGIN))
        return opened[-1]

    yield build
    for catalogue in opened:
        catalogue.close()


@pytest.fixture
def catalogue(make):
    return make()


def test_a_search_finds_what_overlaps_and_nothing_that_only_touches(catalogue):
    rows = [segment(at=at) for at in (0, 10, 20, 30)]
    catalogue.adopt([*rows, segment(TWO, 10)])
    assert catalogue.segments([ONE], span(10, 20)) == [rows[1]]
    assert catalogue.segments([ONE], span(9.999999, 20.000001)) == rows[:3]
    assert catalogue.segments([TWO, ONE], span(10, 20)) == [rows[1], segment(TWO, 10)]
    assert catalogue.segments([], span(0, 100)) == []


def test_footage_that_touches_is_one_span_and_a_hole_makes_two(catalogue):
    catalogue.adopt([segment(at=at) for at in (0, 10, 20.05, 40)] + [segment(TWO, 10), segment(at=5)])
    assert catalogue.footage([TWO, ONE], span(5, 100)) == [
        (ONE, span(0, 30.05)),
        (ONE, span(40, 50)),
        (TWO, span(10, 20)),
    ]
    assert catalogue.footage([ONE], span(50, 60)) == []
    for one in catalogue.live():
        catalogue.condemn(one.key_id)
    assert catalogue.footage([ONE], span(5, 100)) == []


def test_the_longest_segment_is_found_by_its_last_instant(catalogue):
    long = segment(at=0, seconds=3600)
    catalogue.add(long)
    assert catalogue.segments([ONE], span(3599.999999, 3600)) == [long]


def test_every_fact_comes_back(catalogue):
    one = segment(at=0.123456, seconds=1.000001, size=2**40)
    catalogue.add(one)
    assert catalogue.live() == [one]


def test_adding_twice_changes_nothing_in_any_state(catalogue):
    one = segment()
    catalogue.add(one)
    catalogue.add(one)
    assert catalogue.adopt([one]) == 0
    assert catalogue.condemn(one.key_id) == 1
    catalogue.add(one)
    assert catalogue.live() == []
    catalogue.mark_absent([one.object_key])
    catalogue.add(one)
    assert (catalogue.live(), catalogue.condemned(one.key_id)) == ([], [])


def test_a_condemned_segment_is_found_by_nobody(catalogue):
    catalogue.adopt([segment(), segment(at=40)])
    catalogue.condemn(segment().key_id)
    assert catalogue.segments([ONE], span(0, 100)) == [segment(at=40)]
    assert catalogue.condemned(segment().key_id) == [segment()]
    assert catalogue.totals().condemned == 1


def test_a_row_is_forgotten_only_after_its_absence_was_confirmed(catalogue):
    one = segment()
    catalogue.add(one)
    catalogue.forget([one.object_key])
    catalogue.mark_absent([one.object_key])
    assert catalogue.live() == [one]
    catalogue.condemn(one.key_id)
    catalogue.forget([one.object_key])
    assert catalogue.unfinished() == [one.key_id]
    catalogue.mark_absent([one.object_key])
    assert catalogue.absent(one.key_id) == [one]
    catalogue.forget([one.object_key])
    assert (catalogue.unfinished(), catalogue.known([one.object_key])) == ([], set())


def test_keys_with_live_rows_are_named_oldest_first(catalogue):
    catalogue.adopt([segment(at=40), segment(at=0), segment(TWO, 41), segment(at=7200)])
    first, second = segment(at=0).key_id, segment(at=40).key_id
    assert catalogue.key_ids(until=START + HOUR) == [first, second]
    assert catalogue.key_ids(until=first.start) == []
    assert catalogue.oldest() == START


def test_keys_of_another_keep_are_other_keys(catalogue):
    """One hour, two series: what one condemns the other keeps."""
    week = timedelta(days=7)
    site, short = segment(at=0), segment(TWO, at=1, keep=week)
    catalogue.adopt([site, short])
    assert catalogue.key_ids(until=START + HOUR) == [site.key_id, short.key_id]
    assert catalogue.oldest_key(TWO) == short.key_id
    assert catalogue.condemn(short.key_id) == 1
    assert (catalogue.live(), catalogue.leaving()) == (
        [site],
        {(short.key_id, short.camera_id, SegmentState.CONDEMNED): 1},
    )
    assert (catalogue.oldest_key(ONE), catalogue.oldest_key(TWO)) == (site.key_id, None)
    assert catalogue.unfinished() == [short.key_id]


def test_one_camera_of_an_hour_goes_and_the_others_stay(catalogue):
    one, two = segment(at=0), segment(TWO, at=0)
    catalogue.adopt([one, two])
    assert catalogue.condemn(one.key_id, ONE) == 1
    assert (catalogue.live(), catalogue.condemned(one.key_id, ONE)) == ([two], [one])
    assert (catalogue.condemned(one.key_id, TWO), catalogue.cameras(one.key_id)) == ([], [ONE])
    catalogue.mark_absent([one.object_key])
    assert (catalogue.absent(one.key_id, ONE), catalogue.cameras(one.key_id)) == ([one], [ONE])
    assert catalogue.leaving() == {(one.key_id, ONE, SegmentState.ABSENT): 1}
    catalogue.condemn(two.key_id)
    assert catalogue.leaving()[two.key_id, TWO, SegmentState.CONDEMNED] == 1
    catalogue.forget([one.object_key])
    assert {state for _, _, state in catalogue.leaving()} == {SegmentState.CONDEMNED}


def test_amounts_are_of_what_is_there(catalogue):
    one, later, two = segment(at=0), segment(at=10), segment(TWO, at=0)
    catalogue.adopt([one, later, two, segment(at=7200)])
    catalogue.condemn(one.key_id, ONE)
    catalogue.mark_absent([later.object_key])
    first, second = catalogue.amounts(until=one.key_id.next.start)
    assert first == Amount(one.key_id, ONE, 1, one.size_bytes)
    assert second == Amount(one.key_id, TWO, 1, two.size_bytes)
    assert catalogue.amounts(until=one.key_id.start) == []


def test_a_gap_that_goes_on_becomes_longer_and_none_is_longer_than_a_day(catalogue):
    down, error = GapReason.RECORDER_DOWN, GapReason.STREAM_ERROR
    pieces = [Gap(span(at, at + 10), ONE, down) for at in (0, 20, 10, 10)]
    for gap in (*pieces, Gap(span(30, 40), ONE, error), Gap(span(30, 40), TWO, down)):
        catalogue.add_gap(gap)
    assert catalogue.gaps([ONE], span(0, 100)) == [Gap(span(0, 30), ONE, down), Gap(span(30, 40), ONE, error)]
    assert catalogue.gaps([TWO], span(0, 100)) == [Gap(span(30, 40), TWO, down)]
    for hour in range(1, 50):
        catalogue.add_gap(Gap(span(3600 * hour, 3600 * (hour + 1)), TWO, down))
    found = catalogue.gaps([TWO], span(3600, 3600 * 50))
    assert [gap.span.duration for gap in found] == [timedelta(days=1), timedelta(days=1), timedelta(hours=1)]


def test_gaps_are_kept_once_and_forgotten_when_old(catalogue):
    old, new = (Gap(span(at, at + 5), ONE, GapReason.STREAM_ERROR) for at in (0, 100))
    for gap in (new, old, new):
        catalogue.add_gap(gap)
    assert catalogue.gaps([ONE], span(0, 200)) == [old, new]
    assert catalogue.gaps([ONE], span(5, 100)) == []
    assert catalogue.gaps([TWO], span(0, 200)) == []
    assert catalogue.forget_gaps(until=old.span.end) == 0
    assert catalogue.forget_gaps(until=new.span.end) == 1
    assert catalogue.gaps([ONE], span(0, 200)) == [new]


def test_the_last_end_of_a_camera_counts_every_state(catalogue):
    assert catalogue.last_end(ONE) is None
    catalogue.adopt([segment(at=0, seconds=30), segment(at=10), segment(TWO, 500)])
    catalogue.condemn(segment(at=0).key_id)
    assert catalogue.last_end(ONE) == START + timedelta(seconds=30)


def test_live_rows_are_paged_in_byte_order(catalogue):
    rows = [segment(camera, at) for camera in (ONE, TWO, UUID(int=10)) for at in range(0, 100, 10)]
    catalogue.adopt(rows)
    pages, after = [], None
    while page := catalogue.live(after=after, limit=7):
        pages += page
        after = page[-1].object_key
    assert [one.object_key for one in pages] == sorted(one.object_key for one in rows)


def test_more_rows_than_one_statement_takes(catalogue):
    rows = [segment(at=10 * number) for number in range(1203)]
    assert catalogue.adopt(iter(rows)) == 1203
    keys = [one.object_key for one in rows]
    assert catalogue.known([*keys, ObjectKey("segments/none")]) == set(keys)
    assert catalogue.totals().size_bytes == 120_300


def test_nothing_is_empty_and_well(catalogue):
    assert catalogue.totals().oldest is None
    assert catalogue.known([]) == set()
    catalogue.mark_absent([])
    catalogue.forget([])


class Lives(RuleBasedStateMachine):
    """Whatever happens in whatever order, a real catalogue says what the model says."""

    build = MemoryCatalogue

    def __init__(self):
        super().__init__()
        self.model, self.real = MemoryCatalogue(), type(self).build()
        self.seen = []

    def teardown(self):
        getattr(self.real, "close", lambda: None)()

    def both(self, what):
        assert what(self.real) == what(self.model)

    @rule(camera=st.sampled_from([ONE, TWO]), at=st.integers(0, 9000), seconds=st.integers(1, 3600))
    def add(self, camera, at, seconds):
        self.seen.append(segment(camera, at, seconds))
        self.both(lambda one: one.add(self.seen[-1]))

    @precondition(lambda self: self.seen)
    @rule(
        pick=st.randoms(use_true_random=False),
        what=st.sampled_from(["condemn", "condemn_these", "mark_absent", "forget", "revive"]),
    )
    def move_on(self, pick, what):
        one = pick.choice(self.seen)
        whole = {"condemn": [one.key_id], "revive": [one.key_id, one.camera_id]}
        self.both(lambda catalogue: getattr(catalogue, what)(*whole.get(what, [[one.object_key]])))

    @precondition(lambda self: self.seen)
    @rule(start=st.integers(-100, 9000), seconds=st.integers(1, 5000))
    def search(self, start, seconds):
        self.both(lambda one: one.segments([ONE, TWO], span(start, start + seconds)))

    @invariant()
    def they_agree(self):
        for what in ("live", "totals", "unfinished", "leaving", "oldest"):
            self.both(lambda one, what=what: getattr(one, what)())
        for key_id in self.model.unfinished():
            self.both(lambda one, key_id=key_id: (one.condemned(key_id), one.absent(key_id, ONE)))
            self.both(lambda one, key_id=key_id: one.cameras(key_id))
        self.both(lambda one: (one.last_end(ONE), one.oldest_key(TWO)))
        self.both(lambda one: (one.amounts(until=START + HOUR), one.of_hour(segment().key_id.start)))


def test_every_history_agrees_with_the_model(make, request):
    if "memory" in request.node.name:
        return  # the model itself
    machine = type("Against", (Lives,), {"build": staticmethod(make)})
    examples = settings(
        max_examples=8 if "postgresql" in request.node.name else 25,
        stateful_step_count=20,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=examples)


# --- what only a database does ---


def test_rows_survive_a_restart(tmp_path):
    url = f"sqlite:///{tmp_path}/catalogue.db"
    with closing(SqlCatalogue.open(url)) as first:
        first.add(segment())
    with closing(SqlCatalogue.open(url)) as second:
        assert second.live() == [segment()]


def test_threads_write_at_the_same_time_and_lose_nothing(make):
    catalogue = make()
    if isinstance(catalogue, MemoryCatalogue):
        return

    def write(first):
        for number in range(20):
            catalogue.add(segment(at=first + number))

    threads = [Thread(target=write, args=[number * 1000]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert catalogue.totals().segments == 80


@pytest.mark.parametrize("make", ["sqlite", "postgresql"], indirect=True)
def test_the_tables_of_a_newer_version_are_refused(make):
    catalogue = make()
    url = f"{catalogue._engine.url.set(drivername=catalogue._engine.dialect.name, username=None)}"
    with catalogue._transaction(write=True) as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SiteTooNew, match="9999"):
        SqlCatalogue.open(url, credentials=POSTGRESQL_LOGIN)


@pytest.mark.parametrize("make", ["sqlite", "postgresql"], indirect=True)
def test_a_row_that_says_other_than_its_object_key_is_told_and_put_right_by_the_object(make):
    catalogue = make()
    one, other, none = rows = [segment(at=at) for at in (0, 10, 20)]
    catalogue.adopt(rows)
    catalogue.condemn_these([other.object_key])
    with catalogue._transaction(write=True) as connection:
        for which, said in ((one, "key_period_s = 0, state = 7"), (none, "object_key = 'z', end_us = 0")):
            update = sa.text(f"UPDATE segments SET {said} WHERE object_key = :key")
            connection.execute(update, {"key": which.object_key})
    assert catalogue.known([row.object_key for row in rows]) == {other.object_key}
    told = [f"{one.object_key}: key_period_s, state", "z: object_key"]
    assert list(catalogue.altered()) == told
    assert (catalogue.live(), catalogue.key_ids(until=START + HOUR)) == ([], [none.key_id])
    assert catalogue.adopt([*rows, one]) == 2, "a listing of versions names an object twice"
    assert (catalogue.live(), catalogue.condemned(other.key_id)) == ([one, none], [other])
    assert list(catalogue.altered()) == told[1:]


@pytest.mark.parametrize("make", ["sqlite"], indirect=True)
@pytest.mark.parametrize("said", ["size_bytes = 5.5", "state = 'x'", "key_start_us = key_start_us + 0.5"])
def test_a_row_that_only_sqlite_takes_is_put_right_too(make, said):
    catalogue = make()
    catalogue.add(segment())
    with catalogue._transaction(write=True) as connection:
        connection.execute(sa.text(f"UPDATE segments SET {said}"))
    assert len(list(catalogue.altered())) == 1
    assert (catalogue.adopt([segment()]), list(catalogue.altered())) == (1, [])


@pytest.mark.parametrize("make", ["postgresql"], indirect=True)
def test_what_is_adopted_and_known_waits_for_nobody_who_writes_to_it(make):
    """Rows that two write to, each in an order of his own, are a deadlock: the sweep or a rebuild ends."""
    catalogue = make()
    catalogue.add(segment())
    with catalogue._transaction(write=True) as connection:
        connection.execute(sa.text("UPDATE segments SET state = 1"))
        adoption = Thread(target=catalogue.adopt, args=[[segment()]])
        adoption.start()
        adoption.join(20)
        waits = adoption.is_alive()
    adoption.join()
    assert not waits
    assert catalogue.condemned(segment().key_id) == [segment()]


def test_a_catalogue_that_is_up_to_date_is_opened_without_what_makes_it(tmp_path):
    """Every process of a site opens it, and every command that asks it."""
    address = f"sqlite:///{tmp_path}/catalogue.db"
    SqlCatalogue.open(address).close()
    program = (
        "import sys; from videostore.catalogue.sql import SqlCatalogue;"
        f"SqlCatalogue.open({address!r}).close(); sys.exit('alembic' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("make", ["sqlite", "postgresql"], indirect=True)
def test_the_migrations_lead_to_the_tables_of_the_code(make):
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    from videostore.catalogue.tables import METADATA

    with make()._transaction() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_no_question_of_retention_reads_what_is_live(tmp_path):
    """To go through all rows of a state is slow at thirty million: each question has to find its own."""
    few, many = steps(tmp_path / "few.db", live=1_000), steps(tmp_path / "many.db", live=10_000)
    assert {name: count for name, count in many.items() if count > few[name] + 10} == {}
    assert min(few.values()) > 5


ANOTHER_HOUR = """
    WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :live)
    INSERT INTO segments (object_key, camera_id, start_us, end_us, key_start_us,
        key_period_s, key_keep_s, size_bytes, state)
    SELECT 'z' || n, camera_id, start_us + :hour, end_us + :hour, key_start_us + :hour,
        key_period_s, key_keep_s, 1, 0
    FROM segments, numbers
"""


def steps(path, *, live):
    """Return how many steps SQLite takes for each question, with ``live`` rows in the hour that follows."""
    one, counted = segment(), 0

    def count():
        nonlocal counted
        counted += 1

    with closing(SqlCatalogue.open(f"sqlite:///{path}")) as catalogue:
        catalogue.add(one)
        with catalogue._transaction(write=True) as connection:
            connection.execute(sa.text(ANOTHER_HOUR), {"hour": HOUR // MICROSECOND, "live": live})
            connection.connection.driver_connection.set_progress_handler(count, 1)
        questions = {
            "segments": lambda: catalogue.segments([ONE], span(0, 10)),
            "live": lambda: catalogue.live(limit=1),
            "oldest_key": lambda: catalogue.oldest_key(ONE),
            "oldest": catalogue.oldest,
            "leaving": catalogue.leaving,
            "of_hour": lambda: catalogue.of_hour(one.key_id.start),
            "unfinished": catalogue.unfinished,
            "key_ids": lambda: catalogue.key_ids(until=START + 4 * HOUR),
            "condemn": lambda: catalogue.condemn(one.key_id, ONE),
            "condemn all": lambda: catalogue.condemn(one.key_id),
            "cameras": lambda: catalogue.cameras(one.key_id),
            "condemned": lambda: catalogue.condemned(one.key_id, ONE),
            "mark_absent": lambda: catalogue.mark_absent([one.object_key]),
            "absent": lambda: catalogue.absent(one.key_id, ONE),
            "forget": lambda: catalogue.forget([one.object_key]),
        }
        found = {}
        for name, ask in questions.items():
            counted = 0
            ask()
            found[name] = counted
    return found


def test_a_database_that_is_not_there_is_said_in_one_line(tmp_path):
    for url in (
        "postgresql://127.0.0.1:1/none",
        f"sqlite:///{tmp_path}/no/such/file.db",
        "mysql://x",
        "nonsense",
    ):
        with pytest.raises(CatalogueUnavailable) as caught:
            SqlCatalogue.open(url, credentials=("user", "hunter2"))
        assert "\n" not in str(caught.value)
        assert "hunter2" not in str(caught.value)
        assert caught.value.hint


def test_a_forgotten_row_is_overwritten_on_the_disk(tmp_path):
    path = tmp_path / "catalogue.db"
    one = segment()
    with closing(SqlCatalogue.open(f"sqlite:///{path}")) as catalogue:
        catalogue.add(one)
        catalogue.condemn(one.key_id)
        catalogue.mark_absent([one.object_key])
        catalogue.forget([one.object_key])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert one.sha256.encode() not in path.read_bytes()


def test_a_catalogue_is_rebuilt_from_the_objects_alone(catalogue):
    store = MemorySegmentStore()
    rows = [segment(at=at, size=6) for at in (0, 10, 20)]
    for one in rows:
        store.bodies[one.object_key] = b"sealed", START
    store.bodies[ObjectKey("segments/2026-11-24/what.txt")] = b"?", START
    catalogue.add(rows[0])
    told = []
    counts = rebuild(catalogue, store, tell=told.append)
    assert (counts.found, counts.added, counts.strangers) == (3, 2, 1)
    assert (counts.before, counts.after) == (1, 3)
    assert told == [Progress(0, 1, 1)]
    assert catalogue.live() == rows
