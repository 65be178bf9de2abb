"""People around a run: they answer questions early, late, twice or never, suspend and resume it, or end it the hard way.

They act through what the routes act through, on stores without faults (a request that fails is the client's to repeat), but what
they tell the durable engine may be lost, and the host may be dead.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from typing import TYPE_CHECKING, Any, cast

from engine.domain.approval import PLAN_SUBJECT, Approval, ApprovalAnswer
from engine.domain.errors import ConflictError, LivoaError
from engine.domain.ids import step_key
from engine.domain.principal import Principal
from engine.ports.deps import Deps
from tests.chaos.plans import TENANT
from triggers import run_control
from triggers.endpoint import Call
from triggers.starting import tell_answer

if TYPE_CHECKING:
    from tests.chaos.harness import Chaos

BOSS = Principal(tenant_id=TENANT, subject="tid:boss", kind="user", client_app="cli")


class Operators:
    """Everything that people do in one seed. ``play`` is the world they act on."""

    def __init__(self, play: Chaos) -> None:
        self._play = play
        self._chance = play.adversary.chance
        self._seen: set[str] = set()

    async def answer_questions(self) -> None:
        """Look at what is asked every few seconds; each question gets what its key says it gets, perhaps nothing."""
        play = self._play
        for nth in itertools.count():
            run = await play.raw.runs.get(TENANT, play.run_id)
            if run is None or run.status.is_final:
                return
            await play.clock.sleep_s(self._chance.choice((0.5, 4, 9)) if nth < 500 else 1_000)
            for approval in await play.raw.approvals.pending(TENANT, limit=100):
                if approval.approval_id not in self._seen:
                    self._seen.add(approval.approval_id)
                    play.operate(self._answer(approval))

    async def _answer(self, approval: Approval) -> None:
        how = self._chance.choices(("grant", "refuse", "never", "both"), (14, 2, 1, 1))[0]
        if how == "never":
            return
        await self._play.clock.sleep_s(self._chance.choice((0, 0, 2, 30, 400)))
        granted = how != "refuse"
        await self._say(approval, ApprovalAnswer(granted=granted, by=BOSS.subject))
        if how == "both":
            await self._say(approval, ApprovalAnswer(granted=not granted, by="tid:other"))

    async def _say(self, approval: Approval, answer: ApprovalAnswer) -> None:
        play = self._play
        try:
            written = await play.raw.approvals.answer(TENANT, approval.run_id, approval.approval_id, answer)
        except LivoaError:
            return
        if written.binding.subject != PLAN_SUBJECT:
            key = step_key(play.run_id, written.binding.subject, written.binding.item)
            play.observer.granted.setdefault(key, play.observer.next())
        client = play.client()
        if client is not None and self._chance.random() < 0.8:
            await tell_answer(written, cast(Any, client))

    async def suspend_and_resume(self) -> None:
        """Hold the run up to three times, for a moment or for minutes."""
        play = self._play
        for _ in range(self._chance.randint(1, 3)):
            await play.clock.sleep_s(self._chance.choice((0, self._chance.uniform(0, 5), self._chance.uniform(0, 60))))
            if not await self._suspend():
                return
            await play.clock.sleep_s(self._chance.choice((0, 1, 20, 200)))
            await self._resume()

    async def _suspend(self) -> bool:
        play = self._play
        run = await play.raw.runs.get(TENANT, play.run_id)
        try:
            held = await run_control.suspend(run, self._call())
        except ConflictError:
            return False
        if held.suspended_reason == "request":
            play.observer.holds.append([play.observer.next(), None])
        return True

    async def _resume(self) -> None:
        play = self._play
        run = await play.raw.runs.get(TENANT, play.run_id)
        # From here on a step may start: the store is told somewhere inside.
        for hold in play.observer.holds:
            hold[1] = hold[1] or play.observer.next()
        with contextlib.suppress(LivoaError):
            await run_control.resume(run, self._call(), None)

    async def terminate(self) -> None:
        """End the run at once, at some moment."""
        play = self._play
        await play.clock.sleep_s(self._chance.choice((0, self._chance.uniform(0, 10), self._chance.uniform(0, 90))))
        run = await play.raw.runs.get(TENANT, play.run_id)
        play.observer.terminated = True
        with contextlib.suppress(ConflictError):
            await run_control.terminate(run, self._call())

    def _call(self) -> Call:
        play = self._play
        raw = play.raw
        stores = {
            name: getattr(raw, name)
            for name in ("runs", "events", "audit", "budgets", "payloads", "approvals", "tenants")
        }
        deps: Deps = dataclasses.replace(play.deps(), **cast(Any, stores))
        client = play.client() or NoClient()
        return Call(request=cast(Any, None), deps=deps, principal=BOSS, client=cast(Any, client))


class NoClient:
    """The durable engine while its host is dead: nothing can be told."""

    def __getattr__(self, method: str) -> Any:
        async def call(*_: Any, **__: Any) -> Any:
            raise LivoaError("engine.unavailable", "the host is dead", status=503)

        return call
