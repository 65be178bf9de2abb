"""Errors the host shows to its operator: a stable code, a sentence, and where the fault is.

Not for errors of the hosted app's functions; those are `invocation.FunctionError` and never leave the host's log.
"""

from __future__ import annotations


class HostError(Exception):
    """The host cannot start or carry on.

    `code` is stable (`host.app_import_failed`), `message` says what is wrong and what to do next, `where` names the
    file, function or setting at fault.
    """

    def __init__(self, code: str, message: str, where: str = "") -> None:
        super().__init__(f"{code}: {message}" + (f" (at {where})" if where else ""))
        self.code = code
        self.message = message
        self.where = where
