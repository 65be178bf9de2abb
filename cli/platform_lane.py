"""The environment in which the app meets the engine that Azure runs on Python 3.13 (`azure-functions-runtime`).

Deliberately a second environment: that engine asks for azure-functions 2.x, which Python 3.11 and 3.12 do not get.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from cli.paths import ROOT
from cli.stages import Stage


def find_python_3_13() -> str | None:
    """A Python 3.13 that runs: LIVOA_TEST_PY313, `python3.13`, or one of pyenv's. None where there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    guesses = [os.environ.get("LIVOA_TEST_PY313"), shutil.which("python3.13")]
    guesses += [str(path) for path in sorted(pyenv.glob("versions/3.13.*/bin/python"), reverse=True)]
    return next((path for path in guesses if path and _is_3_13(path)), None)


def _is_3_13(path: str) -> bool:
    code = "import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 13))"
    try:  # a pyenv shim exists and refuses, so only running it tells
        return subprocess.run([path, "-I", "-c", code], capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def prepare_environment(python: str) -> Stage:
    """The stage that brings `.venv-platform` to its pins; the launcher does it, with its lock, stamp and repair."""
    return Stage(
        "platform-env",
        [sys.executable, str(ROOT / "livoa"), "--livoa-install", "platform"],
        timeout_s=900,
        environment={"LIVOA_PYTHON": python, "LIVOA_VENV": ".venv-platform"},
    )
