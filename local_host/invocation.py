"""Calls one function of the app: inputs decoded, outputs encoded, sync code kept off the event loop.

Conversions are the SDK's own (its binding registry); this module only decides what goes in and where results go.
It deliberately applies no retry policy: queues redeliver, orchestrations retry, HTTP callers decide.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import azure.functions as func
from azure.functions.meta import Datum, get_binding_registry

from local_host.invocation_context import InvocationContext, Trace
from local_host.specs import ActivityTrigger, FunctionSpec, HttpTrigger, QueueTrigger, TimerTrigger

QueueSend = Callable[[str, bytes], None]
ClientJson = Callable[[str | None, bool], str]


class FunctionError(Exception):
    """A function raised, or returned what its binding cannot carry; the cause is chained."""

    def __init__(self, function_name: str, cause: BaseException) -> None:
        super().__init__(f"function {function_name!r} failed: {type(cause).__name__}: {cause}")
        self.function_name = function_name
        self.type_name = type(cause).__name__
        self.message = str(cause)
        self.stack = "".join(traceback.format_exception(cause))

    def host_text(self) -> str:
        """The layout in which the platform's host reports a worker failure; for logs, never for callers."""
        return (
            f"Result: Failure\nType: {self.type_name}\nException: {self.type_name}: {self.message}\nStack: {self.stack}"
        )


class Output(func.Out[Any]):
    """The object behind a `func.Out[...]` parameter; None means "no output"."""

    def __init__(self) -> None:
        self._value: Any = None

    def set(self, val: Any) -> None:
        """Set the value to send when the function returns."""
        self._value = val

    def get(self) -> Any:
        """What was set last."""
        return self._value


@dataclass(frozen=True, slots=True)
class TriggerInput:
    """What set a function off: the datum of its trigger and the trigger's metadata."""

    datum: Datum | None
    metadata: Mapping[str, Datum]


class Invoker:
    """Runs functions of one loaded app.

    `queue_send(entity, body)` receives serviceBus outputs; `client_json(task_hub, from_within)` gives the durable
    client's JSON, `from_within` for activities.
    Coroutine functions run on the calling event loop, plain ones in a pool of PYTHON_THREADPOOL_THREAD_COUNT threads
    (default min(32, cpu + 4), as in the worker). A call that takes longer than `timeout_s` (host.json functionTimeout)
    fails; a plain function's thread cannot be stopped and runs on unheard, where the platform would end the process.
    """

    def __init__(
        self,
        app_dir: Path,
        environment: Mapping[str, str],
        *,
        queue_send: QueueSend,
        client_json: ClientJson,
        timeout_s: float | None = None,
    ) -> None:
        self._app_dir = app_dir
        self._queue_send = queue_send
        self._client_json = client_json
        self._timeout_s = timeout_s
        self._pool = ThreadPoolExecutor(thread_pool_size(environment), thread_name_prefix="function")

    def close(self) -> None:
        """Give up the thread pool; functions already running in it run to their end."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def call(self, spec: FunctionSpec, trigger: TriggerInput, trace: Trace | None = None) -> Any:
        """Decode the input, call the function, deliver its outputs; returns the function's return value.

        Raises FunctionError for anything that goes wrong inside; outputs are sent only after success.
        """
        try:
            value = decode_trigger(spec, trigger)
        except Exception as err:
            raise FunctionError(spec.name, err) from err
        return await self.call_with_value(spec, value, trace)

    async def call_with_value(self, spec: FunctionSpec, value: Any, trace: Trace | None = None) -> Any:
        """Like `call`, for a trigger value that needs no decoding (a web framework's request object)."""
        outputs = {output.param: Output() for output in spec.outputs if output.param != "$return"}
        arguments: dict[str, Any] = {spec.trigger.param: value, **outputs}
        try:
            from_within = isinstance(spec.trigger, ActivityTrigger)
            for client in spec.clients:
                arguments[client.param] = self._client_json(client.task_hub, from_within)
            if spec.wants_context:
                arguments["context"] = InvocationContext(spec.name, str(self._app_dir), trace or Trace.new())
            async with asyncio.timeout(self._timeout_s):
                result = await self._run(spec, arguments)
            self._deliver(spec, outputs, result)
        except asyncio.CancelledError as err:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # somebody cancelled this call
            raise FunctionError(spec.name, err) from err  # something inside the function was cancelled
        except (Exception, SystemExit) as err:
            # SystemExit: asyncio would end the whole host for one function's sys.exit().
            raise FunctionError(spec.name, err) from err
        return result

    async def _run(self, spec: FunctionSpec, arguments: dict[str, Any]) -> Any:
        if spec.is_async:
            return await spec.call(**arguments)
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        return await loop.run_in_executor(self._pool, lambda: context.run(spec.call, **arguments))

    def _deliver(self, spec: FunctionSpec, outputs: Mapping[str, Output], result: Any) -> None:
        # Everything is encoded before anything is sent: a bad second output must not leave the first one sent.
        bodies: list[tuple[str, bytes]] = []
        for output in spec.outputs:
            value = result if output.param == "$return" else outputs[output.param].get()
            if value is not None:
                bodies.append((output.entity, _encode_message(value)))
        for entity, body in bodies:
            self._queue_send(entity, body)


def thread_pool_size(environment: Mapping[str, str]) -> int:
    """Threads for synchronous functions; an unusable setting falls back to the worker's default."""
    text = environment.get("PYTHON_THREADPOOL_THREAD_COUNT", "")
    default = min(32, (os.cpu_count() or 1) + 4)
    return min(int(text), 1024) if text.isdecimal() and int(text) > 0 else default


def converter_of(binding_type: str) -> Any:
    """The SDK's converter class for a binding type."""
    return get_binding_registry().get(binding_type)  # type: ignore[no-untyped-call]  # the SDK ships no annotation


def decode_trigger(spec: FunctionSpec, trigger: TriggerInput) -> Any:
    """The Python value for the trigger parameter. Raises what the SDK's converter raises."""
    match spec.trigger:
        case HttpTrigger():
            return converter_of("httpTrigger").decode(trigger.datum, trigger_metadata=trigger.metadata)
        case TimerTrigger() | QueueTrigger() if spec.pass_through is not None:
            return _raw_value(trigger.datum, spec.pass_through)
        case TimerTrigger():
            return converter_of("timerTrigger").decode(trigger.datum, trigger_metadata=trigger.metadata)
        case QueueTrigger():
            return converter_of("serviceBusTrigger").decode(trigger.datum, trigger_metadata=trigger.metadata)
        case ActivityTrigger():
            # The converter cannot take a missing datum; "no input" is JSON null on the wire.
            datum = trigger.datum or Datum("null", "json")
            return converter_of("activityTrigger").decode(datum, trigger_metadata=trigger.metadata)
        case _:
            raise TypeError(f"{type(spec.trigger).__name__} is run by the durable engine, not by the invoker")


def _raw_value(datum: Datum | None, wanted: type[str] | type[bytes]) -> Any:
    value = datum.value if datum is not None else ""
    if wanted is str and isinstance(value, bytes):
        return value.decode()
    if wanted is bytes and isinstance(value, str):
        return value.encode()
    return value


def _encode_message(value: Any) -> bytes:
    datum = converter_of("serviceBus").encode(value, expected_type=None)
    return datum.value.encode() if isinstance(datum.value, str) else bytes(datum.value)
