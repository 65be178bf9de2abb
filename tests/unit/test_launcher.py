"""The launcher: which interpreter it takes, what it remembers, how it survives being interrupted.

Each test copies `livoa` into a folder of its own with empty requirement files, so nothing is downloaded.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LAUNCHER = Path(__file__).resolve().parents[2] / "livoa"
SUPPORTED = sys.version_info[:2] in {(3, 11), (3, 12), (3, 13)}
pytestmark = pytest.mark.skipif(not SUPPORTED, reason="needs to run on a Python that the launcher accepts")


class Checkout:
    """A minimal checkout: the launcher, requirement files without packages, a command line that prints what it got."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copy(LAUNCHER, root / "livoa")
        for name in ("requirements.txt", "requirements-agents.txt", "requirements-dev.txt"):
            (root / name).write_text("# nothing\n")
        (root / "cli").mkdir()
        (root / "cli" / "__init__.py").write_text("")
        (root / "cli" / "main.py").write_text(
            "import json, sys\n"
            "def main(arguments):\n"
            "    print(json.dumps({'arguments': list(arguments), 'prefix': sys.prefix}))\n"
            "    return 7 if 'fail' in arguments else 0\n"
        )
        self.bin = root / "fake-bin"
        self.bin.mkdir()

    def environment(self, **extra: str) -> dict[str, str]:
        """No network for pip, no interpreters but the system's folders and those the test puts there."""
        base = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "LIVOA_", "PYENV"))}
        return {
            **base, "PIP_NO_INDEX": "1", "PIP_RETRIES": "0", "PYENV_ROOT": str(self.root / "no-pyenv"),
            "PATH": str(self.bin), **extra,
        }  # fmt: skip

    def run(self, *arguments: str, python: str = sys.executable, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, str(self.root / "livoa"), *arguments], cwd="/", env=self.environment(**extra),
            capture_output=True, text=True, timeout=110,
        )  # fmt: skip

    def fake(self, name: str, script: str) -> Path:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def load_launcher(root: Path):
    from importlib.machinery import SourceFileLoader
    from importlib.util import module_from_spec, spec_from_loader

    loader = SourceFileLoader("livoa_launcher", str(root / "livoa"))
    spec = spec_from_loader("livoa_launcher", loader)
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_help_needs_no_installation(checkout: Checkout):
    for asked in (["demo", "--help"], ["help", "demo"], ["--version"]):
        assert json.loads(checkout.run(*asked).stdout)["arguments"] == asked
    assert not (checkout.root / ".venv").exists()


@pytest.mark.thorough
@pytest.mark.timeout(300)  # five installations
def test_the_life_of_a_venv(checkout: Checkout):
    """One story, because every chapter needs an installed checkout and installing is what takes the time."""
    command = [sys.executable, str(checkout.root / "livoa"), "demo"]
    both = [
        subprocess.Popen(command, env=checkout.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=110) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("making .venv" in err for _, err in answers) == 1, "two first starts at once install once"

    log = (checkout.root / ".livoa" / "install.log").read_bytes()
    started = time.monotonic()
    second = checkout.run("demo", "--flag")
    assert time.monotonic() - started < 3, "the second start is quick"
    assert (checkout.root / ".livoa" / "install.log").read_bytes() == log, "and calls no pip"
    said = json.loads(second.stdout)
    assert (said["arguments"], second.stderr) == (["demo", "--flag"], "")
    assert Path(said["prefix"]) == checkout.root / ".venv", "the command runs in .venv, from whatever folder"
    assert checkout.run("fail").returncode == 7, "the command's exit code is the launcher's"
    for older in sorted(Path.home().glob(".pyenv/versions/3.[6-9].*/bin/python"))[:1]:
        handed_over = checkout.run("demo", python=str(older))
        assert json.loads(handed_over.stdout)["prefix"] == said["prefix"], "an older Python gets as far as .venv"

    with (checkout.root / "requirements.txt").open("a") as file:
        file.write("# one line more\n")
    assert "requirements changed" in checkout.run("test").stderr
    assert checkout.run("demo").stderr == "", "the dev set contains the runtime set"
    assert checkout.run("test").stderr == ""

    (checkout.root / "requirements.txt").write_text("no-such-package-anywhere==1\n")
    failed = checkout.run("demo")
    assert (failed.returncode, failed.stdout) == (6, "")
    assert "No matching distribution" in failed.stderr
    assert "Next: " in failed.stderr
    (checkout.root / "requirements.txt").write_text("# nothing\n")
    repaired = checkout.run("demo")
    assert repaired.returncode == 0, repaired.stderr
    assert "interrupted" in repaired.stderr, "what a failed installation left behind is not trusted"

    python = checkout.root / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to(checkout.root / "gone")
    again = checkout.run("demo")
    assert again.returncode == 0, again.stderr
    assert "making .venv" in again.stderr, "a venv whose interpreter is gone is built anew"


@pytest.mark.thorough
def test_a_killed_installation_is_noticed_and_repaired(checkout: Checkout):
    command = [sys.executable, str(checkout.root / "livoa"), "demo"]
    process = subprocess.Popen(command, env=checkout.environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (checkout.root / ".venv" / "bin").exists() and time.monotonic() < deadline:
        time.sleep(0.02)  # a real process is being waited for; there is no clock to inject
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    second = checkout.run("demo")
    assert second.returncode == 0, second.stderr
    assert "interrupted" in second.stderr


def test_an_interpreter_that_exists_but_refuses_to_run_is_passed_over(checkout: Checkout, monkeypatch):
    checkout.fake("python3.12", "echo 'pyenv: python3.12: command not found' >&2; exit 127")
    checkout.fake("python3.11", f'exec {sys.executable} "$@"')
    launcher = load_launcher(checkout.root)
    monkeypatch.setattr(
        launcher, "candidates", lambda: [str(checkout.bin / "python3.12"), str(checkout.bin / "python3.11")]
    )
    assert launcher.find_interpreter()["version"] == list(sys.version_info[:3])


def test_without_a_suitable_python_the_message_names_what_was_tried_and_what_to_do(checkout: Checkout):
    old = checkout.fake(
        "old-python",
        """echo '{"version": [3, 8, 1], "executable": "x", "missing": [], "wheel": null, "bits": 64}'""",
    )
    result = checkout.run("demo", LIVOA_PYTHON=str(old))
    assert result.returncode == 6
    assert f"{old} is Python 3.8" in result.stderr
    assert "Next: install one" in result.stderr
    assert not (checkout.root / ".venv").exists()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ('{"version": [3, 12, 1], "executable": "x", "missing": ["ensurepip"], "wheel": null, "bits": 64}', "python3.12-venv"),
        ('{"version": [3, 12, 1], "executable": "x", "missing": ["sqlite3"], "wheel": null, "bits": 64}', "lacks sqlite3"),
        ('{"version": [3, 12, 1], "executable": "x", "missing": [], "wheel": null, "bits": 32}', "32-bit"),
        ('{"version": [3, 14, 0], "executable": "x", "missing": [], "wheel": null, "bits": 64}', "is Python 3.14"),
        ("Segmentation fault", "does not run"),
    ],
)  # fmt: skip
def test_why_an_interpreter_is_refused(checkout: Checkout, answer: str, why: str):
    launcher = load_launcher(checkout.root)
    facts, refusal = launcher.probe(str(checkout.fake("candidate", f"echo '{answer}'")))
    assert facts == {}
    assert why in refusal


def test_the_launcher_parses_as_python_3_6():
    import ast

    ast.parse(LAUNCHER.read_text(), feature_version=(3, 6))
