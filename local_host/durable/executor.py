"""Drivers that run an orchestrator through the SDK: cold (full JSON replay) and warm (live generator).

Cold is the protocol the Azure host speaks: one JSON request, one JSON state. Warm keeps the SDK's executor alive and feeds
it only new events; it touches a few SDK internals (`execute`, `process_event`, `has_execution_completed`, the context's
action list), so it refuses politely when they are not where 1.7 has them, and the engine then stays cold. Payloads still cross
the border as JSON text in both.
"""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from local_host.durable.history import Event, to_row
from local_host.durable.protocol import OUT_OF_PROC_MARKER

_LOG = logging.getLogger("local_host.durable")

Wrapper = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Reply:
    """What one invocation of an orchestrator said.

    `actions` are wire actions: all of them, or with `is_tail` only the new ones. `cancelled` are leaf indexes of timers that
    became cancelled (tail replies only). `error` is user code's failure; `broken` means the SDK itself gave up (no usable state).
    `output_json` and `custom_status_json` are JSON text or None.
    """

    actions: Sequence[dict[str, Any]] = ()
    is_tail: bool = False
    cancelled: Sequence[int] = ()
    done: bool = False
    output_json: str | None = None
    custom_status_json: str | None = None
    error: str | None = None
    broken: str | None = None


def sdk_input(input_json: str | None) -> str | None:
    """The context's `input` for a start document.

    The SDK sends its input as a JSON string that holds JSON; anything else came from a plain webhook body and is handed over as
    text, because `get_input()` can only decode text.
    """
    if input_json is None:
        return None
    document = json.loads(input_json)
    if not isinstance(document, str):
        return json.dumps(document)
    try:
        json.loads(document)
    except ValueError:
        return json.dumps(document)
    return document


@dataclass(frozen=True, slots=True)
class TimerLimits:
    """Durations a storage back end imposes, as .NET time spans; Azure Storage has `6.00:00:00` and `3.00:00:00`."""

    max_short_timer: str
    long_timer_interval: str


def event_text(event: Event) -> str:
    """One event as the request carries it. History only grows, so a host that replays keeps these texts."""
    return json.dumps(to_row(event))


def request_json(
    events: Iterable[Event],
    input_json: str | None,
    instance_id: str,
    parent_id: str | None,
    limits: TimerLimits | None = None,
) -> str:
    """One orchestrator request. Without `limits` the durations are left out and the SDK never splits long timers."""
    return request_of_texts([event_text(event) for event in events], input_json, instance_id, parent_id, limits)


def request_of_texts(
    event_texts: Sequence[str],
    input_json: str | None,
    instance_id: str,
    parent_id: str | None,
    limits: TimerLimits | None = None,
) -> str:
    """`request_json` of events whose texts (`event_text`) are at hand."""
    durations = (
        {
            "maximumShortTimerDuration": limits.max_short_timer,
            "longRunningTimerIntervalDuration": limits.long_timer_interval,
        }
        if limits
        else {}
    )
    frame = json.dumps(
        {
            **durations,
            "input": sdk_input(input_json),
            "instanceId": instance_id,
            "isReplaying": False,
            "parentInstanceId": parent_id,
            "upperSchemaVersion": 1,
            "upperSchemaVersionNew": 2,
        }
    )
    return f'{{"history": [{", ".join(event_texts)}], {frame[1:]}'


def run_cold(wrapper: Wrapper, request: str) -> Reply:
    """One full replay."""
    try:
        text = wrapper(request)
    except (Exception, SystemExit) as err:  # SystemExit in user code must not end the host
        return reply_of_failure(err)
    return reply_of_state(json.loads(text))


def reply_of_failure(err: BaseException) -> Reply:
    """The failure channel: user code's error with the state behind the marker, or a break of the SDK without it."""
    message, marker, state = str(err).rpartition(OUT_OF_PROC_MARKER)
    if not marker:
        return Reply(broken=str(err) or repr(type(err)))
    return reply_of_state(json.loads(state), message)


def reply_of_state(state: dict[str, Any], message: str | None = None) -> Reply:
    """A state object as a Reply. `error` wins over `isDone`: both can be present."""
    error = state.get("error") or message
    return Reply(
        actions=state["actions"][0] if state["actions"] else (),
        done=bool(state["isDone"]),
        output_json=json.dumps(state["output"]) if state.get("output") is not None else None,
        custom_status_json=json.dumps(state["customStatus"]) if "customStatus" in state else None,
        error=error,
    )


class WarmUnavailableError(Exception):
    """This wrapper or this SDK version cannot be driven warm."""


