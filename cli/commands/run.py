"""`./livoa run`: submit an intent, follow it, show the answer."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from cli.connection import add_options, connect
from cli.errors import CliError
from cli.exit_codes import ExitCode
from cli.output import human_console, print_json, progress
from cli.run_state import SUCCESS, result_of

EXAMPLE = """
  ./livoa run "Why did paid-search ROI fall in Q3 2026 and how should the Q4 budget move?"
  ./livoa run "Compare Q3 with Q2" --value quarter_start='"2026-07-01"' --document brief=notes.txt --json
  ./livoa run "Check the rates" --plan my-plan.json --no-wait
"""


INTENT_HELP = "what you want to know or have done, in your own words; - reads standard input"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `run`."""
    parser.add_argument("intent", help=INTENT_HELP)
    add_request_options(parser)
    parser.add_argument("--plan", type=Path, metavar="FILE", help="bring your own plan instead of having one made")
    parser.add_argument("--idempotency-key", metavar="KEY", help="the same key and request lead to the same run")
    parser.add_argument("--no-wait", action="store_true", help="print where to look, and leave")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="stop watching after this; the run goes on")
    add_options(parser)


def add_request_options(parser: argparse.ArgumentParser) -> None:
    """What a request says beside its intent."""
    parser.add_argument("--goal", action="append", default=[], help="a goal the answer must serve; repeatable")
    parser.add_argument("--value", action="append", default=[], metavar="NAME=JSON",
                        help="a fact for the context; text that is not JSON is taken as a string; repeatable")  # fmt: skip
    parser.add_argument("--document", action="append", default=[], metavar="NAME=FILE",
                        help="a text for the context (untrusted by the engine); repeatable")  # fmt: skip
    parser.add_argument("--max-steps", type=int, help="at most so many steps")
    parser.add_argument("--deadline", type=float, metavar="SECONDS", help="the run ends after this, done or not")


def run(options: argparse.Namespace) -> ExitCode:
    """Submit, follow, show."""
    api = connect(options)
    request = request_of(options)
    started = time.monotonic()
    accepted = api.submit(request, options.idempotency_key)
    run_id = accepted["run_id"]
    if options.no_wait:
        if options.json:
            print_json(accepted)
        else:
            sys.stdout.write(f"{run_id}\n")
            progress(f"Next: ./livoa events {run_id} --follow{api.again}    ./livoa show {run_id}{api.again}")
        return ExitCode.OK
    progress(f"run {run_id}")
    deadline = None if options.timeout is None else started + options.timeout
    try:
        return finish(api, run_id, started, deadline=deadline, as_json=options.json)[1]
    except KeyboardInterrupt as err:
        raise CliError(
            f"interrupted; the run goes on without us ({run_id})",
            hint=f"./livoa events {run_id} --follow{api.again}, or ./livoa cancel {run_id}{api.again}",
            exit_code=ExitCode.INTERRUPTED,
            code="cli.interrupted",
        ) from err


def finish(
    api: Any, run_id: str, started: float, *, deadline: float | None, as_json: bool, on_event: Any = lambda event: None
) -> tuple[dict[str, Any], ExitCode]:
    """Follow a submitted run to its end and print its result; returns the result and the exit code."""
    from cli.watch import watch_run

    watch_run(api, run_id, deadline=deadline, on_event=on_event)
    view, steps = api.run(run_id), api.steps(run_id)
    result = result_of(view, steps, time.monotonic() - started)
    if as_json:
        print_json(result)
    else:
        show_answer(view, steps, result["seconds"])
    return result, ExitCode.OK if view["status"] == SUCCESS else ExitCode.FAILED


def show_answer(view: dict[str, Any], steps: list[dict[str, Any]], seconds: float | None = None) -> None:
    """The answer, and what went wrong in full, on stdout; how the run ended on stderr."""
    from cli.render.text import failure_lines
    from cli.render.views import answer_panel

    console = human_console()
    if view.get("answer"):
        console.print(answer_panel(view["answer"]))
    for line in failure_lines(view, steps):
        # a pipe gets each reason on one line, whatever its length; a terminal wraps
        console.print(line, markup=False, style="red", soft_wrap=not console.is_terminal)
    took = f" in {seconds:.1f} s" if seconds is not None else ""
    progress(f"{view['status']}{took}    {view['run_id']}")


def request_of(options: argparse.Namespace) -> dict[str, Any]:
    """The request body. Raises CliError (USAGE) for a file or a value that cannot be read."""
    intent = sys.stdin.read() if options.intent == "-" else options.intent
    request: dict[str, Any] = {"intent": intent}
    values = dict(_pair(text, "--value", "NAME=JSON") for text in options.value)
    documents = [_pair(text, "--document", "NAME=FILE") for text in options.document]
    context: dict[str, Any] = {}
    if values:
        context["values"] = {name: _json_or_text(text) for name, text in values.items()}
    if documents:
        context["documents"] = [{"name": name, "text": read_text(Path(path))} for name, path in documents]
    constraints = {"max_steps": options.max_steps, "deadline_s": options.deadline}
    given = {name: value for name, value in constraints.items() if value is not None}
    request |= {"goals": options.goal} if options.goal else {}
    request |= {"context": context} if context else {}
    request |= {"constraints": given} if given else {}
    if getattr(options, "plan", None) is not None:
        request["plan"] = _read_plan(options.plan)
    return request


def _pair(text: str, option: str, shape: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise CliError(f"{option} {text!r} is not {shape}", exit_code=ExitCode.USAGE, code="cli.usage")
    return name, value


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def read_text(path: Path) -> str:
    """The text of a file. Raises CliError (USAGE)."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        reason = getattr(err, "strerror", None) or "it is not UTF-8 text"
        raise CliError(f"cannot read {path}: {reason}", exit_code=ExitCode.USAGE, code="cli.file") from err


def _read_plan(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except ValueError as err:
        raise CliError(
            f"{path} is not JSON: {err}", hint=f"./livoa plan check {path}", exit_code=ExitCode.USAGE, code="cli.file"
        ) from err
