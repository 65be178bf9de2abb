"""`./livoa demo --three-ways`: one intent with a model, with the fallback model alone, and without any; who did what is shown.

The models are the scripted provider of the tests (`tests/support/model_server`): it speaks the OpenAI wire format and says what
a script says. Everything else is the product as it is.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.client import Api
from cli.errors import CliError
from cli.exit_codes import ExitCode
from cli.output import print_json, progress, say
from cli.paths import ROOT
from cli.run_state import result_of

SCRIPT = ROOT / "tests" / "support" / "model_server" / "scripts" / "demo.py"
MODEL, FALLBACK = "gpt-4o", "qwen2.5-7b-instruct"
_START_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Way:
    """One way to run: what it is called, and the models there are."""

    title: str
    model: str | None = None
    fallback: str | None = None

    def arguments(self, url: str) -> list[str]:
        """The options of `up`."""
        given = ("--model-endpoint", url, "--model", self.model) if self.model else ()
        rest = ("--fallback-endpoint", url, "--fallback-model", self.fallback) if self.fallback else ()
        return [part for part in (*given, *rest) if part]


WAYS = (
    Way("with a model", MODEL, FALLBACK),
    Way("the model is down, the open-weight fallback answers", f"{MODEL}-down", FALLBACK),
    Way("without any model"),
)


def run(options: argparse.Namespace, intent: str, folder: Path) -> ExitCode:
    """Run the three ways one after the other and print (as text or one JSON line) who planned and who wrote."""
    progress(
        "the models are a scripted server on this machine, no model is asked; everything else is the product as it is"
    )
    with scripted_provider(folder) as url:
        results = [_one(options, way, intent, folder / f"way-{number}", url) for number, way in enumerate(WAYS, 1)]
    if options.json:
        print_json({"intent": intent, "ways": results})
    else:
        for line in lines_of(results):
            say(line)
    good = all(result["status"] == "succeeded" for result in results)
    return ExitCode.OK if good else ExitCode.FAILED


def _one(options: argparse.Namespace, way: Way, intent: str, data: Path, url: str) -> dict[str, Any]:
    from cli.connection import renewing
    from cli.stack.process import StackProcess
    from cli.tokens import bearer_for
    from cli.watch import watch_run

    progress(f"{way.title}: starting the host and the sample agents (logs: {data / 'logs'})")
    started = time.monotonic()
    with StackProcess(data, arguments=way.arguments(url)) as stack:
        api = Api(stack.url, renewing(lambda: bearer_for(stack.url, data, options.tenant, None)))
        submitted = time.monotonic()
        run_id = api.submit({"intent": intent})["run_id"]
        watch_run(api, run_id, deadline=started + options.timeout)
        result = result_of(api.run(run_id), api.steps(run_id), time.monotonic() - submitted)
    return {"way": way.title} | summary_of(result)


def summary_of(result: dict[str, Any]) -> dict[str, Any]:
    """Who routed, planned and wrote, out of a run's result."""
    planner, answer = result.get("planner") or {}, result.get("answer") or {}
    return {
        "run_id": result["run_id"],
        "status": result["status"],
        "degraded": result["degraded"],
        "router": planner.get("router"),
        "passed_over": list(planner.get("fallbacks") or ()),
        "planner": planner.get("model") or f"playbook {planner.get('playbook')}",
        "steps": len(result["steps"]),
        "writer": answer.get("model") or "rules, no model",
        "unsupported_figures": len(answer.get("unsupported_figures") or ()),
        "seconds": result["seconds"],
    }


def lines_of(results: list[dict[str, Any]]) -> list[str]:
    """Who did what on each way, in lines that fit a narrow terminal."""
    from cli.render.text import clean, one_line

    lines = ["one intent, three ways (scripted models)"]
    for result in results:
        status = result["status"] + (", degraded" if result["degraded"] else "")
        lines += [
            f"{result['way']}: {clean(status)}, {result['steps']} steps, {result['seconds']:.1f} s",
            f"  routed by   {clean(result['router'] or '-')}",
            *(f"              after {one_line(passed)}" for passed in result["passed_over"]),
            f"  planned by  {clean(result['planner'])}",
            f"  written by  {clean(result['writer'])}",
        ]
    return lines


@contextlib.contextmanager
def scripted_provider(folder: Path) -> Iterator[str]:
    """The scripted model provider as a process; its base URL."""
    from cli.stack.lifeline import die_with_parent, guarded_command

    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    command = [sys.executable, "-m", "tests.support.model_server", "--script", str(SCRIPT), "--port", "0", "--json"]
    with (folder / "models.log").open("ab") as log:
        process = subprocess.Popen(
            guarded_command(command),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            preexec_fn=die_with_parent(),
        )
    try:
        yield _url_of(process, folder / "models.log")
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _url_of(process: subprocess.Popen[bytes], log: Path) -> str:
    assert process.stdout is not None
    deadline, line = time.monotonic() + _START_TIMEOUT_S, b""
    while not line.endswith(b"\n"):
        readable, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        chunk = os.read(process.stdout.fileno(), 4_096) if readable else b""
        if not chunk:
            raise CliError(
                "the scripted model provider did not start",
                hint=f"read {log}",
                exit_code=ExitCode.UNREACHABLE,
                code="demo.models_not_started",
            )
        line += chunk
    return str(json.loads(line)["url"])
