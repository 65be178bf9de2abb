"""The one exception a command ends with when it cannot do what was asked. Surprises stay tracebacks."""

from __future__ import annotations

from typing import Any

from cli.exit_codes import ExitCode


class CliError(Exception):
    """A refusal that tells what to do next.

    ``code`` is a stable word for machines (that of the problem document where the API refused), ``hint`` the next step,
    ``details`` further lines such as the violations of a request.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        exit_code: ExitCode = ExitCode.FAILED,
        code: str = "cli.failed",
        details: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.exit_code = exit_code
        self.code = code
        self.details = details

    def as_json(self) -> dict[str, Any]:
        """The error as the JSON line that `--json` prints."""
        error = {"code": self.code, "message": str(self), "hint": self.hint, "details": list(self.details)}
        return {"error": {name: value for name, value in error.items() if value}}
