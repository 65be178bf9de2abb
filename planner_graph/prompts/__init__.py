"""Prompts: versioned files beside this one, and their rendering.

A file has a front matter (``name``, ``version``) and a body with ``{{name}}`` where a value goes. Rendering is one pass of
substitution and nothing more: no expressions, and what a value holds is never looked into again. The SHA-256 of the files a
prompt was made from goes into the audit record of the call.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from planner_graph.model_calls import PromptFile

_FOLDER = Path(__file__).parent
_FILE = re.compile(r"---\nname: ([a-z_]+)\nversion: (\d+)\n---\n(.*)", re.DOTALL)
_FIELD = re.compile(r"\{\{([a-z_]+)\}\}")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt file. ``sha256`` is over the whole file."""

    name: str
    version: int
    body: str
    sha256: str

    def render(self, **values: str) -> str:
        """The body with every field filled. Raises ``KeyError`` for a field without a value: a fault of ours."""
        return _FIELD.sub(lambda match: values[match[1]], self.body)


@cache
def load_prompt(name: str) -> Prompt:
    """The prompt of that name. Raises ``ValueError`` when the file is not a prompt: a fault of ours, found by tests."""
    text = (_FOLDER / f"{name}.md").read_text(encoding="utf-8")
    match = _FILE.fullmatch(text)
    if match is None or match[1] != name:
        raise ValueError(f"prompts/{name}.md has no front matter with its name and version")
    return Prompt(name, int(match[2]), match[3].strip(), hashlib.sha256(text.encode()).hexdigest())


def prompt_file(*names: str) -> PromptFile:
    """What the audit record says a prompt was made from: ``plan@1+repair@1`` and the hash over the files' hashes."""
    prompts = [load_prompt(name) for name in names]
    told = "+".join(f"{prompt.name}@{prompt.version}" for prompt in prompts)
    if len(prompts) == 1:
        return PromptFile(told, prompts[0].sha256)
    return PromptFile(told, hashlib.sha256("\n".join(prompt.sha256 for prompt in prompts).encode()).hexdigest())
