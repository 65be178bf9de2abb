"""Make sure that a folder can hold a stack's state before anything is started on it, and say so in words where it cannot."""

from __future__ import annotations

import tempfile
from pathlib import Path

from cli.errors import CliError
from cli.exit_codes import ExitCode


def usable(data: Path) -> Path:
    """``data``, made where it is missing (for this user only: it holds keys and content) and tried by writing to it.

    Raises CliError (USAGE) for a file in its place, a folder without the right to write or a read-only file system.
    """
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=data):
            return data
    except OSError as err:
        reason = "there is a file of that name" if isinstance(err, FileExistsError) else err.strerror or str(err)
        raise CliError(
            f"cannot use {data} as data folder: {reason}",
            hint="name a folder you may write to with --data or LIVOA_HOME",
            exit_code=ExitCode.USAGE,
            code="cli.data_folder",
        ) from err
