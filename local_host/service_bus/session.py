"""One AMQP session: its links, its deliveries, and what its frames do (part 2 of the specification, as far as it is needed).

Windows of transfers are told and not enforced: both ends are on one machine, and what is open is bounded by credit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from local_host.queue_commits import set_from_anywhere
from local_host.queue_extras import ServiceBusBroker
from local_host.queues import DEAD_LETTER_SUFFIX, QueueError, SessionLock
from local_host.service_bus.addresses import Address, parse_address
from local_host.service_bus.codec import DecodeError, Described, Symbol, UByte, UInt, ULong
from local_host.service_bus.frames import SOURCE, TARGET, Performative, address_of, error, filters_of, terminus
from local_host.service_bus.links import (
    CONDITIONS,
    MAX_MESSAGE_BYTES,
    SESSION_FILTER,
    AnswerLink,
    EntityLink,
    InLink,
    OutLink,
    accepted,
    rejected,
    send_to,
)
from local_host.service_bus.management import Management

MAX_LINKS = 256
MAX_UNSETTLED = 10_000
_CREDIT = 500
"""How much a client may send before it is granted more."""
_WINDOW = UInt(2**31 - 1)
_TICKS_AT_EPOCH = 621_355_968_000_000_000
"""1970 in ticks of 100 ns since the year 1, as .NET counts."""
_DEFAULT_WAIT_S = 60.0
_MAX_WAIT_S = 300.0


class Peer(Protocol):
    """What a session needs of its connection."""

    broker: ServiceBusBroker
    max_frame_bytes: int

    def now(self) -> datetime:
        """The time, aware UTC."""
        ...

    def changes(self) -> AbstractContextManager[None]:
        """Change what is in the queues. What is written from then on is sent once that is durable."""
        ...

    def write(self, channel: int, performative: str, payload: bytes = b"", /, **fields: Any) -> None:
        """Send one frame."""
        ...

    def is_authorised(self) -> bool:
        """True while a token that is good was put."""
        ...

    def put_token(self, payload: bytes) -> bytes:
        """Answer a request to ``$cbs``."""
        ...

    def session_lock(self, entity: str, session_id: str) -> SessionLock | None:
        """The lock that one of the connection's links has on a session."""
        ...


