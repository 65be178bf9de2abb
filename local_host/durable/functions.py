"""What the durable engine needs from the loaded app, and nothing more.

The rest of the host implements `DurableFunctions`; the engine never sees a `FunctionApp`. Names resolve
case-insensitively: trigger name first, then function name, then the Python `__name__` (the SDK sends the last one
when user code passes a function object).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class ActivityError(Exception):
    """An activity function raised.

    `type_name` is the Python exception class, `message` is `str(exc)`, `details` a formatted traceback. They end up
    in durable history as the text the Azure host would have produced; keep secrets out of them.
    """

    def __init__(self, type_name: str, message: str, details: str = "") -> None:
        super().__init__(f"{type_name}: {message}")
        self.type_name = type_name
        self.message = message
        self.details = details


class DurableFunctions(Protocol):
    """The app's orchestrators, entities and activities, by name (resolution rules in the module docstring)."""

    def has_orchestrator(self, name: str) -> bool:
        """True when `name` is an orchestrator of the app."""
        ...

    def has_activity(self, name: str) -> bool:
        """True when `name` is an activity of the app."""
        ...

    def has_entity(self, name: str) -> bool:
        """True when `name` is an entity of the app (entity names are lower-cased inside ids)."""
        ...

    def orchestrator(self, name: str) -> Callable[[str], str]:
        """The SDK's wrapper: JSON request in, JSON state out.

        It raises an exception whose text carries the `$OutOfProcData$` marker when user code failed. The wrapper's
        `orchestrator_function` attribute (the user's generator function) is needed for warm instances; without it
        the engine replays cold. Raises KeyError for an unknown name.
        """
        ...

    def entity(self, name: str) -> Callable[[str], str]:
        """The SDK's entity wrapper: JSON batch request in, JSON state out. Raises KeyError for an unknown name."""
        ...

    async def call_activity(self, name: str, input_json: str | None, *, instance_id: str, task_id: int) -> str | None:
        """Run one activity once. `input_json` and the result are JSON text (None: no value).

        At-least-once: the engine may call it again with the same (instance_id, task_id) after a crash.
        Raises ActivityError when the function raised, KeyError for an unknown name.
        """
        ...
