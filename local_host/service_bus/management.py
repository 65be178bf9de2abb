"""Requests to an entity's ``$management`` node: locks, sessions, scheduled, deferred and peeked messages."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from local_host.queue_extras import ServiceBusBroker
from local_host.queues import QueueError, SessionLock
from local_host.service_bus.codec import DecodeError, Int, Symbol
from local_host.service_bus.links import CONDITIONS, LOCK_LOST, SESSION_LOST
from local_host.service_bus.messages import Sections, incoming, outgoing, reply

_PREFIX = "com.microsoft:"
_STATUS = {"queue.not_found": 404, "queue.lock_lost": 410, "queue.conflict": 409}
FindSession = Callable[[str], SessionLock | None]
"""The lock that this connection holds on a session, by its id."""


class Management:
    """The node of one entity, for one connection."""

    def __init__(self, broker: ServiceBusBroker, entity: str, session_of: FindSession) -> None:
        self._broker = broker
        self._entity = entity
        self._session_of = session_of

    def answer(self, payload: bytes) -> bytes:
        """The answer to one request. Raises ``DecodeError`` for what is none."""
        request = Sections(payload)
        correlation_id = request.properties.get("message_id")
        operation = _text(request.application.get("operation"))
        body = request.value if isinstance(request.value, dict) else {}
        given = {str(key): value for key, value in body.items()}
        try:
            handler = self._handlers().get(operation.removeprefix(_PREFIX))
            if handler is None:
                return self._failed(
                    correlation_id, 501, "amqp:not-implemented", f"{operation[:80]!r} is not modelled here"
                )
            found = handler(given)
        except QueueError as err:
            return self._failed(
                correlation_id, _STATUS.get(err.code, 400), self._condition(err, operation), err.message
            )
        except (DecodeError, KeyError, TypeError, ValueError) as err:
            return self._failed(
                correlation_id, 400, "com.microsoft:argument-error", f"a malformed request: {type(err).__name__}"
            )
        status = 204 if found is None else 200
        return reply(found or {}, correlation_id, {"statusCode": Int(status), "statusDescription": "OK"})

    def _handlers(self) -> dict[str, Callable[[dict[str, Any]], dict[str, Any] | None]]:
        return {
            "renew-lock": self._renew,
            "renew-session-lock": self._renew_session,
            "schedule-message": self._schedule,
            "cancel-scheduled-message": self._cancel,
            "peek-message": self._peek,
            "receive-by-sequence-number": self._receive,
            "update-disposition": self._settle,
            "get-session-state": self._get_state,
            "set-session-state": self._set_state,
        }

    def _failed(self, correlation_id: Any, status: int, condition: str, words: str) -> bytes:
        told = {"statusCode": Int(status), "statusDescription": words, "errorCondition": Symbol(condition)}
        return reply({}, correlation_id, told)

    def _condition(self, err: QueueError, operation: str) -> str:
        if err.code == "queue.not_found" and "sequence" in operation:
            return "com.microsoft:message-not-found"
        if err.code == "queue.lock_lost":
            return SESSION_LOST if "session" in operation else LOCK_LOST
        return CONDITIONS[err.code]

    def _renew(self, given: dict[str, Any]) -> dict[str, Any]:
        tokens = [str(token) for token in given["lock-tokens"]]
        return {"expirations": [self._broker.renew(self._entity, token) for token in tokens]}

    def _lock(self, given: dict[str, Any]) -> SessionLock:
        lock = self._session_of(_text(given["session-id"]))
        if lock is None:
            raise QueueError("queue.lock_lost", "this connection does not hold the session")
        return lock

    def _renew_session(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"expiration": self._broker.renew_session(self._lock(given)).locked_until_at}

    def _schedule(self, given: dict[str, Any]) -> dict[str, Any]:
        messages = [one for each in given["messages"] for one in incoming(_bytes(_named(each)["message"]), None)]
        return {"sequence-numbers": self._broker.schedule(self._entity, messages)}

    def _cancel(self, given: dict[str, Any]) -> dict[str, Any]:
        self._broker.cancel_scheduled(self._entity, [int(number) for number in given["sequence-numbers"]])
        return {}

    def _peek(self, given: dict[str, Any]) -> dict[str, Any] | None:
        session_id = given.get("session-id")
        found = self._broker.peek(
            self._entity,
            int(given["from-sequence-number"]),
            int(given["message-count"]),
            _text(session_id) if session_id is not None else None,
        )
        return {"messages": [{"message": outgoing(each, with_lock=False)} for each in found]} if found else None

    def _receive(self, given: dict[str, Any]) -> dict[str, Any]:
        numbers = [int(number) for number in given["sequence-numbers"]]
        lock = self._lock(given) if given.get("session-id") is not None else None
        found = self._broker.receive_deferred(self._entity, numbers, lock)
        if int(given.get("receiver-settle-mode") or 0) == 0:
            for each in found:
                self._broker.complete(self._entity, each.lock_token)
        return {"messages": [{"message": outgoing(each), "lock-token": uuid.UUID(each.lock_token)} for each in found]}

    def _settle(self, given: dict[str, Any]) -> dict[str, Any]:
        for token in (str(token) for token in given["lock-tokens"]):
            match _text(given["disposition-status"]):
                case "completed":
                    self._broker.complete(self._entity, token)
                case "abandoned":
                    self._broker.abandon(self._entity, token)
                case "defered":
                    self._broker.defer(self._entity, token)
                case "suspended":
                    why = given.get("deadletter-reason"), given.get("deadletter-description")
                    self._broker.dead_letter(self._entity, token, *(_text(word or "") for word in why))
                case _:
                    raise QueueError("queue.bad_message", "there is no such disposition")
        return {}

    def _get_state(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"session-state": self._broker.session_state(self._lock(given))}

    def _set_state(self, given: dict[str, Any]) -> dict[str, Any]:
        state = given.get("session-state")
        self._broker.set_session_state(self._lock(given), _bytes(state) if state is not None else None)
        return {}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value or "")


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    raise DecodeError("bytes were expected")


def _named(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DecodeError("a map was expected")
    return {_text(key): item for key, item in value.items()}
