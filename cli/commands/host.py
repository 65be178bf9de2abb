"""`./livoa host`: somebody else's Functions app on the embedded host. `up` is the command for our own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cli.data_folder import usable
from cli.exit_codes import ExitCode
from cli.output import progress

EXAMPLE = """
  ./livoa host --app ../my-functions-app --port 7072
  curl http://127.0.0.1:7072/api/hello

Serves HTTP, timer, Service Bus, durable orchestration, activity and entity functions of the Python v2 model.
Settings come from the app's local.settings.json. Stops on Ctrl-C; state is kept in --data.
"""

# Exit codes of local_host, which knows nothing of ours: 3 unusable app, 4 data folder in use, 5 port taken.
_CODES = {0: ExitCode.OK, 2: ExitCode.USAGE, 3: ExitCode.FAILED, 4: ExitCode.UNREACHABLE, 5: ExitCode.UNREACHABLE}


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `host`."""
    parser.add_argument(
        "--app", type=Path, required=True, metavar="DIR", help="folder with function_app.py and host.json"
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="where state is kept (default: DIR/.local_host)")
    parser.add_argument("--port", type=int, default=7071, help="port on 127.0.0.1; 0 for a free one (7071)")


def run(options: argparse.Namespace) -> ExitCode:
    """Run the host in this process until SIGTERM or SIGINT."""
    if not options.app.is_dir():
        progress(f"livoa: no folder {options.app}\nNext: name the folder that holds function_app.py")
        return ExitCode.USAGE
    from local_host.__main__ import main as host_main

    data = usable(options.data or options.app / ".local_host")
    arguments = ["--app", str(options.app), "--data", str(data), "--port", str(options.port)]
    code = host_main([*arguments, "--json"] if options.json else arguments)
    sys.stdout.flush()
    return _CODES.get(code, ExitCode.FAILED)
