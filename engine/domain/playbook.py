"""A playbook: a parameterised plan used when no model is available. One YAML page each in ``catalog/playbooks``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from engine.domain.base import Frozen, JsonObject, JsonValue

ParameterType = Literal["string", "integer", "number", "date", "choice"]


class PlaybookParameter(Frozen):
    """One typed parameter.

    Filled from ``run#/context/values/{name}`` first, then from the intent (a date, a number, or one of ``choices`` with its
    ``synonyms`` found in the words), then ``default``; a required one that stays empty makes the playbook unfit.
    """

    name: str
    type: ParameterType
    description: str = ""
    required: bool = False
    default: JsonValue = None
    choices: tuple[str, ...] = ()
    synonyms: dict[str, tuple[str, ...]] = Field(default_factory=dict)


class Playbook(Frozen):
    """A plan with ``{"$param": name}`` where a parameter's value goes, and the words by which the router finds it."""

    name: str
    version: str
    title: str
    description: str
    examples: tuple[str, ...]
    parameters: tuple[PlaybookParameter, ...] = ()
    plan: JsonObject
