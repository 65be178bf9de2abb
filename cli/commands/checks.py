"""`./livoa test`: lint, format, types, layers, tests, and the lane on the platform's own engine.

The cheap checks run beside each other; tests have the machine for themselves. Deliberately a list of commands that one
can also type: nothing is checked here that a developer could not run alone.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import signal
import sys
import time
from collections.abc import Sequence

from cli.errors import CliError
from cli.exit_codes import ExitCode
from cli.output import print_json, progress
from cli.paths import ROOT
from cli.stages import Stage, StageResult, run_stage, stop_running

EXAMPLE = """
  ./livoa test                          all of it, in under five minutes
  ./livoa test --only lint --only types
  ./livoa test --only unit -- -k scheduler -x
"""

PACKAGES = (
    "triggers", "orchestrators", "entities", "activities", "planner_graph", "policy", "engine",
    "local_host", "bus_worker", "agent_kit", "sample_agents", "cli", "function_app.py", "livoa",
)  # fmt: skip
STATIC = ("lint", "format", "types", "layers")
FOLDERS = ("unit", "contract", "integration", "replay", "e2e", "chaos", "perf")
STAGES = (*STATIC, "tests", *FOLDERS, "platform")


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `test`."""
    parser.add_argument("--thorough", action="store_true", help="also what is marked thorough (up to 45 minutes)")
    parser.add_argument("--only", action="append", choices=STAGES, metavar="STAGE",
                        help=f"run only this; repeatable: {', '.join(STAGES)}")  # fmt: skip
    parser.add_argument("pytest_args", nargs="*", metavar="-- PYTEST ARGS", help="handed to pytest")


def run(options: argparse.Namespace) -> ExitCode:
    """Run the stages and print how each went."""
    wanted = options.only or ["lint", "format", "types", "layers", "tests", "platform"]
    if options.pytest_args and not set(wanted) - set(STATIC):
        raise CliError("pytest arguments without a test stage", hint="add --only unit", exit_code=ExitCode.USAGE)
    started = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # CI stops us this way; the stages must not stay
    try:
        results = _run_all(wanted, options)
    except KeyboardInterrupt:
        stop_running()
        raise
    seconds = time.monotonic() - started
    if options.json:
        print_json(_as_json(results, seconds))
    else:
        progress(_table(results, seconds))
    return ExitCode.FAILED if any(result.failed for result in results) else ExitCode.OK


def _run_all(wanted: Sequence[str], options: argparse.Namespace) -> list[StageResult]:
    lane = _platform_lane() if "platform" in wanted else []
    beside = [stage for stage in _static_stages() if stage.name in wanted] + lane[:-1]
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        try:
            results = list(pool.map(lambda stage: run_stage(stage, ROOT), beside))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            stop_running()  # here, because leaving the pool waits for its threads
            raise
    folders = [name for name in ("tests", *FOLDERS) if name in wanted]
    if folders:
        results.append(run_stage(_test_stage(folders, options.thorough, options.pytest_args), ROOT))
    if lane and not any(result.failed for result in results if result.name == lane[0].name):
        results.append(run_stage(lane[-1], ROOT))
    return results


def _static_stages() -> list[Stage]:
    python = [sys.executable, "-m"]
    ours = [name for name in PACKAGES if (ROOT / name).exists()]
    return [
        Stage("types", [*python, "mypy", "--strict", *ours], timeout_s=300),  # the longest first
        Stage("lint", [*python, "ruff", "check", "--output-format", "concise", ".", "livoa"], timeout_s=120),
        Stage("format", [*python, "ruff", "format", "--check", "--output-format", "concise", ".", "livoa"], timeout_s=120),
        Stage("layers", [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
              timeout_s=120, environment={"PYTHONPATH": str(ROOT)}),
    ]  # fmt: skip


def _test_stage(folders: Sequence[str], thorough: bool, extra: Sequence[str]) -> Stage:
    missing = [name for name in folders if name != "tests" and not (ROOT / "tests" / name).is_dir()]
    paths = ["tests" if name == "tests" else f"tests/{name}" for name in folders if name not in missing]
    name = "+".join(folders)
    if not paths:
        return Stage(name, (), 0, skip="no such folder under tests/ yet")
    if any(not word.startswith("-") and (ROOT / word.split("::")[0]).exists() for word in extra):
        paths = []  # the caller names the files
    marks = "not platform" if thorough else "not platform and not thorough"
    color = ["--color=yes"] if sys.stderr.isatty() else []
    processes = min((os.cpu_count() or 1) + 1, 6)  # tests of whole stacks wait a third of their time
    pytest = [sys.executable, "-m", "pytest", "-q", f"-n{processes}"]
    command = [*pytest, "-m", marks, "--ignore=tests/platform", *color, *paths]
    return Stage(name, [*command, *extra], timeout_s=75 * 60 if thorough else 25 * 60, streamed=True)


def _platform_lane() -> list[Stage]:
    """The tests on azure-functions-runtime, and before them their environment. One skipped stage where it cannot be had."""
    from cli.platform_lane import find_python_3_13, prepare_environment

    if not (ROOT / "tests" / "platform").is_dir():
        return [Stage("platform", (), 0, skip="there is no tests/platform")]
    python = find_python_3_13()
    if python is None:
        return [Stage("platform", (), 0, skip="no Python 3.13 here; set LIVOA_TEST_PY313 to one")]
    command = [
        str(ROOT / ".venv-platform" / "bin" / "python"),
        "-m",
        "pytest",
        "-q",
        "-m",
        "platform",
        "tests/platform",
    ]
    environment = {"LIVOA_TEST_PY313": python, "VIRTUAL_ENV": os.fspath(ROOT / ".venv-platform")}
    lane = Stage("platform", command, timeout_s=600, streamed=True, environment=environment)
    return [prepare_environment(python), lane]


def _as_json(results: Sequence[StageResult], seconds: float) -> dict[str, object]:
    stages = [
        {"name": r.name, "status": r.status, "exit_code": r.exit_code, "seconds": round(r.seconds, 1), "note": r.note}
        for r in results
    ]
    return {"ok": not any(r.failed for r in results), "stages": stages, "seconds": round(seconds, 1)}


def _table(results: Sequence[StageResult], seconds: float) -> str:
    width = max((len(r.name) for r in results), default=0)
    rows = [f"  {r.name:<{width}}  {r.status:<7}  {r.seconds:6.1f} s  {r.note[:120]}" for r in results]
    failed = [r.name for r in results if r.failed]
    verdict = f"FAILED: {', '.join(failed)}" if failed else "all stages passed"
    return "\n".join(["", *rows, f"\n{verdict} in {seconds:.0f} s"])
