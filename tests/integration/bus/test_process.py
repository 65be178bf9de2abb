"""The worker as a process: its image holds enough, probes are answered, SIGTERM ends it cleanly, a missing bus is named."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
WAIT_S = 60


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The folders that the Dockerfile copies, and nothing else."""
    copied = re.findall(r"^COPY (\w+) (\w+)$", (ROOT / "bus_worker" / "Dockerfile").read_text(), re.M)
    assert ("bus_worker", "bus_worker") in copied
    for source, target in copied:
        shutil.copytree(ROOT / source, tmp_path / target, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def started(folder: Path, **settings: str) -> subprocess.Popen[str]:
    environment = {"PATH": os.environ["PATH"], "LIVOA_ENV": "local", "LIVOA_DATA": str(folder / "data")} | settings
    return subprocess.Popen(
        [sys.executable, "-m", "bus_worker", "--name", "w", "--json"],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def asked(url: str) -> tuple[int, dict]:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as err:
        return err.code, json.loads(err.read())


def test_the_image_serves_answers_probes_and_ends_on_a_signal(image: Path) -> None:
    process = started(image, LIVOA_BUS_CONNECTION_FILE=str(image / "not-there"))
    try:
        readable, _, _ = select.select([process.stdout], [], [], WAIT_S)
        assert readable, "it says nothing"
        line = process.stdout.readline()
        assert line, process.stderr.read()
        ready = json.loads(line)
        assert (ready["name"], ready["queues"], ready["pid"]) == ("w", ["step-commands"], process.pid)
        assert asked(f"{ready['url']}/health/live") == (200, {"status": "ok"})
        status, body = asked(f"{ready['url']}/health/ready")
        assert (status, body["status"], body["not_connected"]) == (503, "disconnected", ["step-commands"])
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
    finally:
        process.kill()
        process.communicate()


def test_without_a_bus_it_does_not_start_and_says_which_setting_is_missing(image: Path) -> None:
    process = started(image)
    _, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1
    assert "LIVOA_BUS_CONNECTION" in said
