"""A playbook: a parameterised plan used when no model is available. One YAML page each in ``catalog/playbooks``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from engine.domain.base import Frozen, JsonObject, JsonValue

ParameterSource = Literal[
    "intent",
    "period.start",
    "period.end",
    "previous.start",
    "previous.end",
    "following.start",
    "following.end",
    "amount",
    "choice",
    "second_choice",
    "choices",
]


class PlaybookParameter(Frozen):
    """One parameter of a playbook.

    Filled, in this order, from the caller's ``context.values[name]`` (as a reference, so its provenance stays visible), from
    the words of the intent as ``source`` says, then from ``default``. ``source``: the intent itself; the first day or last
    day of the period it names, of the one before, or of the one after (without a named period: the last complete quarter);
    the first amount; the first choice, the second, or all ``choices`` named by their own words or a synonym. A required
    parameter that stays empty makes the playbook unfit.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)
    description: str = ""
    source: ParameterSource | None = None
    required: bool = False
    default: JsonValue = None
    choices: tuple[str, ...] = ()
    synonyms: dict[str, tuple[str, ...]] = Field(default_factory=dict)


class Playbook(Frozen):
    """A plan with ``{"$param": name}`` where a parameter's value goes, and the sentences by which the router finds it."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    title: str
    description: str
    examples: tuple[str, ...] = Field(min_length=1)
    parameters: tuple[PlaybookParameter, ...] = ()
    plan: JsonObject
