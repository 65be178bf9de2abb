"""Exit codes of every command, defined once. They are a contract: scripts and CI rely on them, so none changes meaning."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command reports to the shell."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    FORBIDDEN = 4
    TIMEOUT = 5
    INSTALL = 6
    INTERRUPTED = 130


MEANINGS: dict[ExitCode, str] = {
    ExitCode.OK: "done, and the result is good",
    ExitCode.FAILED: "done, but the result is bad: the run did not succeed, a check found something, the API refused",
    ExitCode.USAGE: "wrong usage, or a file that cannot be read",
    ExitCode.UNREACHABLE: "the host cannot be reached, or a process of the stack would not start",
    ExitCode.FORBIDDEN: "no valid token, or one without the role this needs",
    ExitCode.TIMEOUT: "the time allowed ran out; the run itself may still be going on",
    ExitCode.INSTALL: "the launcher could not install what is needed",
    ExitCode.INTERRUPTED: "stopped by Ctrl-C",
}


def exit_code_help() -> str:
    """The table for `--help`."""
    rows = "\n".join(f"  {code.value:>3}  {meaning}" for code, meaning in MEANINGS.items())
    return f"exit codes:\n{rows}"
