"""The loaded app as the durable engine sees it: orchestrators, entities and activities by name.

Resolution order per kind: durable name from the trigger, function name, Python `__name__` (which the SDK sends when
user code passes a function object); all case-insensitive, earlier rules win over later ones across all functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from azure.functions.meta import Datum

from local_host.durable.functions import ActivityError
from local_host.invocation import FunctionError, Invoker, TriggerInput, converter_of
from local_host.invocation_context import Trace
from local_host.specs import ActivityTrigger, EntityTrigger, FunctionSpec, OrchestrationTrigger


class AppDurableFunctions:
    """Implements `durable.functions.DurableFunctions` over specs and an invoker."""

    def __init__(self, specs: Iterable[FunctionSpec], invoker: Invoker) -> None:
        specs = tuple(specs)
        self._invoker = invoker
        self._orchestrators = _by_name(specs, OrchestrationTrigger)
        self._activities = _by_name(specs, ActivityTrigger)
        self._entities = _by_name(specs, EntityTrigger)

    def has_orchestrator(self, name: str) -> bool:
        """True when `name` is an orchestrator of the app."""
        return name.lower() in self._orchestrators

    def has_activity(self, name: str) -> bool:
        """True when `name` is an activity of the app."""
        return name.lower() in self._activities

    def has_entity(self, name: str) -> bool:
        """True when `name` is an entity of the app."""
        return name.lower() in self._entities

    def orchestrator(self, name: str) -> Callable[[str], str]:
        """The SDK's orchestrator wrapper; KeyError for an unknown name."""
        return self._orchestrators[name.lower()].call

    def entity(self, name: str) -> Callable[[str], str]:
        """The SDK's entity wrapper; KeyError for an unknown name."""
        return self._entities[name.lower()].call

    async def call_activity(self, name: str, input_json: str | None, *, instance_id: str, task_id: int) -> str | None:
        """Run one activity once; see `DurableFunctions.call_activity`."""
        spec = self._activities[name.lower()]
        datum = Datum(input_json, "json") if input_json is not None else None
        try:
            result = await self._invoker.call(spec, TriggerInput(datum, {}), Trace.new())
            return _encode_result(spec, result)
        except FunctionError as err:
            raise ActivityError(err.type_name, err.message, err.stack) from err


def _encode_result(spec: FunctionSpec, result: Any) -> str | None:
    if result is None:
        return None
    try:
        datum = converter_of("activityTrigger").encode(result, expected_type=None)
    except Exception as err:
        raise FunctionError(spec.name, err) from err
    return str(datum.value)


def _by_name(specs: Iterable[FunctionSpec], kind: type[Any]) -> dict[str, FunctionSpec]:
    chosen = [spec for spec in specs if isinstance(spec.trigger, kind)]
    names: dict[str, FunctionSpec] = {}
    for name_of in (_durable_name, lambda spec: spec.name, lambda spec: spec.python_name):
        for spec in chosen:
            names.setdefault(name_of(spec).lower(), spec)
    return names


def _durable_name(spec: FunctionSpec) -> str:
    assert isinstance(spec.trigger, OrchestrationTrigger | ActivityTrigger | EntityTrigger)
    return spec.trigger.durable_name
