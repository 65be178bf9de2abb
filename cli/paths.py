"""Where things are on this machine: the repository, the data folder, the running stack. Creates nothing by itself."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_URL = "http://127.0.0.1:7071"
STACK_FILE = "up.json"


def home(override: str | os.PathLike[str] | None = None) -> Path:
    """The data folder: the option given, else LIVOA_HOME, else `.livoa` in the repository."""
    return Path(override or os.environ.get("LIVOA_HOME") or ROOT / ".livoa").expanduser().resolve()


def catalog_folder() -> Path:
    """The catalog that a host on this machine reads: LIVOA_CATALOG, else that of the repository."""
    return Path(os.environ.get("LIVOA_CATALOG") or ROOT / "catalog")


def known_tenants() -> list[str]:
    """Names of the tenants in that catalog. Empty when it cannot be read."""
    return sorted(path.stem for path in (catalog_folder() / "tenants").glob("*.yaml"))


def running_stack(data: Path) -> dict[str, Any] | None:
    """What `up` wrote about the stack that uses this folder, while its process lives; else None."""
    try:
        stack = json.loads((data / STACK_FILE).read_text(encoding="utf-8"))
        os.kill(int(stack["pid"]), 0)
    except PermissionError:  # the process exists and belongs to somebody else
        return stack if isinstance(stack, dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return stack if isinstance(stack, dict) else None
