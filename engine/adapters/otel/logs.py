"""Structured logs: one JSON object a line, with run and step ids where the caller gave them.

Only the fields listed here are written, so that a stray ``extra`` cannot carry content into a log; whatever text is
left is masked.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from engine.domain.base import iso_utc
from engine.domain.masking import mask

FIELDS = (
    "tenant_id",
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
    "queue",
    "worker",
)


_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_ERROR_FIELDS = ("error_type", "at_line")


def confine(record: logging.LogRecord) -> bool:
    """Take out of a record what must not leave the process: unknown fields, everything of an exception but type and
    place, and what has the form of a secret or of personal data in the texts that are left.

    A filter for every handler of the project's loggers, because exporters write the whole record and not a formatted line.
    """
    if record.exc_info and record.exc_info[0] is not None:
        record.error_type = record.exc_info[0].__name__
        record.at_line = _place(record.exc_info[2])
    record.exc_info = record.exc_text = None
    for name in record.__dict__.keys() - _STANDARD - {*FIELDS, *_ERROR_FIELDS}:
        del record.__dict__[name]
    record.msg, record.args = mask(record.getMessage()), None
    for name in FIELDS:
        if isinstance(value := record.__dict__.get(name), str):
            record.__dict__[name] = mask(value)
    return True


class JsonFormatter(logging.Formatter):
    """Time, level, logger, message and the known fields. Exceptions are named by type; their text may hold content."""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON line."""
        confine(record)
        line: dict[str, object] = {
            "at": iso_utc(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        known = (*FIELDS, *_ERROR_FIELDS)
        line |= {name: value for name in known if (value := getattr(record, name, None)) is not None}
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
