"""`./livoa catalog check`: would a host start with this catalog, serve every tenant and have policies to decide by? Offline."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from cli.errors import CliError
from cli.exit_codes import ExitCode
from cli.output import print_json, progress, say
from cli.paths import catalog_folder

if TYPE_CHECKING:
    from cli.catalog_desk import Examined

EXAMPLE = """
  ./livoa catalog check                                 capabilities, playbooks, tenants, policies: every fault and its place
  ./livoa catalog check --catalog ../our-catalog --json

Exit code 0 when a host would start with it and serve every tenant, 1 when not; notes do not count. Needs no host and no token.
A running host takes up changed tenants and policies within seconds, and refuses what depends on broken ones; capabilities and
playbooks it loads at start. What policies decide is tried with: ./livoa policy test
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `catalog`."""
    parser.add_argument("action", choices=["check"], help="what to do")
    parser.add_argument("--catalog", type=Path, help="folder of the catalog (default: LIVOA_CATALOG, else catalog)")


def run(options: argparse.Namespace) -> ExitCode:
    """Check and print."""
    from cli.catalog_desk import examine

    root = options.catalog or catalog_folder()
    if not root.is_dir():
        raise CliError(f"there is no folder {root}", exit_code=ExitCode.USAGE, code="cli.file")
    found = asyncio.run(examine(root))
    if options.json:
        print_json(_as_json(found))
    else:
        _show(found, root)
    return ExitCode.FAILED if found.errors else ExitCode.OK


def _as_json(found: Examined) -> dict[str, object]:
    return {
        "ok": not found.errors,
        "version": found.version,
        "counts": found.counts,
        "not_looked_at": found.not_looked_at,
        "errors": [one.model_dump() for one in found.errors],
        "notes": [one.model_dump() for one in found.notes],
    }


def _show(found: Examined, root: Path) -> None:
    from cli.render.text import clean, counted, one_line

    for mark, findings in (("error", found.errors), ("note", found.notes)):
        for one in findings:
            say(f"{mark}  {clean(one.pointer or '/')}  {clean(one.code)}\n       {one_line(one.message)}")
    for left in found.not_looked_at:
        say(f"not looked at: {left}")
    if found.counts:
        say("  ".join(f"{name.replace('_', ' ')}: {count}" for name, count in found.counts.items()))
    if found.version:
        say(f"version: {found.version}")
    if not found.errors:
        say("ok")
        return
    say(counted(len(found.errors), "error"))
    progress(f"Next: mend what is named, below {root}, and check again")
