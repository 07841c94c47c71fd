"""Where Postgres is: an embedded server under the store, or the one that TENOR_DATABASE_URL names."""

import os
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

import psycopg2  # type: ignore[import-untyped]
from psycopg2 import sql

from resources.postgres import DatabaseError, Postgres, server

NAMES = ("dagster", "optuna", "vectors")
URL_VARIABLE = "TENOR_DATABASE_URL"


class Database:
    """One place for Dagster's instance, Optuna's studies and the vectors; none sees another's tables.

    On the embedded server each has a database of its own; on a server that the user runs each has a schema in
    the one database that TENOR_DATABASE_URL names. The embedded server starts when it is first needed.
    """

    def __init__(self, root: Path | str) -> None:
        """`root`: the store's folder. TENOR_DATABASE_URL is read here; DatabaseError if it is malformed."""
        self._root = Path(root).resolve()
        given = os.environ.get(URL_VARIABLE)
        self._external = _External(given) if given else None

    @property
    def embedded(self) -> bool:
        return self._external is None

    @property
    def begun(self) -> bool:
        """Whether there is a database already: looking at a store that has none must not make one."""
        return not self.embedded or (self._root / "postgres" / "data").exists()

    def url(self, name: str) -> str:
        """`postgresql://…` URL for libpq clients; `name`: one of NAMES. May hold a password: never log it."""
        if name not in NAMES:
            raise ValueError(f"no database is named {name!r}: choose one of {', '.join(NAMES)}")
        self.ensure()
        return self._external.url(name) if self._external else self._server().url(name)

    def sqlalchemy_url(self, name: str) -> str:
        """The same for SQLAlchemy, which would read the bare form as psycopg 3."""
        return self.url(name).replace("postgresql://", "postgresql+psycopg2://", 1)

    def ensure(self) -> None:
        """Return when the database answers, (re)starting the embedded server; DatabaseError if it cannot."""
        if self._external:
            self._external.ensure()
        else:
            self._server().ensure()

    def release(self) -> None:
        """Stop using the embedded server before this process ends; the last one out stops it."""
        if not self._external:
            self._server().release()

    def retire(self) -> None:
        """Stop the embedded server so that the store can be deleted; DatabaseError while others use it."""
        if not self._external:
            self._server().retire()

    def __repr__(self) -> str:
        return f"Database({self._external.place if self._external else self._root / 'postgres'})"

    def _server(self) -> Postgres:
        return server(self._root / "postgres", NAMES)


class _External:
    """A server that the user runs, with a schema for each of NAMES."""

    def __init__(self, given: str) -> None:
        self._parts = _split(given)
        self._query = dict(parse_qsl(self._parts.query))
        host = self._parts.hostname or self._query.get("host", "localhost")
        port = self._parts.port or self._query.get("port", 5432)
        self.place = f"host {host}, port {port}, database {self._parts.path.lstrip('/') or self._parts.username}"
        self._ready = False

    def url(self, name: str) -> str:
        # `public` only for the vectors, whose type lives there: Dagster and Optuna both keep an
        # `alembic_version` table, and would find a stranger's.
        path = f"{name},public" if name == "vectors" else name
        query = self._query | {"options": f"{self._query.get('options', '')} -csearch_path={path}".strip()}
        return urlunsplit(self._parts._replace(query=urlencode(query, quote_via=quote)))

    def ensure(self) -> None:
        if self._ready:
            return
        try:
            connection = psycopg2.connect(urlunsplit(self._parts), connect_timeout=10)
        except psycopg2.OperationalError as error:
            said = str(error).strip()
            for secret in filter(None, (self._parts.password, unquote(self._parts.password or ""))):
                said = said.replace(secret, "***")
            # `from None`: the chained error's frames hold the URL with its password.
            raise DatabaseError(
                f"{URL_VARIABLE}: no connection to {self.place}: {said}\nCheck that the server runs and lets "
                f"this user in, or unset {URL_VARIABLE} to use the embedded database"
            ) from None
        with closing(connection), connection, connection.cursor() as cursor:
            self._create_schemas(cursor)
        self._ready = True

    def _create_schemas(self, cursor: Any) -> None:
        # IF NOT EXISTS is not enough: it fails when two do it at once, and for a user who may not create any
        # even where an administrator has.
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('tenor schemas'))")
        cursor.execute("SELECT nspname FROM pg_namespace")
        there = {name for (name,) in cursor}
        try:
            for name in NAMES:
                if name not in there:
                    cursor.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        except psycopg2.errors.InsufficientPrivilege as error:
            raise DatabaseError(
                f"{URL_VARIABLE}: this user may not create schemas in {self.place}: let an administrator "
                f"create {', '.join(NAMES)} for this user, or grant CREATE on the database"
            ) from error


def _split(given: str) -> SplitResult:
    """The URL's parts; DatabaseError, without quoting what may be a password, if it is none of Postgres."""
    try:
        parts = urlsplit(given.replace("postgresql+psycopg2://", "postgresql://", 1))
        _ = parts.port  # raises when it is no number
        good = parts.scheme in ("postgresql", "postgres")
    except ValueError:
        good = False
    if not good:
        raise DatabaseError(
            f"{URL_VARIABLE} is not of the form postgresql://user:password@host:5432/database "
            "(write special characters in the password as %XX)"
        ) from None
    return parts._replace(scheme="postgresql")
