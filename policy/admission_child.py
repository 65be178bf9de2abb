"""The child process of ``policy.admission``: reads a task on standard input, writes the answer on standard output.

It has bounds on processor time and memory; what needs more is no policy. Nothing else runs in it.
"""

from __future__ import annotations

import json
import resource
import sys

from engine.ports.policy import PolicyText
from policy.admission import admit
from policy.rules import Layer

_CPU_S = 15
_MEMORY_BYTES = 1024 * 1024 * 1024


def main() -> None:
    """Admit the policies of one task."""
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # elsewhere the limit counts what is merely reserved
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    task = json.load(sys.stdin)
    kind, tenant_id = task["layer"]
    files = [PolicyText(name, text) for name, text in task["files"]]
    admitted = admit(files, Layer(kind, tenant_id), task["schema"], frozenset(task["agents"]))
    answer = {
        "findings": [found.model_dump(mode="json") for found in admitted.findings],
        "policies": [rule.est for rule in admitted.rules],
    }
    json.dump(answer, sys.stdout)
