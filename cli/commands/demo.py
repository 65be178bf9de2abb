"""`./livoa demo`: the whole way once, as a stranger would go it: start the stack, submit an intent over HTTP, watch, answer.

It is an ordinary client of an ordinary stack (`up` in a process of its own); nothing here is a special path. It leaves
nothing running, whatever happens to it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import time
from pathlib import Path

from cli.client import Api
from cli.crashes import Crash, WorkerCrash
from cli.data_folder import usable
from cli.errors import CliError
from cli.exit_codes import ExitCode
from cli.output import print_json, progress
from cli.paths import home, running_stack
from cli.run_state import result_of
from cli.stack.models import add_model_options, as_typed, model_arguments, model_environment

EXAMPLE = """
  ./livoa demo
  ./livoa demo --json        {"run_id": …, "status": "succeeded", "degraded": true, "plan_hash": …, "steps": […], …}
  ./livoa demo --crash       kills the host in the middle of the run (kill -9) and shows the run finish all the same
  ./livoa demo --crash-worker   kills the worker while it has a step; the step is carried out again, once
  ./livoa demo --three-ways  the same intent with a model, with the open-weight fallback, and with none: who planned, who wrote
"""

INTENTS = {
    "contoso": "Why did paid-search ROI fall in Q3 2026 and how should the Q4 budget move?",
    "fabrikam": "What changed in our marketing performance in Q3 2026?",  # this tenant has no mix model enabled
}
NEXT_INTENT = "Which channels brought the most sales in Q3 2026?"
KEPT_DEMOS = 3


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `demo`."""
    parser.add_argument("intent", nargs="?", help=f"what to ask ({INTENTS['contoso']})")
    parser.add_argument("--data", type=Path, help="data folder (default: a fresh one below LIVOA_HOME/demos)")
    parser.add_argument("--tenant", default="contoso", choices=sorted(INTENTS), help="sample tenant (contoso)")
    parser.add_argument("--crash", action="store_true", help="kill -9 the host once the first step is done")
    parser.add_argument("--crash-worker", action="store_true", help="kill -9 the worker once it has a step")
    parser.add_argument("--timeout", type=float, default=180.0, metavar="SECONDS", help="give up after this (180)")
    parser.add_argument(
        "--three-ways",
        action="store_true",
        help="with a scripted model, with its fallback alone, and without any model",
    )
    add_model_options(parser)


def run(options: argparse.Namespace) -> ExitCode:
    """Start, submit, watch, show, stop."""
    from cli.stack.process import StackProcess

    signal.signal(signal.SIGTERM, _interrupt)
    started = time.monotonic()
    model_environment(options)  # so that wrong options are said before anything is made
    data = usable(_data_folder(options.data))
    if options.three_ways:
        from cli.commands import three_ways

        return three_ways.run(options, options.intent or INTENTS[options.tenant], data)
    progress(f"starting the host, the sample agents and a worker (logs: {data / 'logs'})")
    with StackProcess(data, arguments=model_arguments(options)) as stack:
        progress(f"{stack.url} is up after {time.monotonic() - started:.1f} s")
        code, run_id = _one_run(options, stack.url, data, started)
    if not options.json:
        _say_next(
            run_id,
            same_options(data, options.tenant),
            is_short=options.crash or options.crash_worker,
            models=as_typed(options),
        )
    return code


def _interrupt(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(f"signal {number}")  # so that the stack is stopped on the way out


def _one_run(options: argparse.Namespace, url: str, data: Path, started: float) -> tuple[ExitCode, str]:
    from cli.commands.run import show_answer
    from cli.connection import renewing
    from cli.tokens import bearer_for
    from cli.watch import watch_run

    api = Api(url, renewing(lambda: bearer_for(url, data, options.tenant, None)))
    submitted = time.monotonic()
    intent = options.intent or INTENTS[options.tenant]
    progress(f"asking: {intent}")
    run_id = api.submit({"intent": intent})["run_id"]
    crash = Crash(data) if options.crash else WorkerCrash(data) if options.crash_worker else None
    try:
        state = watch_run(
            api, run_id, deadline=started + options.timeout, on_event=crash.see if crash else lambda event: None
        )
    except CliError as err:
        raise _out_of_time(err, options, data) from err
    view, steps = api.run(run_id), api.steps(run_id)
    result = result_of(view, steps, time.monotonic() - submitted)
    result["workers"] = {step.step_id: step.worker for step in state.steps.values() if step.worker}
    if crash is not None:
        result["crash"] = crash.report()
    if options.json:
        print_json(result)
    else:
        show_answer(view, steps, result["seconds"])
        for step_id, worker in result["workers"].items():
            progress(f"step {step_id} went over the bus (AMQP) and ran on {worker}, a process of its own")
        if crash is not None and (told := crash.told()):
            progress(told)
    good = view["status"] == "succeeded" and (crash is None or crash.held())
    return (ExitCode.OK if good else ExitCode.FAILED), run_id


def _data_folder(given: Path | None) -> Path:
    if given is not None:
        return home(given)
    demos = usable(home() / "demos")
    older = sorted(path for path in demos.iterdir() if path.is_dir() and running_stack(path) is None)
    for path in older[: max(0, len(older) - KEPT_DEMOS + 1)]:
        shutil.rmtree(path, ignore_errors=True)
    return demos / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"


def _say_next(run_id: str, leading: tuple[str, str], *, is_short: bool = False, models: str = "") -> None:
    """What to do with a run whose stack has stopped."""
    data_only, both = leading
    progress("everything has stopped; the run is kept. To see it again, and to go on (2. and 3. in another terminal):")
    progress(f"  1. ./livoa up{data_only}{models}")
    progress(f"  2. ./livoa show {run_id}{both}")
    progress(f'  3. ./livoa run "{NEXT_INTENT}"{both}')
    if not is_short:
        progress("  4. ./livoa demo --crash        kill -9 in the middle, and the run still finishes")


def same_options(data: Path, tenant: str) -> tuple[str, str]:
    """What leads further commands to the demo's folder: the option for `up`, and those for commands that speak as a tenant."""
    from cli.connection import data_option
    from cli.tokens import DEFAULT_TENANT

    where = data_option(data)
    return where, where + ("" if tenant == DEFAULT_TENANT else f" --tenant {tenant}")


def _out_of_time(err: CliError, options: argparse.Namespace, data: Path) -> CliError:
    """The demo stops the stack, so a run that is not over stands still until somebody starts it again."""
    if err.exit_code is not ExitCode.TIMEOUT:
        return err
    return CliError(
        f"the run was not over after {options.timeout:g} s; the demo has stopped it together with the host",
        hint=f"allow more with --timeout, or let it go on: ./livoa up{same_options(data, options.tenant)[0]}{as_typed(options)}",
        exit_code=ExitCode.TIMEOUT,
        code=err.code,
    )
