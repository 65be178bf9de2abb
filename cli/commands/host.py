"""`./livoa host`: somebody else's Functions app on the embedded host, and a look into a host's store. `up` serves our own app."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from cli.data_folder import usable
from cli.errors import CliError
from cli.exit_codes import ExitCode
from cli.output import print_json, progress, say
from cli.paths import home

EXAMPLE = """
  ./livoa host --app ../my-functions-app --port 7072
  curl http://127.0.0.1:7072/api/hello
  ./livoa host --status                        # what is in the store of `up`: instances, open work and its bounds, sizes
  ./livoa host --export RUN > history.json     # the durable history of a run and of the parts of its maps

Serves HTTP, timer, Service Bus, durable orchestration, activity and entity functions of the Python v2 model.
Settings come from the app's local.settings.json. Stops on Ctrl-C; state is kept in --data.
--status and --export read the store of a host that runs or ran, and change nothing.
"""

# Exit codes of local_host, which knows nothing of ours: 3 unusable app, 4 data folder in use, 5 port taken.
_CODES = {0: ExitCode.OK, 2: ExitCode.USAGE, 3: ExitCode.FAILED, 4: ExitCode.UNREACHABLE, 5: ExitCode.UNREACHABLE}


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `host`."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--app", type=Path, metavar="DIR", help="serve the folder with function_app.py and host.json")
    what.add_argument("--status", action="store_true", help="show what is in the durable store")
    what.add_argument("--export", metavar="ID", help="print an instance's durable history, ready to be replayed")
    parser.add_argument(
        "--data", type=Path, metavar="DIR",
        help="where state is kept (default: DIR/.local_host of --app; otherwise the folder of `up`)",
    )  # fmt: skip
    parser.add_argument(
        "--keep-days", type=float, metavar="DAYS",
        help="with --app: purge durable instances that ended longer ago (default: keep all)",
    )  # fmt: skip
    parser.add_argument(
        "--amqp-port", type=int, metavar="PORT",
        help="with --app: serve Service Bus clients on this port of 127.0.0.1, 0 for a free one (default: off)",
    )  # fmt: skip
    parser.add_argument("--port", type=int, default=7071, help="port on 127.0.0.1; 0 for a free one (7071)")


def run(options: argparse.Namespace) -> ExitCode:
    """Run the host in this process until SIGTERM or SIGINT, or show what its store holds."""
    if options.app is None:
        return _look(options)
    if not options.app.is_dir():
        progress(f"livoa: no folder {options.app}\nNext: name the folder that holds function_app.py")
        return ExitCode.USAGE
    from local_host.__main__ import main as host_main

    data = usable(options.data or options.app / ".local_host")
    arguments = ["--app", str(options.app), "--data", str(data), "--port", str(options.port)]
    if options.keep_days is not None:
        arguments += ["--keep-days", str(options.keep_days)]
    if options.amqp_port is not None:
        arguments += ["--amqp-port", str(options.amqp_port)]
    code = host_main([*arguments, "--json"] if options.json else arguments)
    sys.stdout.flush()
    return _CODES.get(code, ExitCode.FAILED)


def _look(options: argparse.Namespace) -> ExitCode:
    from local_host.__main__ import look

    data = (options.data or home() / "host").resolve()
    found = look(data, options.export)
    if error := found.get("error"):
        raise CliError(
            f"{error['message']} (at {error['where']})",
            hint="name the data folder of a host with --data; ids of runs are in ./livoa runs",
            exit_code=ExitCode.USAGE if error["code"] == "host.no_store" else ExitCode.FAILED,
            code=error["code"],
        )
    if options.json:
        print_json(found)
    elif options.status:
        _show(found)
    else:
        say(json.dumps(found, indent=1))
    return ExitCode.OK


def _show(found: dict[str, Any]) -> None:
    pid = found["running_pid"]
    say(f"host       {f'running, process {pid}' if pid else 'not running'}, {found['data']}")
    say(f"instances  {_counts(found['instances'])}")
    say(f"open       {_counts(found['open'])}")
    say(f"takes on   {_takes_on(found)}")
    if oldest := found["oldest_unfinished"]:
        say(f"oldest     {oldest['instance_id']} ({oldest['name']}), since {oldest['created_at']}")
    if largest := found["largest_history"]:
        say(f"largest    {largest['instance_id']}, {largest['episodes']} episodes, {largest['bytes']} bytes")
    say(f"store      {found['store_bytes']} bytes")


def _takes_on(found: dict[str, Any]) -> str:
    counts = {"pending starts": found["pending_starts"], "activities": found["open"]["activities"]}
    bounds = found["bounds"]
    if bounds is None:
        return _counts(counts)
    limits = (bounds["max_pending_starts"], bounds["max_open_activities"])
    shown = ", ".join(f"{name} {count} of {limit}" for (name, count), limit in zip(counts.items(), limits, strict=True))
    is_full = any(count >= limit for count, limit in zip(counts.values(), limits, strict=True))
    return f"{shown}{' (full: starts from outside are refused)' if is_full else ''}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
