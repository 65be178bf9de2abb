"""What the host knows about the functions of a loaded app, as frozen data.

Deliberately without behaviour: `app_index` builds these from the SDK's objects, everything else reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class AuthLevel(StrEnum):
    """Which key a caller of an HTTP function must show."""

    ANONYMOUS = "ANONYMOUS"
    FUNCTION = "FUNCTION"
    ADMIN = "ADMIN"


class Cardinality(StrEnum):
    """Whether a queue function receives one message or a batch."""

    ONE = "ONE"
    MANY = "MANY"


@dataclass(frozen=True, slots=True)
class HttpTrigger:
    """`methods` is None when every method is served; `route` is the template without the route prefix."""

    param: str
    route: str
    methods: frozenset[str] | None
    auth_level: AuthLevel
    returns_http: bool


@dataclass(frozen=True, slots=True)
class TimerTrigger:
    """`schedule` is NCRONTAB or a TimeSpan, with `%SETTING%` already expanded."""

    param: str
    schedule: str
    run_on_startup: bool
    use_monitor: bool


@dataclass(frozen=True, slots=True)
class QueueTrigger:
    """`entity` is a queue name or `topic/Subscriptions/subscription`, settings expanded."""

    param: str
    entity: str
    sessions: bool
    cardinality: Cardinality


@dataclass(frozen=True, slots=True)
class OrchestrationTrigger:
    """`durable_name` is the name the durable extension registers."""

    param: str
    durable_name: str


@dataclass(frozen=True, slots=True)
class ActivityTrigger:
    """`durable_name` is the name the durable extension registers."""

    param: str
    durable_name: str


@dataclass(frozen=True, slots=True)
class EntityTrigger:
    """`durable_name` is the entity name, in the app's own spelling."""

    param: str
    durable_name: str


Trigger = HttpTrigger | TimerTrigger | QueueTrigger | OrchestrationTrigger | ActivityTrigger | EntityTrigger


@dataclass(frozen=True, slots=True)
class QueueOutput:
    """A serviceBus output binding; `param` is `$return` for the return value, `is_topic` tells topic from queue."""

    param: str
    entity: str
    is_topic: bool = False


@dataclass(frozen=True, slots=True)
class ClientInput:
    """A durable client binding; `task_hub` is None for the app's own hub."""

    param: str
    task_hub: str | None


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """One function of the app.

    `call` is what the real worker would call (for durable clients the SDK's async wrapper). `pass_through` is the
    trigger parameter's annotation when it is `str` or `bytes` (the worker then hands over the raw datum).
    """

    name: str
    python_name: str
    call: Callable[..., Any]
    is_async: bool
    trigger: Trigger
    clients: tuple[ClientInput, ...] = ()
    outputs: tuple[QueueOutput, ...] = ()
    wants_context: bool = False
    pass_through: type[str] | type[bytes] | None = None
    retry_configured: bool = False
