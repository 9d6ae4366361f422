"""The database under the catalogue: connecting to it, and bringing its tables up to date.

SQLite (embedded): WAL for readers beside a writer, ``synchronous=FULL`` so that a committed row
survives a power cut, ``secure_delete`` so that a forgotten row is overwritten.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import SQLAlchemyError

from videostore.domain.errors import CatalogueUnavailable, SiteTooNew

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


def migrate(connection: sa.Connection) -> None:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    scripts = ScriptDirectory.from_config(config)
    if connection.dialect.name == "postgresql":  # several roles of a site start at once
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(0x76737472)))
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
        raise SiteTooNew(
            f"the catalogue has the tables of a newer version ({current})",
            hint="Install the version of videostore that made it, or a newer one.",
        )
    if current != scripts.get_current_head():
        command.upgrade(config, "head")
