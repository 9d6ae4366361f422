"""The database under the catalogue: connecting to it, and bringing its tables up to date.

SQLite (embedded): WAL for readers beside a writer, ``synchronous=FULL`` so that a committed row
survives a power cut, ``secure_delete`` so that a forgotten row is overwritten.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from videostore.catalogue.tables import REVISION
from videostore.domain.errors import CatalogueUnavailable

_PATIENCE_SECONDS = 30
WRITING = "videostore_writing"
"""The option of a connection that says whether its transaction writes."""


def connect(url: str, credentials: tuple[str, str] | None) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        if parsed.drivername == "postgresql":
            user, password = credentials or (None, None)
            parsed = parsed.set(drivername="postgresql+psycopg")
            if credentials:
                parsed = parsed.set(username=user, password=password)
            return sa.create_engine(
                parsed, pool_pre_ping=True, connect_args={"connect_timeout": _PATIENCE_SECONDS // 3}
            )
        engine = sa.create_engine(parsed, connect_args={"timeout": _PATIENCE_SECONDS})
    except (SQLAlchemyError, ImportError, ValueError) as error:
        raise CatalogueUnavailable(
            f"{url!r} is no catalogue: {error}",
            hint="Write sqlite:///PATH or postgresql://HOST/DATABASE; PostgreSQL needs "
            "`pip install 'videostore[postgresql]'`.",
        ) from error
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # BEGIN is ours: see _begin_sqlite
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    """A writer takes its lock at once: a reader that turns writer would fail instead of wait."""
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options()[WRITING] else "BEGIN")


def bring_up_to_date(connection: sa.Connection) -> None:
    """Make or change the tables where they are not those of ``REVISION``. Raises SiteTooNew.

    Alembic is loaded only for that: it costs each process 11 MB and a tenth of a second.
    """
    if sa.inspect(connection).has_table("alembic_version"):
        found = connection.execute(sa.text("SELECT version_num FROM alembic_version"))
        if found.scalars().all() == [REVISION]:
            return
    from videostore.catalogue.migrations import migrate

    migrate(connection)
