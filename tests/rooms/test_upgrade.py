"""A catalogue of every version is taken over whole. tests/released has one of each, never changed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa

from tests.contracts.test_catalogue import fresh_postgresql
from tests.servers import POSTGRESQL_LOGIN
from videostore.catalogue.sql import SqlCatalogue
from videostore.domain.segment import KeyId, Span

RELEASED = sorted((Path(__file__).parents[1] / "released").glob("catalogue-*.sql"))
EVER = Span(datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
CAMERAS = [UUID(int=1), UUID(int=2)]


def in_sqlite(sql, tmp_path, _):
    with closing(sqlite3.connect(tmp_path / "catalogue.db")) as connection:
        connection.executescript(sql)
    return f"sqlite:///{tmp_path}/catalogue.db"


def in_postgresql(sql, _, request):
    url = fresh_postgresql(request.getfixturevalue("postgresql_server"))
    user, password = POSTGRESQL_LOGIN
    engine = sa.create_engine(
        sa.make_url(url).set(drivername="postgresql+psycopg", username=user, password=password)
    )
    with engine.begin() as connection:
        connection.exec_driver_sql(
            sql.replace("object_key VARCHAR(220)", 'object_key VARCHAR(220) COLLATE "C"')
        )
    engine.dispose()
    return url


@pytest.mark.parametrize("put", [in_sqlite, in_postgresql])
@pytest.mark.parametrize("file", RELEASED, ids=lambda file: file.stem)
def test_a_catalogue_of_every_version_is_taken_over_whole(file, put, tmp_path, request):
    url = put(file.read_text(), tmp_path, request)
    for _ in range(2):  # the second time there is nothing to do
        with closing(SqlCatalogue.open(url, credentials=POSTGRESQL_LOGIN)) as catalogue:
            first, second = catalogue.unfinished() + catalogue.key_ids(until=EVER.end)
            assert isinstance(first, KeyId)
            assert first < second
            assert [one.sequence for one in catalogue.segments(CAMERAS, EVER)] == [1, 2, 1, 2]
            assert [one.camera_id for one in catalogue.condemned(first)] == [UUID(int=2)]
            assert [one.camera_id for one in catalogue.absent(first)] == [UUID(int=1)]
            assert len(catalogue.gaps(CAMERAS, EVER)) == 1
            assert catalogue.totals().size_bytes == 2 * (1001 + 1002)


def test_every_migration_has_a_catalogue_that_it_made():
    versions = Path(__file__).parents[2] / "videostore" / "catalogue" / "migrations" / "versions"
    revisions = sorted(path.name[:4] for path in versions.glob("0*.py"))
    assert {path.stem.removeprefix("catalogue-") for path in RELEASED} == set(revisions), (
        "freeze the tables that your migration makes: docs/guide/upgrade.md says how"
    )
