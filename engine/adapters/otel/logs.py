"""Structured logs: one JSON object a line, with run and step ids where the caller gave them.

Only the fields listed here are written, so that a stray ``extra`` cannot carry content into a log.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from engine.domain.base import iso_utc

FIELDS = (
    "run_id",
    "step_id",
    "item",
    "attempt",
    "capability",
    "status",
    "code",
    "method",
    "route",
    "duration_ms",
    "incident",
)


class JsonFormatter(logging.Formatter):
    """Time, level, logger, message and the known fields. Exceptions are named by type; their text may hold content."""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON line."""
        line: dict[str, object] = {
            "at": iso_utc(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name in FIELDS if (value := getattr(record, name, None)) is not None}
        if record.exc_info and record.exc_info[0] is not None:
            line["error_type"] = record.exc_info[0].__name__
            line["at_line"] = _place(record.exc_info[2])
        return json.dumps(line, ensure_ascii=False)


def _place(traceback: object) -> str | None:
    last = traceback
    while (following := getattr(last, "tb_next", None)) is not None:
        last = following
    frame = getattr(last, "tb_frame", None)
    if frame is None:
        return None
    return f"{frame.f_globals.get('__name__', '?')}:{getattr(last, 'tb_lineno', '?')}"


def configure_logging(level: str = "INFO") -> None:
    """Give the project's own loggers this format, once. Other libraries keep theirs."""
    logger = logging.getLogger("livoa")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(JsonFormatter())
        logger.addHandler(handler)
        logger.propagate = False
    logger.setLevel(level)
