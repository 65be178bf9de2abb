"""JSON bodies of the management API: instance status with its history projection, management links, errors. Pure.

The history projection follows the extension: started/completed markers and scheduled events disappear, their time and name move
into the completion. It sends `historyEvents`; the Python SDK looks for `history`, so both keys are filled.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from local_host.durable.history import (
    Event,
    EventRaised,
    EventSent,
    EventType,
    ExecutionCompleted,
    ExecutionStarted,
    Lifecycle,
    OrchestratorCompleted,
    OrchestratorStarted,
    SubCompleted,
    SubCreated,
    SubFailed,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
    TimerFired,
)
from local_host.durable.records import Instance

Json = dict[str, Any]

_NAMES = {
    EventType.EXECUTION_STARTED: "ExecutionStarted",
    EventType.EXECUTION_COMPLETED: "ExecutionCompleted",
    EventType.EXECUTION_TERMINATED: "ExecutionTerminated",
    EventType.TASK_COMPLETED: "TaskCompleted",
    EventType.TASK_FAILED: "TaskFailed",
    EventType.SUB_COMPLETED: "SubOrchestrationInstanceCompleted",
    EventType.SUB_FAILED: "SubOrchestrationInstanceFailed",
    EventType.TIMER_FIRED: "TimerFired",
    EventType.EVENT_SENT: "EventSent",
    EventType.EVENT_RAISED: "EventRaised",
    EventType.EXECUTION_SUSPENDED: "ExecutionSuspended",
    EventType.EXECUTION_RESUMED: "ExecutionResumed",
    EventType.EXECUTION_REWOUND: "ExecutionRewound",
}


def short_stamp(stamp: str) -> str:
    """Seconds precision, as the management API writes times."""
    return f"{stamp[:19]}Z"


def json_or_text(text: str | None) -> Any:
    """The parsed document, or the text itself when it is not JSON."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def status_json(item: Instance, *, show_input: bool) -> Json:
    """The status object of an instance, without history."""
    output = json_or_text(item.output) if item.output_is_json else item.output
    return {
        "name": item.name,
        "instanceId": item.instance_id,
        "runtimeStatus": item.runtime_status,
        "input": json_or_text(item.input_json) if show_input else None,
        "customStatus": json_or_text(item.custom_status_json),
        "output": output,
        "createdTime": short_stamp(item.created_at),
        "lastUpdatedTime": short_stamp(item.updated_at),
    }


def history_json(events: list[Event], *, show_input: bool, show_output: bool) -> list[Json]:
    """The projection of a history; inputs and results only where asked for."""
    scheduled: dict[int, tuple[str, str]] = {}
    shown: list[Json] = []
    for event in events:
        match event:
            case OrchestratorStarted() | OrchestratorCompleted():
                continue
            case TaskScheduled(event_id=event_id, at=at, name=name) | SubCreated(event_id=event_id, at=at, name=name):
                scheduled[event_id] = (at, name)
                continue
            case TimerCreated(event_id=event_id, at=at):
                scheduled[event_id] = (at, "")
                continue
            case _:
                entry = {"EventType": _NAMES[event.kind], "Timestamp": event.at}
                shown.append(entry | _details(event, scheduled, show_input, show_output))
    return shown


def _details(event: Event, scheduled: Mapping[int, tuple[str, str]], show_input: bool, show_output: bool) -> Json:
    match event:
        case ExecutionStarted(name=name, input_json=payload):
            return {"FunctionName": name} | ({"Input": json_or_text(payload)} if show_input else {})
        case TaskCompleted(task_id=done, result=result) | SubCompleted(task_id=done, result=result):
            return _origin(scheduled, done) | ({"Result": json_or_text(result)} if show_output else {})
        case TaskFailed(task_id=done, reason=reason, details=details):
            return _origin(scheduled, done) | {"Reason": reason, "Details": details}
        case SubFailed(task_id=done, reason=reason, details=details):
            return _origin(scheduled, done) | {"Reason": reason, "Details": details}
        case TimerFired(timer_id=done, fire_at=fire_at):
            return {"ScheduledTime": scheduled.get(done, ("", ""))[0], "FireAt": fire_at}
        case EventSent(entity_id=entity_id, operation=operation):
            return {"InstanceId": entity_id, "Name": operation}
        case EventRaised(name=name, input_json=payload):
            return {"Name": name} | ({"Input": json_or_text(payload)} if show_input else {})
        case ExecutionCompleted(status=status, result=result):
            return {"OrchestrationStatus": status} | ({"Result": json_or_text(result)} if show_output else {})
        case Lifecycle(reason=reason):
            return {"Reason": reason}
        case _:
            return {}


