"""`python -m tests.support.model_server --script FILE --port 0 --json`: the scripted provider as a process, for demos.

FILE is a Python file with a function ``answer(request)``, or JSON: ``{"rules": [{"work", "model", "containing", "answers":
[{"text" | "json" | "status", …}], "again": true}]}``. ``work``, ``model`` and ``containing`` choose as in
``ModelServer.script``; the other keys of an answer are the fields of ``Answer``; with ``again`` the last answer is given for
ever. The first rule that fits answers.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.model_server.answers import Answer, always, as_json, failure
from tests.support.model_server.server import ModelServer


def load(server: ModelServer, path: Path) -> None:
    """Script a server from a file. Raises ValueError, KeyError or TypeError for a file that is no script."""
    if path.suffix == ".py":
        server.script(runpy.run_path(str(path))["answer"])
        return
    # The newest script answers first, a file reads from the top.
    for rule in reversed(json.loads(path.read_text(encoding="utf-8"))["rules"]):
        chosen = {name: rule[name] for name in ("work", "model", "containing") if name in rule}
        answers = [_answer(document) for document in rule["answers"]]
        if rule.get("again"):
            server.script(always(answers.pop()), **chosen)
        server.script(answers, **chosen)


def _answer(document: Mapping[str, Any]) -> Answer:
    fields = dict(document)
    if "json" in fields:
        return as_json(fields.pop("json"), **fields)
    if fields.get("status", 200) != 200:
        return failure(fields.pop("status"), fields.pop("code", None), **fields)
    return Answer(**fields)


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.model_server", description=__doc__)
    parser.add_argument("--script", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--key-env", help="name of the variable that holds the key to demand")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stopped.set())
    with ModelServer(key=os.environ[options.key_env] if options.key_env else None, port=options.port) as server:
        load(server, options.script)
        facts = {"url": server.url, "azure_url": server.azure_url, "pid": os.getpid()}
        print(json.dumps(facts) if options.json else f"model server at {server.url}; Ctrl-C stops it", flush=True)
        stopped.wait()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