@dataclass(slots=True)
class Session:
    """The session on ``channel``, the same number in both directions."""

    peer: Peer
    channel: int
    incoming: dict[int, InLink] = field(default_factory=dict)
    outgoing: dict[int, OutLink] = field(default_factory=dict)
    unsettled: dict[int, tuple[EntityLink, bytes]] = field(default_factory=dict)
    next_incoming_id: int = 0
    next_outgoing_id: int = 0
    _waiting: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    """Links that wait for a session to receive from, by their handles."""

    def begin(self, frame: Performative) -> None:
        """Answer the client's begin."""
        self.next_incoming_id = frame["next_outgoing_id"] or 0
        self.peer.write(
            self.channel,
            "begin",
            remote_channel=UInt(self.channel),
            next_outgoing_id=UInt(self.next_outgoing_id),
            incoming_window=_WINDOW,
            outgoing_window=_WINDOW,
            handle_max=UInt(MAX_LINKS - 1),
        )

    def close(self) -> None:
        """Everything of this session ends."""
        for task in list(self._waiting.values()):
            task.cancel()
        for link in self.outgoing.values():
            link.close()
        self.incoming.clear()
        self.outgoing.clear()
        self.unsettled.clear()

    # -- attaching

    def attach(self, frame: Performative) -> None:
        """A client opens a link. Waiting for a session goes on beside other frames."""
        handle, is_receiver = frame["handle"], bool(frame["role"])
        taken = (self.incoming, self.outgoing, self._waiting)
        if handle is None or handle >= MAX_LINKS or any(handle in links for links in taken):
            raise DecodeError("a link with a handle that is not free")
        where = parse_address(address_of(frame["source" if is_receiver else "target"]) or "")
        try:
            self._check_access(where)
            if not is_receiver:
                self._open_incoming(frame, where)
            elif where.kind != "entity":
                self._open_answers(frame, where)
            elif SESSION_FILTER in filters_of(frame["source"]):
                self._wait(handle, self._open_session(frame, where))
            else:
                self._open_entity(frame, where, None)
        except QueueError as err:
            self._refuse(frame, CONDITIONS[err.code], err.message)
        except PermissionError as err:
            self._refuse(frame, "amqp:unauthorized-access", str(err))

    def _check_access(self, where: Address) -> None:
        if where.kind != "cbs" and not self.peer.is_authorised():
            raise PermissionError("no valid token was put for this connection")

    def _wait(self, handle: int, work: Any) -> None:
        task = self._waiting[handle] = asyncio.get_running_loop().create_task(work)

        def over(_: Any) -> None:
            if self._waiting.get(handle) is task:
                del self._waiting[handle]

        task.add_done_callback(over)

    def _answer(self, frame: Performative, **fields: Any) -> None:
        told: dict[str, Any] = {
            "name": frame["name"],
            "handle": UInt(frame["handle"]),
            "role": not frame["role"],
            "snd_settle_mode": UByte(frame["snd_settle_mode"] or 0),
            "rcv_settle_mode": UByte(frame["rcv_settle_mode"] or 0),
            "source": frame["source"],
            "target": frame["target"],
            "max_message_size": ULong(MAX_MESSAGE_BYTES),
        }
        if frame["role"]:
            told["initial_delivery_count"] = UInt(0)
        self.peer.write(self.channel, "attach", **{**told, **fields})

    def _refuse(self, frame: Performative, condition: str, words: str) -> None:
        """A link that is refused is attached to nothing, and detached with the reason."""
        self._answer(frame, source=None, target=None)
        self.peer.write(
            self.channel, "detach", handle=UInt(frame["handle"]), closed=True, error=error(condition, words)
        )

    def _open_incoming(self, frame: Performative, where: Address) -> None:
        broker = self.peer.broker
        if where.kind == "entity":
            broker.is_topic(where.entity)  # refuses what is not there

            def take(payload: bytes, message_format: int | None) -> Described:
                return send_to(broker, where.entity, payload, message_format)
        else:
            node = _node(where)
            answer = self.peer.put_token if where.kind == "cbs" else self._management(where.entity).answer

            def take(payload: bytes, message_format: int | None) -> Described:
                return self._request(node, answer, payload)

        link = InLink(frame["handle"], _node(where), take)
        link.delivery_count = frame["initial_delivery_count"] or 0
        self.incoming[link.handle] = link
        self._answer(frame)
        self._grant(link)

    def _management(self, entity: str) -> Management:
        broker = self.peer.broker
        broker.is_topic(entity.removesuffix(DEAD_LETTER_SUFFIX))  # refuses what is not there
        return Management(broker, entity, lambda session_id: self.peer.session_lock(entity, session_id))

    def _request(self, node: str, answer: Callable[[bytes], bytes], payload: bytes) -> Described:
        """Answer on the latest link of this session that receives from the same node."""
        try:
            reply = answer(payload)
        except DecodeError as err:
            return rejected(err)
        found = [link for link in self.outgoing.values() if isinstance(link, AnswerLink) and link.node == node]
        if found:
            found[-1].answer(reply)
        return accepted()

    def _open_answers(self, frame: Performative, where: Address) -> None:
        self.outgoing[frame["handle"]] = AnswerLink(frame["handle"], _node(where), self)
        self._answer(frame)

    def _open_entity(self, frame: Performative, where: Address, lock: SessionLock | None) -> None:
        broker = self.peer.broker
        options = broker.options(where.entity)
        if options.sessions and lock is None:
            raise QueueError("queue.conflict", f"{where.entity!r} has sessions; receive from one of them")
        link = EntityLink(frame["handle"], where.entity, self, broker=broker, now=self.peer.now, session=lock)
        link.changes = self.peer.changes
        link.is_settled = frame["snd_settle_mode"] == 1
        self.outgoing[link.handle] = link
        if lock is None:
            self._answer(frame)
        else:
            ticks = int(lock.locked_until_at.timestamp() * 10_000_000) + _TICKS_AT_EPOCH
            source = terminus(SOURCE, address_of(frame["source"]), {SESSION_FILTER: lock.session_id})
            told = {Symbol("com.microsoft:locked-until-utc"): ticks}
            self._answer(frame, source=source, target=terminus(TARGET, address_of(frame["target"])), properties=told)
        link.open()

    async def _open_session(self, frame: Performative, where: Address) -> None:
        wanted = filters_of(frame["source"])[SESSION_FILTER]
        wanted = wanted.value if isinstance(wanted, Described) else wanted
        try:
            if wanted is not None:
                name = wanted.decode() if isinstance(wanted, bytes) else str(wanted)
                lock = self.peer.broker.accept_named(where.entity, name)
                if lock is None:
                    words = "the session is locked by another receiver"
                    return self._refuse(frame, "com.microsoft:session-cannot-be-locked", words)
            else:
                lock = await self._next_session(frame, where.entity)
                if lock is None:
                    return self._refuse(frame, "com.microsoft:timeout", "no session has a message")
            self._open_entity(frame, where, lock)
        except QueueError as err:
            self._refuse(frame, CONDITIONS[err.code], err.message)

    async def _next_session(self, frame: Performative, entity: str) -> SessionLock | None:
        """The first session that has something, waiting for one as long as the client says."""
        properties = frame["properties"] or {}
        given_ms = properties.get("com.microsoft:timeout")
        wait_s = min(given_ms / 1000 if isinstance(given_ms, int) else _DEFAULT_WAIT_S, _MAX_WAIT_S)
        broker, loop, arrived = self.peer.broker, asyncio.get_running_loop(), asyncio.Event()
        give_up_at = loop.time() + wait_s
        unwatch = broker.on_available(entity, lambda: set_from_anywhere(loop, arrived))
        try:
            while True:
                with self.peer.changes():
                    lock = broker.accept_session(entity)
                left_s = give_up_at - loop.time()
                if lock is not None or left_s <= 0:
                    return lock
                due_at = broker.next_due_at(entity)
                due_s = max(0.01, (due_at - self.peer.now()).total_seconds()) if due_at is not None else left_s
                try:
                    await asyncio.wait_for(arrived.wait(), min(left_s, due_s))
                except TimeoutError:
                    continue
                finally:
                    arrived.clear()
        finally:
            unwatch()

    # -- what goes on

    def flow(self, frame: Performative) -> None:
        """A client grants credit, asks for what is there and no more (drain), or asks for an answer (echo)."""
        if frame["handle"] is None:
            if frame["echo"]:
                self._flow()
            return
        link = self.outgoing.get(frame["handle"])
        if link is None:
            return
        link.grant(frame["delivery_count"], frame["link_credit"] or 0)
        if isinstance(link, AnswerLink):
            link.flush()
        elif isinstance(link, EntityLink):
            if frame["drain"]:
                self._drain(link)
            else:
                link.wake()
        if frame["echo"] and not frame["drain"]:
            self._link_flow(link, drain=False)

    def _drain(self, link: EntityLink) -> None:
        try:
            link.pump()
        except QueueError as err:
            return self.detach(link.handle, error(CONDITIONS[err.code], err.message))
        link.delivery_count = (link.delivery_count + link.credit) & 0xFFFFFFFF
        link.credit = 0
        self._link_flow(link, drain=True)
        return None

    def _link_flow(self, link: OutLink, *, drain: bool) -> None:
        self._flow(
            handle=UInt(link.handle),
            delivery_count=UInt(link.delivery_count),
            link_credit=UInt(link.credit),
            drain=drain,
        )

    def _flow(self, **fields: Any) -> None:
        self.peer.write(
            self.channel,
            "flow",
            next_incoming_id=UInt(self.next_incoming_id),
            incoming_window=_WINDOW,
            next_outgoing_id=UInt(self.next_outgoing_id),
            outgoing_window=_WINDOW,
            **fields,
        )

    def _grant(self, link: InLink) -> None:
        link.credit = _CREDIT
        self._flow(handle=UInt(link.handle), delivery_count=UInt(link.delivery_count), link_credit=UInt(link.credit))

    def transfer(self, frame: Performative, payload: bytes) -> None:
        """A frame of a delivery from the client."""
        self.next_incoming_id = (self.next_incoming_id + 1) & 0xFFFFFFFF
        link = self.incoming.get(frame["handle"])
        if link is None:
            return
        whole = link.add(frame, payload)
        if whole is None:
            return
        first, message = whole
        link.delivery_count = (link.delivery_count + 1) & 0xFFFFFFFF
        link.credit -= 1
        state = link.take(message, first["message_format"])
        if not first["settled"] and not frame["settled"]:
            number = UInt(first["delivery_id"] or 0)
            self.peer.write(
                self.channel, "disposition", role=True, first=number, last=number, settled=True, state=state
            )
        if link.credit <= _CREDIT // 2:
            self._grant(link)

    def disposition(self, frame: Performative) -> None:
        """A client says what becomes of deliveries; it is told what was done, each with its own outcome."""
        if not frame["role"]:
            return
        first = frame["first"] or 0
        last = frame["last"] if frame["last"] is not None else first
        for number in [number for number in self.unsettled if first <= number <= last]:
            link, tag = self.unsettled[number]
            if frame["state"] is None:
                if frame["settled"]:
                    del self.unsettled[number]
                continue
            del self.unsettled[number]
            state = link.settle(tag, frame["state"])
            if not frame["settled"]:
                at = UInt(number)
                self.peer.write(self.channel, "disposition", role=False, first=at, last=at, settled=True, state=state)

    def client_detached(self, frame: Performative) -> None:
        """The client closed a link."""
        handle = frame["handle"]
        known = self.incoming.pop(handle, None) is not None
        waiting = self._waiting.pop(handle, None)
        if waiting is not None:  # or it would take a session for nobody
            waiting.cancel()
            known = True
        link = self.outgoing.pop(handle, None)
        if link is not None:
            link.close()
        if known or link is not None:
            self.peer.write(self.channel, "detach", handle=UInt(handle), closed=True)

    # -- for links

    def deliver(self, link: OutLink, payload: bytes, tag: bytes, *, settled: bool) -> None:
        """See ``links.Writer``."""
        number = self.next_outgoing_id
        link.spend()
        if not settled and isinstance(link, EntityLink):
            self.unsettled[number] = (link, tag)
            while len(self.unsettled) > MAX_UNSETTLED:  # its lock runs out, as if the client had forgotten it
                del self.unsettled[next(iter(self.unsettled))]
        room = self.peer.max_frame_bytes - 256
        parts = [payload[at : at + room] for at in range(0, len(payload), room)] or [b""]
        for index, part in enumerate(parts):
            first = {"delivery_id": UInt(number), "delivery_tag": tag, "message_format": UInt(0)} if not index else {}
            self.peer.write(
                self.channel,
                "transfer",
                part,
                handle=UInt(link.handle),
                settled=settled,
                more=index + 1 < len(parts),
                **first,
            )
            self.next_outgoing_id = (self.next_outgoing_id + 1) & 0xFFFFFFFF

    def detach(self, handle: int, fault: Described | None) -> None:
        """See ``links.Writer``."""
        link = self.outgoing.pop(handle, None)
        if link is not None:
            self.peer.write(self.channel, "detach", handle=UInt(handle), closed=True, error=fault)
            link.close()


def _node(where: Address) -> str:
    return where.entity if where.kind == "entity" else f"{where.entity}/${where.kind}"