def _origin(scheduled: Mapping[int, tuple[str, str]], done: int) -> Json:
    at, name = scheduled.get(done, ("", ""))
    return {"ScheduledTime": at, "FunctionName": name}


@dataclass(frozen=True, slots=True)
class Links:
    """Builds management addresses. `base_url` is the host's public origin, e.g. `http://127.0.0.1:7071`."""

    base_url: str
    task_hub: str
    key: str

    @property
    def webhook_base(self) -> str:
        """Where the public webhooks live, without a trailing slash."""
        return f"{self.base_url.rstrip('/')}/runtime/webhooks/durabletask"

    @property
    def query(self) -> str:
        """Query parameters every management address carries."""
        return f"taskHub={self.task_hub}&connection=Storage&code={self.key}"

    def management(self, instance_id: str) -> dict[str, str]:
        """The management body for one instance (or the placeholder the SDK replaces)."""
        instance = f"{self.webhook_base}/instances/{instance_id}"
        return {
            "id": instance_id,
            "statusQueryGetUri": f"{instance}?{self.query}",
            "sendEventPostUri": f"{instance}/raiseEvent/{{eventName}}?{self.query}",
            "terminatePostUri": f"{instance}/terminate?reason={{text}}&{self.query}",
            "rewindPostUri": f"{instance}/rewind?reason={{text}}&{self.query}",
            "purgeHistoryDeleteUri": f"{instance}?{self.query}",
            "restartPostUri": f"{instance}/restart?{self.query}",
            "suspendPostUri": f"{instance}/suspend?reason={{text}}&{self.query}",
            "resumePostUri": f"{instance}/resume?reason={{text}}&{self.query}",
        }


def client_binding_json(base_url: str, rpc_base_url: str, task_hub: str, key: str) -> str:
    """The value of a durable client parameter. `rpc_base_url` is made to end with a slash, as the SDK requires."""
    links = Links(base_url, task_hub, key)
    create = f"{links.webhook_base}/orchestrators/{{functionName}}[/{{instanceId}}]"
    wait = "timeout={timeoutInSeconds}&pollingInterval={intervalInSeconds}"
    return json.dumps(
        {
            "taskHubName": task_hub,
            "creationUrls": {
                "createNewInstancePostUri": f"{create}?code={key}",
                "createAndWaitOnNewInstancePostUri": f"{create}?{wait}&code={key}",
            },
            "managementUrls": links.management("INSTANCEID"),
            "baseUrl": links.webhook_base,
            "requiredQueryStringParameters": f"code={key}",
            "rpcBaseUrl": f"{rpc_base_url.rstrip('/')}/",
        }
    )


def error_json(message: str, exception_type: str = "System.ArgumentException") -> Json:
    """Error body of the management API; the SDK reads `ExceptionMessage`."""
    return {
        "Message": "One or more of the arguments submitted is incorrect",
        "ExceptionMessage": message,
        "ExceptionType": exception_type,
        "StackTrace": "",
    }


def token_of(item: Instance) -> str:
    """Continuation token behind this row."""
    return base64.urlsafe_b64encode(json.dumps([item.created_at, item.instance_id]).encode()).decode()


def position_of(token: str) -> tuple[str, str]:
    """Inverse of `token_of`; ValueError for anything else."""
    try:
        created_at, instance_id = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (binascii.Error, TypeError, ValueError) as err:
        raise ValueError("The continuation token is not one of ours") from err
    if not isinstance(created_at, str) or not isinstance(instance_id, str):
        raise ValueError("The continuation token is not one of ours")
    return created_at, instance_id
