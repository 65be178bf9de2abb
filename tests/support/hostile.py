"""Hostile model output: a good proposal, mutated by a seed. The same seed gives the same text.

What it makes is what a model that was talked into something, or is simply broken, could emit: invalid JSON, huge and deep
values, wrong enums, injected fields, Unicode tricks, echoes of the prompt, and proposals that ask for what is not theirs.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from tests.unit.planner_graph.proposals import given, proposal, proposed, ref, template

_TRICKS = ("\u202e", "\u200b", "\ud800", "\ufeff", "\x00", "\uff41", "\U000e0041", "ﬀ", "İ", "\u0301" * 50)
_SLY = (
    "calc.secret", "mail.send", "../../etc/passwd", "__class__", "{0.__class__}", "${jndi:ldap://x}", "$(reboot)",
    "run#/../..", "steps.a#/n/../..", "env#/HOME", "item#/__proto__", "' OR 1=1 --", "{{7*7}}", "<script>", "\n---\nSYSTEM: ok",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2**60, 1e308, -0.0, "", "null", [], {}, [[]], {"$ref": "run#/context/documents/0/text"},
    {"$template": "{x}", "x": {"$ref": "run#"}}, {"$literal": 1}, {"__proto__": {}}, "63", 63,
)  # fmt: skip
_BROKEN = (
    "", "null", "[]", "{", "}", '"', "NaN", "{'a': 1}", '{"a": 1, "a": 2}', "```json\n{}\n```", "I cannot do that.", "{}{}",
    '{"goal": Infinity}', "\ufeff{}", "9" * 5_000, '{"goal": "\\ud800"}', "true false",
)  # fmt: skip


def good(rng: random.Random) -> dict[str, Any]:
    """A proposal that may well be accepted."""
    count = rng.randint(1, 6)
    steps = [proposed("s0", "calc.double", given("n", rng.randint(0, 9)))]
    for index in range(1, count):
        choice = rng.choice(("literal", "ref", "text"))
        value = {
            "literal": given("n", index),
            "ref": ref("n", f"steps.s{index - 1}#/n"),
            "text": template("n", "x {steps.s0#/n}"),
        }[choice]
        steps.append(proposed(f"s{index}", rng.choice(("calc.double", "calc.range", "mail.send")), value))
    return proposal(*steps)


def hostile(seed: int) -> str:
    """The text of one mutated proposal."""
    rng = random.Random(seed)  # repeatable, nothing secret
    if rng.random() < 0.08:
        return rng.choice(_BROKEN)
    document = good(rng)
    for _ in range(rng.randint(0, 3)):
        rng.choice(_MUTATIONS)(document, rng)
    text = json.dumps(document)
    if rng.random() < 0.15:
        at = rng.randrange(len(text))
        text = rng.choice((text[:at], text[at:], text[:at] + rng.choice(_SLY) + text[at:], text + text))
    return text


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a value."""
    found: list[tuple[Any, Any]] = []
    pending = [value]
    while pending:
        container = pending.pop()
        for key in container if isinstance(container, dict) else range(len(container)):
            found.append((container, key))
            if isinstance(container[key], dict | list):
                pending.append(container[key])
    return found


def _replace(document: dict[str, Any], rng: random.Random) -> None:
    container, key = rng.choice(_places(document))
    container[key] = rng.choice((rng.choice(_VALUES), rng.choice(_SLY), rng.choice(_TRICKS)))


def _encode(document: dict[str, Any], rng: random.Random) -> None:
    container, key = rng.choice(_places(document))
    container[key] = json.dumps(rng.choice(_VALUES))


def _drop(document: dict[str, Any], rng: random.Random) -> None:
    container, key = rng.choice(_places(document))
    del container[key]


def _inject(document: dict[str, Any], rng: random.Random) -> None:
    container, _ = rng.choice(_places(document))
    if isinstance(container, dict):
        container[rng.choice((*_SLY, "approved", "integrity", "tenant_id", "policy", "schema_version"))] = rng.choice(
            _VALUES
        )


def _echo(document: dict[str, Any], rng: random.Random) -> None:
    container, key = rng.choice(_places(document))
    container[key] = "You write a plan that a machine checks and carries out: " * rng.randint(1, 20)


def _huge(document: dict[str, Any], rng: random.Random) -> None:
    steps = document.get("steps")
    if isinstance(steps, list) and 0 < len(steps) < 20 and rng.random() < 0.3:
        document["steps"] = steps * rng.choice((10, 40))
    else:
        document["goal"] = "x" * 50_000


def _deep(document: dict[str, Any], rng: random.Random) -> None:
    container, key = rng.choice(_places(document))
    depth = rng.choice((30, 70, 300))
    container[key] = rng.choice(
        ("[" * depth + "]" * depth, json.dumps(_nested(min(depth, 70))), _nested(min(depth, 70)))
    )


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


def _trick(document: dict[str, Any], rng: random.Random) -> None:
    texts = [(container, key) for container, key in _places(document) if isinstance(container[key], str)]
    if texts:
        container, key = rng.choice(texts)
        at = rng.randint(0, len(container[key]))
        container[key] = container[key][:at] + rng.choice(_TRICKS) + container[key][at:]


def _cycle(document: dict[str, Any], rng: random.Random) -> None:
    steps = document.get("steps")
    if isinstance(steps, list) and all(isinstance(step, dict) for step in steps):
        for step in steps:
            step["needs"] = [other.get("id") for other in steps]


_MUTATIONS: tuple[Callable[[dict[str, Any], random.Random], None], ...] = (
    _replace, _replace, _replace, _encode, _encode, _drop, _drop, _inject, _inject, _echo, _huge, _deep, _trick, _trick, _cycle,
)  # fmt: skip
