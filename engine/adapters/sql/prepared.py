"""Statements of the stores' hot path: rendered once, and handed to SQLite's driver without SQLAlchemy in between.

What SQLAlchemy does for each execution of a statement (cache key, look-up of the compiled form, contexts, results, processors)
costs three to five times what SQLite needs to carry it out, and a step is some thirty-five executions. The text is still
SQLAlchemy's, of the same tables, so the dialects cannot drift apart; on PostgreSQL SQLAlchemy carries it out as before.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Executable, Insert, Integer, Select, String, Update
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect

_NAMED = sqlite_dialect(paramstyle="named")
Parameters = Mapping[str, Any]


class Prepared:
    """A select, an insert of whole rows, or an update, whose values are all bound by name and need no conversion.

    Errors are the driver's on SQLite (``sqlite3.Error``) and SQLAlchemy's elsewhere; ``Database`` understands both. Raises
    ``TypeError`` when made from a statement whose text depends on its parameters (a list in ``IN``), or with typed conversions.
    """

    def __init__(self, statement: Select[Any] | Insert | Update) -> None:
        self._statement: Executable = statement
        compiled: Any = statement.compile(dialect=_NAMED)
        read = statement.selected_columns if isinstance(statement, Select) else ()
        plain = all(isinstance(each.type, String | Integer) for each in (*compiled.binds.values(), *read))
        if compiled.post_compile_params or compiled.literal_execute_params or not plain:
            raise TypeError("a prepared statement has one text, and texts and integers for parameters and columns")
        self.text = str(compiled)
        self._fixed = {name: value for name, value in compiled.params.items() if value is not None}
        self._row: Any = namedtuple("_row", [each.key for each in read])  # type: ignore[misc]

    def all(self, connection: Connection, parameters: Parameters) -> Sequence[Any]:
        """Every row; columns by attribute."""
        if _is_sqlite(connection):
            return [self._row._make(row) for row in self._execute(connection, parameters).fetchall()]
        return connection.execute(self._statement, parameters).all()

    def first(self, connection: Connection, parameters: Parameters) -> Any:
        """The first row, or None. For statements that find one row at most."""
        if _is_sqlite(connection):
            row = self._execute(connection, parameters).fetchone()
            return self._row._make(row) if row is not None else None
        return connection.execute(self._statement, parameters).first()

    def scalar(self, connection: Connection, parameters: Parameters) -> Any:
        """The first column of the first row, or None."""
        row = self.first(connection, parameters)
        return row[0] if row is not None else None

    def run(self, connection: Connection, parameters: Parameters) -> int:
        """Carry out an insert or update; how many rows it touched."""
        if _is_sqlite(connection):
            touched: int = self._execute(connection, parameters).rowcount
            return touched
        return connection.execute(self._statement, parameters).rowcount

    def run_each(self, connection: Connection, rows: Iterable[Parameters]) -> None:
        """Carry it out for each of ``rows``."""
        for row in rows:
            self.run(connection, row)

    def _execute(self, connection: Connection, parameters: Parameters) -> Any:
        driver: Any = connection.connection.driver_connection
        return driver.execute(self.text, {**self._fixed, **parameters} if self._fixed else parameters)


def _is_sqlite(connection: Connection) -> bool:
    return connection.dialect.name == "sqlite"
