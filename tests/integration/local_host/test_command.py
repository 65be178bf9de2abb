"""`python -m local_host` as a user runs it: a real process, real signals, `kill -9`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

APPS = Path(__file__).parent / "apps"
REPOSITORY = Path(__file__).parents[3]
pytestmark = pytest.mark.timeout(60)


class Process:
    """One host process."""

    def __init__(self, app: Path, data: Path, *arguments: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "local_host", "--app", str(app), "--data", str(data), "--port", "0", *arguments],
            cwd=REPOSITORY,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> dict:
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        return json.loads(line)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err


@pytest.fixture
def start():
    processes: list[Process] = []

    def start(*arguments, **environment) -> Process:
        processes.append(Process(*arguments, **environment))
        return processes[-1]

    yield start
    for process in processes:
        if process.process.poll() is None:
            process.process.kill()
        process.process.communicate()


def _get(url: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, method=method), timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as err:
        return err.code, err.read()


def _status_when_ended(url: str) -> dict:
    give_up_at = time.monotonic() + 20
    while time.monotonic() < give_up_at:
        code, body = _get(url)
        if code == 200:
            return json.loads(body)
        time.sleep(0.02)
    raise AssertionError(body)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_one_json_line_serves_and_stops_cleanly(start, tmp_path, number):
    process = start(APPS / "route_zoo", tmp_path, "--json")
    ready = process.ready()
    assert ready == {"url": ready["url"], "pid": process.process.pid, "data": str(tmp_path)}
    assert _get(f"{ready['url']}/api/named_after_function") == (200, b"hello")
    code, out, err = process.end(number)
    assert (code, out) == (0, "")
    assert "Traceback" not in err
    keys = json.loads((tmp_path / "keys.json").read_text())
    assert keys["masterKey"] not in err


def test_a_running_call_ends_before_the_process_does(start, tmp_path):
    import threading

    ready = (process := start(APPS / "route_zoo", tmp_path, "--json")).ready()
    answers: list[tuple[int, bytes]] = []
    call = threading.Thread(target=lambda: answers.append(_get(f"{ready['url']}/api/slow?seconds=1")))
    call.start()
    time.sleep(0.4)
    assert process.end()[0] == 0
    call.join()
    assert answers == [(200, b"slept")]


def test_the_readable_list_names_every_function(start, tmp_path):
    process = start(APPS / "bus_and_timer", tmp_path)
    lines = []
    while not (lines and lines[-1].startswith("Listening on")):
        line = process.process.stdout.readline()
        assert line
        lines.append(line.rstrip())
    text = "\n".join(lines)
    assert re.search(r"place_order: \[POST\] http://127\.0\.0\.1:\d+/api/orders", text)
    assert "every_five_minutes: timerTrigger (0 */5 * * * *)" in text
    assert "on_news: serviceBusTrigger (news/Subscriptions/paper)" in text


def test_exit_codes_tell_what_went_wrong(start, tmp_path):
    first = start(APPS / "route_zoo", tmp_path / "data", "--json")
    port = first.ready()["url"].rsplit(":", 1)[1]
    cases = [
        ((APPS / "route_zoo", tmp_path / "data"), 4, "host.already_running"),
        ((APPS / "route_zoo", tmp_path / "second", "--port", port), 5, "host.port_unavailable"),
        ((tmp_path / "nowhere", tmp_path / "other"), 3, "host.app_not_found"),
        ((APPS, tmp_path / "other"), 3, "host.bad_host_json"),
        ((APPS / "route_zoo", tmp_path / "other", "--port", "99999"), 2, "--port"),
    ]
    processes = [start(*arguments) for arguments, _, _ in cases]
    for process, (_, code, text) in zip(processes, cases, strict=True):
        out, err = process.process.communicate(timeout=20)
        assert (process.process.returncode, out) == (code, ""), err
        assert text in err
        assert "Traceback" not in err


def test_help_has_an_example():
    text = subprocess.run(
        [sys.executable, "-m", "local_host", "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    assert "python -m local_host --app . --port 7071" in text
    assert "exit codes" in text


def test_kill_9_loses_nothing(start, tmp_path):
    """An orchestration waiting for a human, a queued message and the lock all survive the process."""
    process = start(APPS / "human_interaction", tmp_path, "--json")
    ready = process.ready()
    code, body = _get(f"{ready['url']}/api/requests/r9", "POST", b"{}")
    assert code == 202
    status = json.loads(body)["statusQueryGetUri"]
    while json.loads(_get(status)[1]).get("customStatus") != "waiting":
        time.sleep(0.02)
    process.end(signal.SIGKILL)
    ready = start(APPS / "human_interaction", tmp_path, "--json").ready()
    assert _get(f"{ready['url']}/api/requests/r9/answer", "POST", b"true")[0] == 202
    ended = _status_when_ended(ready["url"] + "/" + status.split("/", 3)[3])
    assert (ended["runtimeStatus"], ended["output"]["charged"]) == ("Completed", 10)
