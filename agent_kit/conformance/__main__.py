"""``python -m agent_kit.conformance URL --keys FOLDER``: check an agent.

Exit codes: 0 when it keeps the contract, 1 when not, 2 for wrong usage, 3 when nothing answers there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from agent_kit.conformance.report import words
from agent_kit.conformance.suite import Target, UnreachableError, check_agent
from engine.domain.egress import EgressRefusedError
from engine.domain.execute import EXECUTE_AUDIENCE


def main(arguments: list[str] | None = None) -> int:
    """Check, print, and say by the exit code how it went."""
    options = _parser().parse_args(arguments)
    try:
        report = asyncio.run(check_agent(_target(options)))
    except (OSError, ValueError, EgressRefusedError) as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    except UnreachableError as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 3
    print(json.dumps(report.as_json()) if options.json else words(report))
    return 0 if report.ok else 1


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m agent_kit.conformance", description="Check an agent.")
    found.add_argument("url", help="base address of the agent")
    found.add_argument("--keys", type=Path, required=True, help="folder of the authority that the agent trusts")
    found.add_argument("--capability", help="the one to call (default: the first without effects)")
    found.add_argument("--inputs", type=Path, help="JSON file with inputs for it (default: made from its schema)")
    found.add_argument("--tenant", default="conformance", help="in whose name it is called (conformance)")
    audience = f"audience of tokens and grants ({EXECUTE_AUDIENCE})"
    found.add_argument("--audience", default=EXECUTE_AUDIENCE, help=audience)
    found.add_argument("--timeout-s", type=float, default=30.0, help="patience with each exchange (30)")
    found.add_argument("--json", action="store_true", help="print one JSON document")
    return found


def _target(options: argparse.Namespace) -> Target:
    inputs = json.loads(options.inputs.read_text(encoding="utf-8")) if options.inputs is not None else None
    if inputs is not None and not isinstance(inputs, dict):
        raise ValueError(f"{options.inputs}: inputs are one JSON object")
    named = options.url, options.keys, options.capability
    return Target(*named, inputs, options.audience, options.timeout_s, options.tenant)


if __name__ == "__main__":
    sys.exit(main())
