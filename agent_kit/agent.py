"""An agent as its author sees it: a set of capabilities, each one typed async function.

    agent = Agent(manifests)

    @agent.capability("rates.lookup")
    async def lookup(inputs: LookupInputs, context: StepContext) -> dict[str, Any]: ...

The type of ``inputs`` is a pydantic model; it gets what the manifest's schema let through.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar, get_type_hints

from pydantic import BaseModel, ValidationError

from agent_kit.schemas import CompiledSchema
from engine.domain.base import JsonObject
from engine.domain.capability import Capability
from engine.domain.execute import RESULT_UNKNOWN, ExecuteError, ExecuteProgress, ExecuteRequest, Usage

P = ParamSpec("P")
T = TypeVar("T")
MAX_MESSAGE = 200
Handler = Callable[[Any, "StepContext"], Awaitable[Any]]


class CapabilityError(Exception):
    """A capability could not do it, and says why: a stable ``code``, words for people, and whether to try again.

    It is the capability's word that nothing is left of what it began, and frees the key: the next call with it begins anew.
    Who does not know says so with the code ``RESULT_UNKNOWN``, which is kept as the last word unless the manifest lets it repeat.
    """

    def __init__(self, code: str, message: str, *, retryable: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        again = retryable and code != RESULT_UNKNOWN
        self.error = ExecuteError(code=code, message=message, retryable=again, retry_after_s=retry_after_s)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


@dataclass(slots=True)
class StepContext:
    """What a capability may know about the call beside its inputs. ``usage`` may be set to report the real cost."""

    request: ExecuteRequest
    manifest: Capability
    executor: Executor
    traceparent: str | None = None
    """W3C trace context for the calls that the capability makes itself."""
    usage: Usage | None = None
    cancelled: bool = False
    """Whether somebody asked to stop: for work in ``compute`` to look at, which nobody can stop from outside."""
    interrupted: bool = False
    """Whether it is the agent that is shut down: the call will be made again, and may find what goes on elsewhere."""
    overdue: bool = False
    """Whether its deadline has passed. For the kit."""
    begun: bool = False
    """Whether it may have had its effect: it was called, and has not said otherwise by ``CapabilityError``. For the kit."""
    latest: ExecuteProgress | None = None
    pending: set[asyncio.Future[Any]] = field(default_factory=set)
    _loop: asyncio.AbstractEventLoop | None = field(default_factory=_running_loop)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def tenant_id(self) -> str:
        """The tenant whose data the call is about."""
        return self.request.tenant_id

    def progress(self, fraction: float | None = None, message: str = "") -> None:
        """Say how far the work is: ``fraction`` from 0 to 1, words without data. From any thread; the latest counts."""
        bounded = None if fraction is None else min(max(fraction, 0.0), 1.0)
        self.latest = ExecuteProgress(fraction=bounded, message=message[:MAX_MESSAGE])
        self.wake()

    def wake(self) -> None:
        """Let those look who wait for news. For the kit."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)

    async def changed(self, timeout_s: float) -> None:
        """Wait for news, at most ``timeout_s``. For the kit."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        self._news.clear()

    async def compute(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run CPU-bound work off the event loop.

        Work that has begun cannot be stopped: at the deadline the caller gets its answer, the execution goes on to its end and
        its success is stored for the retry. What follows the work has a few seconds then. Work that still waits for a thread
        when the call is stopped or its deadline passes does not begin.
        """

        def work() -> T:
            if self.cancelled or self.overdue:
                raise asyncio.CancelledError
            return function(*args, **kwargs)

        future = asyncio.get_running_loop().run_in_executor(self.executor, work)
        self.pending.add(future)
        try:
            result = await future
        finally:
            self.pending.discard(future)
        if self.cancelled:
            raise asyncio.CancelledError  # asked for while the work could not be stopped
        return result


@dataclass(frozen=True, slots=True)
class Registered:
    """A capability that the agent serves."""

    manifest: Capability
    handler: Handler
    inputs_model: type[BaseModel]
    input_schema: CompiledSchema
    output_schema: CompiledSchema
    streams: bool = False

    def parse(self, inputs: JsonObject) -> BaseModel:
        """The typed inputs. ``CapabilityError`` where the model is stricter than the manifest's schema."""
        try:
            return self.inputs_model.model_validate(inputs)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = "/".join(str(part) for part in first["loc"])
            raise CapabilityError("agent.inputs_invalid", f"/{place}: {first['msg']}") from None


class Agent:
    """A set of capabilities. ``manifests`` holds at least those that get registered."""

    def __init__(self, manifests: Mapping[str, Capability]) -> None:
        self._manifests = manifests
        self._registered: dict[str, Registered] = {}

    @property
    def capabilities(self) -> Mapping[str, Registered]:
        """What is served, by name."""
        return self._registered

    def capability(self, name: str, *, streams: bool = False) -> Callable[[Handler], Handler]:
        """Register the decorated function under ``name``.

        ``streams``: callers that accept it are answered with a stream of progress while they are connected; without, they are
        told to come back when the work takes longer than they want to wait. The execution is the same either way.
        Raises ``ValueError`` for a name without a manifest or registered twice, ``TypeError`` for a function that is not async
        or whose first parameter is not annotated with a pydantic model. Both are mistakes found at start.
        """

        def register(handler: Handler) -> Handler:
            if name not in self._manifests:
                raise ValueError(f"{name} has no manifest")
            if name in self._registered:
                raise ValueError(f"{name} is registered twice")
            manifest = self._manifests[name]
            self._registered[name] = Registered(
                manifest=manifest,
                handler=handler,
                inputs_model=_inputs_model(name, handler),
                input_schema=CompiledSchema(manifest.input_schema),
                output_schema=CompiledSchema(manifest.output_schema),
                streams=streams,
            )
            return handler

        return register


def _inputs_model(name: str, handler: Handler) -> type[BaseModel]:
    if not inspect.iscoroutinefunction(handler):
        raise TypeError(f"{name}: a capability is an async function")
    parameters = list(inspect.signature(handler).parameters)
    hint = get_type_hints(handler).get(parameters[0]) if parameters else None
    if not (isinstance(hint, type) and issubclass(hint, BaseModel)):
        raise TypeError(f"{name}: the first parameter must be annotated with a pydantic model")
    return hint
