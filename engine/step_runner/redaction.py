"""The cures that change what is sent: redaction takes a whole value out of a call, masking the personal data inside a
text.

Places stay. A value that cannot be replaced by text (its schema wants a number, or an object) cannot be redacted, and
the call is refused: what would be left of it is nobody's to invent.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from engine.domain.base import JsonObject
from engine.domain.capability import Capability
from engine.domain.personal_data import PersonalDataType, masked
from engine.domain.policy import REDACTED
from engine.plan import validate_inputs
from engine.plan.pointers import Nowhere, array_index, parse_pointer, resolve
from engine.ports.personal_data import PersonalDataDetector


def redacted_inputs(inputs: JsonObject, pointers: Iterable[str], capability: Capability) -> JsonObject | None:
    """A copy of ``inputs`` with the values at ``pointers`` replaced, or None when one of them leads nowhere or to the whole, or
    when what is left does not fit the capability's input schema."""
    result = copy.deepcopy(inputs)
    # Deepest first: what stands inside another redacted value is there only until that one goes.
    for tokens in sorted(map(parse_pointer, pointers), key=lambda tokens: len(tokens or ()), reverse=True):
        if not tokens or isinstance(resolve(result, tokens), Nowhere):
            return None
        parent: Any = resolve(result, tokens[:-1])
        place = array_index(tokens[-1]) if isinstance(parent, list) else tokens[-1]
        parent[place] = REDACTED
    return None if validate_inputs(capability, result) else result


def masked_inputs(
    inputs: JsonObject,
    pointers: Iterable[str],
    capability: Capability,
    detector: PersonalDataDetector,
    types: tuple[PersonalDataType, ...],
) -> JsonObject | None:
    """A copy of ``inputs`` with every piece of these types masked in the texts at ``pointers``, or None when one of
    them is no text or what is left does not fit the capability's input schema. Blocking."""
    result = copy.deepcopy(inputs)
    for tokens in map(parse_pointer, pointers):
        text = resolve(result, tokens) if tokens else None
        if not tokens or not isinstance(text, str):
            return None
        parent: Any = resolve(result, tokens[:-1])
        place = array_index(tokens[-1]) if isinstance(parent, list) else tokens[-1]
        parent[place] = masked(text, detector.find(text, types))
    return None if validate_inputs(capability, result) else result