class WarmInstance:
    """A live orchestrator. After any exception it must be thrown away: the SDK may be half-advanced."""

    def __init__(self, wrapper: Wrapper) -> None:
        from azure.durable_functions.models.DurableOrchestrationContext import DurableOrchestrationContext
        from azure.durable_functions.models.history import HistoryEvent
        from azure.durable_functions.models.TaskOrchestrationExecutor import TaskOrchestrationExecutor

        function = getattr(wrapper, "orchestrator_function", None)
        if function is None:
            raise WarmUnavailableError("the wrapper has no orchestrator_function")
        for name in ("execute", "process_event", "get_orchestrator_state_str", "has_execution_completed"):
            if not hasattr(TaskOrchestrationExecutor, name):
                raise WarmUnavailableError(f"the SDK's executor has no {name}")
        self._function = function
        self._input_type = getattr(wrapper, "_df_input_type", None)
        self._context_class, self._event_class = DurableOrchestrationContext, HistoryEvent
        self._executor: Any = TaskOrchestrationExecutor()
        self._context: Any = None
        self._known = 0
        self._leaf_count = 0
        self._timers: dict[int, Any] = {}

    def start(self, request: str) -> Reply:
        """First invocation, or a rebuild: a full replay that leaves the generator alive."""
        self._context = self._context_class.from_json(request)
        self._context._input_expected_type = self._input_type
        if not hasattr(self._context, "_action_payload_v2"):
            raise WarmUnavailableError("the SDK's context has no v2 action list")
        try:
            self._executor.execute(self._context, self._context.histories, self._function)
        except (Exception, SystemExit) as err:
            if getattr(self._executor, "exception", None) is None:
                return reply_of_failure(err)
        return self._reply()

    def feed(self, events: Iterable[Event]) -> Reply:
        """Process new events; the reply is a tail."""
        try:
            for event in events:
                history_event = self._event_class(**to_row(event))
                self._context._histories.append(history_event)
                self._executor.process_event(history_event)
                if self._executor.has_execution_completed:
                    break
        except (Exception, SystemExit) as err:
            return reply_of_failure(err)
        return self._reply()

    def _reply(self) -> Reply:
        payload = self._context._action_payload_v2
        tail = payload[self._known :]
        self._known = len(payload)
        cancelled = [index for index, action in self._timers.items() if action.is_cancelled]
        for index in cancelled:
            del self._timers[index]
        actions = json.loads(json.dumps([self._wire(action) for action in tail]))
        if self._executor.has_execution_completed:
            return self._final(actions, cancelled)
        status = self._context.custom_status
        status_json = json.dumps(status) if status else None
        return Reply(actions, True, cancelled, custom_status_json=status_json)

    def _final(self, actions: list[dict[str, Any]], cancelled: list[int]) -> Reply:
        """Let the SDK itself say how it ended, so that its serialisation rules apply."""
        try:
            end = reply_of_state(json.loads(self._executor.get_orchestrator_state_str()))
        except Exception as err:  # the SDK's failure channel is an exception
            end = reply_of_failure(err)
        return Reply(actions, True, cancelled, end.done, end.output_json, end.custom_status_json, end.error, end.broken)

    def _wire(self, action: Any) -> dict[str, Any]:
        self._register(action)
        wire: dict[str, Any] = action.to_json()
        return wire

    def _register(self, action: Any) -> None:
        """Count leaves as `Listing` does and remember timers that may still be cancelled."""
        children = getattr(action, "compound_tasks", None)
        if children is not None:
            for child in children:
                self._register(child)
            return
        if hasattr(action, "is_cancelled") and not action.is_cancelled:
            self._timers[self._leaf_count] = action
        self._leaf_count += 1


def patch_timestamp_parser() -> bool:
    """Replace the SDK's per-event dateutil parse by `datetime.fromisoformat`; True when it is in place.

    About 50 microseconds per history event per replay otherwise. Falls back to the original for texts that
    fromisoformat refuses, and leaves everything alone when the SDK's internals moved.
    """
    try:
        module = importlib.import_module("azure.durable_functions.models.history.HistoryEvent")
    except ImportError:
        module = None
    original = getattr(module, "dt_parse", None)
    if module is None or original is None:
        _LOG.warning("The durable SDK's timestamp parser is not where it was in 1.7; replays will be slower")
        return False
    if getattr(original, "_livoa_fast", False):
        return True

    def fast(text: str) -> datetime:
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            parsed: datetime = original(text)
            return parsed

    fast._livoa_fast = True  # type: ignore[attr-defined]  # marks our own function, so that patching twice is harmless
    module.__dict__["dt_parse"] = fast  # the module-level name the SDK calls
    return True
