"""Processes: kept alive, restarted on their port, given up on with a reason, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent_kit import load_manifests
from agent_kit.serve import listen
from cli.errors import CliError
from cli.exit_codes import ExitCode
from cli.paths import ROOT, running_stack
from cli.stack.lifeline import die_with_parent
from cli.stack.local import LocalStack, _explained, reserved_port
from cli.stack.supervisor import ChildSpec, Supervisor
from sample_agents.endpoints import ENDPOINTS
from tests.support.shipped import CAPABILITIES

READY = (
    "import json, os, sys, time\n"
    "line = {'url': 'http://127.0.0.1:1', 'pid': os.getpid(), 'args': sys.argv[1:]}\n"
    "print(json.dumps(line), flush=True)\n"
)


def spec(tmp_path: Path, code: str, name: str = "child", arguments: Callable = lambda facts: []) -> ChildSpec:
    return ChildSpec(
        name, lambda facts: [sys.executable, "-c", code, *arguments(facts)], {}, tmp_path / f"{name}.log", tmp_path
    )


async def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:  # a zombie whose parent has not collected it yet is not running
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return sys.platform != "linux"


async def test_a_crashed_child_comes_back_and_is_told_its_last_facts(tmp_path):
    said: list[str] = []
    supervisor = Supervisor(said.append, backoff_s=(0.01, 0.01))
    child = await supervisor.start(
        spec(tmp_path, READY + "time.sleep(60)", arguments=lambda facts: [str(facts["pid"])] if facts else [])
    )
    first = child.facts["pid"]
    os.kill(first, signal.SIGKILL)
    await wait_until(lambda: child.facts["pid"] != first, "no restart")
    assert child.facts["args"] == [str(first)]
    await supervisor.stop()
    assert not is_alive(child.facts["pid"])
    assert any("starting it again" in line for line in said)


async def test_a_child_that_keeps_crashing_ends_the_stack_with_its_last_words(tmp_path):
    supervisor = Supervisor(lambda line: None, backoff_s=(0.01, 0.01))
    await supervisor.start(spec(tmp_path, READY + "sys.exit('no disk left')"))
    with pytest.raises(CliError) as caught:
        await asyncio.wait_for(supervisor.failed(), 30)
    assert caught.value.exit_code is ExitCode.UNREACHABLE
    assert "no disk left" in caught.value.details
    await supervisor.stop()


async def test_a_child_that_dies_before_it_is_ready_is_an_error_with_its_log(tmp_path):
    supervisor = Supervisor(lambda line: None)
    with pytest.raises(CliError) as caught:
        await supervisor.start(spec(tmp_path, "import sys; sys.exit('port taken')"))
    assert "before it was ready" in str(caught.value)
    assert "port taken" in caught.value.details
    await supervisor.stop()


async def test_an_exit_code_that_tells_more_has_a_hint_of_its_own(tmp_path):
    supervisor = Supervisor(lambda line: None)
    taken = replace(
        spec(tmp_path, "import os; os.close(1); import time; time.sleep(0.1); os._exit(5)"), hints={5: "--port"}
    )
    with pytest.raises(CliError) as caught:
        await supervisor.start(taken)
    assert caught.value.hint == "--port"
    await supervisor.stop()


async def test_children_stop_in_reverse_order_and_a_deaf_one_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("cli.stack.supervisor.STOP_GRACE_S", 0.3)
    order = tmp_path / "order"
    note = (
        "import signal, sys\n"
        "def leave(*_):\n"
        f"    open({str(order)!r}, 'a').write(sys.argv[1])\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, leave)\n"
    )
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    supervisor = Supervisor(lambda line: None)
    for name in ("a", "b"):
        await supervisor.start(spec(tmp_path, f"{note}{READY}time.sleep(60)", name, lambda facts, n=name: [n]))
    last = await supervisor.start(spec(tmp_path, deaf + READY + "time.sleep(60)", "deaf"))
    await supervisor.stop()
    assert order.read_text() == "ba"
    assert not is_alive(last.facts["pid"])


async def test_a_chatty_child_is_not_blocked_by_its_own_output(tmp_path):
    done = tmp_path / "done"
    supervisor = Supervisor(lambda line: None)
    await supervisor.start(
        spec(tmp_path, READY + f"print('x' * 1_000_000, flush=True); open({str(done)!r}, 'w'); time.sleep(60)")
    )
    await wait_until(done.exists, "the child hangs on its output")
    await supervisor.stop()


class SmallStack(LocalStack):
    """Agents that die once the host is being started, and a host that is ready only when it is told to end."""

    @property
    def _begun(self) -> str:
        return str(self._data / "begun")

    def _agents_command(self, last):
        code = f"import os, sys, time\nwhile not os.path.exists({self._begun!r}): time.sleep(0.01)\nsys.exit('no page')"
        return [sys.executable, "-c", code]

    def _host_command(self, last):
        code = (
            f"import signal, sys\ndef leave(*_):\n    {READY.splitlines()[0]}\n"
            + "".join(f"    {line}\n" for line in READY.splitlines()[1:])
            + f"    sys.exit(0)\nsignal.signal(signal.SIGTERM, leave)\nopen({self._begun!r}, 'a').write('x')\nsignal.pause()"
        )
        return [sys.executable, "-c", code]


async def test_a_stack_that_would_not_start_stops_what_is_starting_and_restarts_nothing(tmp_path):
    said: list[str] = []
    with pytest.raises(CliError) as caught:
        await asyncio.wait_for(SmallStack(tmp_path, 0, said.append, workers=0).__aenter__(), 60)
    assert caught.value.code == "stack.agents_failed"
    assert said == []
    assert (tmp_path / "begun").read_text() == "x"
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith(("keep", "start"))] == []


@pytest.mark.parametrize("turns", range(12))
async def test_a_start_that_is_cancelled_at_any_moment_ends_and_leaves_no_process(tmp_path, turns):
    supervisor = Supervisor(lambda line: None)
    starting = asyncio.create_task(supervisor.start(spec(tmp_path, READY + "time.sleep(60)")))
    for _ in range(turns):
        await asyncio.sleep(0)
    starting.cancel()
    done, _ = await asyncio.wait({starting}, timeout=20)
    assert done, "the start hangs"
    await supervisor.stop()
    assert [child for child in supervisor._children if child.process and child.process.returncode is None] == []


async def test_a_stop_that_is_cancelled_goes_on_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr("cli.stack.supervisor.STOP_GRACE_S", 0.3)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    supervisor = Supervisor(lambda line: None)
    child = await supervisor.start(spec(tmp_path, deaf + READY + "time.sleep(60)"))
    stopping = asyncio.create_task(supervisor.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert not is_alive(child.facts["pid"])


async def test_a_stopped_supervisor_starts_nothing(tmp_path):
    supervisor = Supervisor(lambda line: None)
    await supervisor.stop()
    with pytest.raises(CliError) as caught:
        await supervisor.start(spec(tmp_path, READY + "open('started', 'w')"))
    assert caught.value.code == "stack.stopping"
    await supervisor.stop()
    assert not (tmp_path / "started").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_kill_9_of_the_parent_takes_its_child_with_it():
    parent_code = (
        "import subprocess, sys, time; from cli.stack.lifeline import die_with_parent\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], preexec_fn=die_with_parent())\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", parent_code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        parent.kill()
    _gone(child)


def test_the_guard_of_other_systems_ends_its_child_when_the_pipe_closes():
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    command = [sys.executable, "-m", "cli.stack.lifeline", sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as guard:
        child = int(guard.stdout.readline())
        guard.stdin.close()
        assert guard.wait(20) == 128 + signal.SIGKILL
    _gone(child)


def test_the_guard_hands_on_signals_and_exit_codes():
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print(1, flush=True); time.sleep(60)"
    command = [sys.executable, "-m", "cli.stack.lifeline", sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as guard:
        guard.stdout.readline()
        guard.terminate()
        assert guard.wait(20) == 7


def test_a_stack_file_counts_only_while_its_process_lives(tmp_path):
    assert running_stack(tmp_path) is None
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / "up.json").write_text(f'{{"url": "http://x", "pid": {ended.pid}}}')
    assert running_stack(tmp_path) is None
    (tmp_path / "up.json").write_text(f'{{"url": "http://x", "pid": {os.getpid()}}}')
    assert running_stack(tmp_path)["url"] == "http://x"
    (tmp_path / "up.json").write_text("[]")
    assert running_stack(tmp_path) is None


def test_dying_with_the_parent_is_linux_only(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert die_with_parent() is None


def _gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while is_alive(pid):
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.02)  # another process is being waited for; there is no clock to inject


def test_a_reserved_port_is_nobodys_but_who_asks_for_it() -> None:
    """Nobody who asks for some free port gets it, and a listener that names it does, while it is still held."""
    with reserved_port() as port:
        if sys.platform == "linux":
            with socket.socket() as other, pytest.raises(OSError, match="in use"):
                other.bind(("127.0.0.1", port))
        with listen(port) as listener:
            listener.listen()
            with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
                assert client.getpeername()[1] == port


def test_the_endpoints_named_before_the_agents_are_up_are_those_of_the_shipped_manifests() -> None:
    manifests = load_manifests(ROOT / "catalog" / "capabilities")
    assert set(ENDPOINTS) == {manifests[name].endpoint for name in CAPABILITIES}


async def test_a_stack_that_would_not_start_says_what_is_wrong_with_the_catalog(tmp_path, monkeypatch) -> None:
    died = CliError("the agents process ended", code="stack.agents_failed", exit_code=ExitCode.UNREACHABLE)
    taken = CliError(
        "the host process ended", code="stack.host_failed", hint="port 1 is taken: choose another with --port"
    )
    assert await _explained(died) is died, "the catalog is good"
    monkeypatch.setenv("LIVOA_CATALOG", str(tmp_path))
    (tmp_path / "capabilities").mkdir()
    (tmp_path / "capabilities" / "rag.search.yaml").write_text("name: [")
    told = await _explained(died)
    assert (told.code, told.exit_code) == ("catalog.invalid", ExitCode.UNREACHABLE)
    assert told.details[0].startswith("capabilities/rag.search.yaml#  catalog.page_invalid: is not YAML")
    assert "./livoa catalog check" in told.hint
    assert await _explained(taken) is taken
