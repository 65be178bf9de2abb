"""Other engines measured in the same sitting as ours: scripts that are not part of this repository, each run by an interpreter
that has its engine.

A script takes `--case NAME --repeat N` and prints a JSON line per run: `peer`, `version`, `case`, `steps`, `edges`,
`steps_per_s`, `cpu_s`, `load1`, `durable`, and `ok`, which says that the run reached its digest. Beside it lies `dagcase.py`
with the graphs (`CASES`) and `reference`, the digest of one. Figures are taken only of graphs whose digests are those of
`bench.peer_cases`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.peer_cases import CASES, DIGESTS

TIMEOUT_S = 600
_DIGESTS_OF = (
    "import json, dagcase as d; print(json.dumps({name: d.reference(make()) for name, make in d.CASES.items()}))"
)


class OtherEngineError(Exception):
    """A script could not be run, or measured something else."""


@dataclass(frozen=True, slots=True)
class OtherEngine:
    """One script and the interpreter that runs it."""

    python: Path
    script: Path

    @classmethod
    def named(cls, text: str) -> OtherEngine:
        """`PYTHON:SCRIPT`. Raises ``ValueError``."""
        python, colon, script = text.partition(":")
        engine = cls(Path(python).absolute(), Path(script).absolute())
        if not colon or not engine.python.is_file() or not engine.script.is_file():
            raise ValueError(f"{text} is no PYTHON:SCRIPT of two files")
        return engine

    def check_graphs(self, names: Iterable[str]) -> None:
        """Raises ``OtherEngineError`` when the script's graphs are not ours."""
        digests: Mapping[str, int] = json.loads(self._run(["-c", _DIGESTS_OF]))
        for name in names:
            if digests.get(name) != DIGESTS[name]:
                raise OtherEngineError(f"{self.script.name} measures another graph as {name}")

    def runs(self, name: str, repeat: int) -> list[dict[str, Any]]:
        """The durable runs of one case."""
        text = self._run([str(self.script), "--case", name, "--repeat", str(repeat)])
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        return [line for line in lines if line["case"] == name and line["durable"]]

    def _run(self, arguments: Sequence[str]) -> str:
        command = [str(self.python), *arguments]
        done = subprocess.run(
            command, cwd=self.script.parent, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        if done.returncode != 0:
            raise OtherEngineError(f"{self.script.name} ended with {done.returncode}: {done.stderr[-500:]}")
        return done.stdout


def figures(engine: OtherEngine, name: str, repeat: int) -> dict[str, dict[str, Any]]:
    """The fastest durable run of each engine (or of each way to use it) that the script measures, by its name and version."""
    edges = sum(map(len, CASES[name]().values()))
    best: dict[str, dict[str, Any]] = {}
    for run in engine.runs(name, repeat):
        peer = f"{run['peer']} {run['version']}"
        if not run["ok"] or run["edges"] != edges:
            raise OtherEngineError(f"{peer} did not end with the digest of {name}")
        found = {
            "steps_per_s": run["steps_per_s"],
            "cpu_ms_per_step": round(run["cpu_s"] * 1000 / run["steps"], 3),
            "load1": run["load1"],
        }
        if peer not in best or found["steps_per_s"] > best[peer]["steps_per_s"]:
            best[peer] = found
    return best
