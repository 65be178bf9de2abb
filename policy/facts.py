"""What the policy language is told about a plan and about one of its steps. Computed by ``policy.flow``, decided on by Cedar.

Plain values only: no references into plans, no behaviour. Integrity runs from 0 (web, documents) to 3 (the user's own words);
confidentiality from 0 (public) to 3. The meet of two labels takes the lower integrity and the higher confidentiality.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.domain.capability import ParameterClass


@dataclass(frozen=True, slots=True)
class Label:
    """How far a value may be trusted, how far it may travel, and whether it is about a person."""

    integrity: int
    confidentiality: int
    pii: bool

    def meet(self, other: Label) -> Label:
        """The label of a value made from both."""
        return Label(
            min(self.integrity, other.integrity),
            max(self.confidentiality, other.confidentiality),
            self.pii or other.pii,
        )


TRUSTED = Label(3, 0, False)
"""The neutral element of ``meet``: public, the user's own."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Why a label is what it is: the way from the source that pulled it down (or up) to the place of use, source first."""

    path: tuple[str, ...]
    pointer: str = ""


@dataclass(frozen=True, slots=True)
class ArgumentFacts:
    """One argument of a step: its class, its label, where its worst integrity, its confidentiality and its ``pii`` come from.

    ``bound`` is false when the value is not known before the steps it comes from have run. ``personal`` are JSON Pointers
    into the inputs (``/details/name``) of the smallest parts that carry personal data; the argument itself when it cannot be
    said more exactly. They are what a redaction replaces.
    """

    name: str
    parameter_class: ParameterClass
    label: Label
    integrity_from: Origin | None = None
    confidentiality_from: Origin | None = None
    bound: bool = True
    personal: tuple[str, ...] = ()
    pii_from: Origin | None = None


@dataclass(frozen=True, slots=True)
class StepFacts:
    """One step: labels per argument, of all selectors together, of what decides whether and how often it runs (``control``),
    of its output, and the hosts outside that its arguments or its manifest name."""

    step_id: str
    capability: str
    arguments: tuple[ArgumentFacts, ...]
    selectors: Label
    payload: Label
    control: Label
    output: Label
    control_from: Origin | None = None
    external_hosts: frozenset[str] = frozenset()
    untrusted_hosts: frozenset[str] = frozenset()
    """Hosts in arguments whose integrity is below that of the tenant's own configuration (2)."""
    items_at_most: int = 1
    selectors_from: Origin | None = None
    """Of ``selectors``, which includes how many items a ``for_each`` has: a count is a selector too."""


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """The plan as a whole: size, shape, cost, and its steps by id."""

    steps: Mapping[str, StepFacts]
    step_count: int
    depth: int
    fan_out: int
    cost_micro_usd: int
    external_hosts: frozenset[str] = field(default=frozenset())
