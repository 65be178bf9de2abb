"""Runs over the bus in which one thing goes wrong, at a chosen place: what random seeds meet rarely, every day.

A script says what happens and by when the run has to be over. Everything else goes well, so that whoever is to make up for the
one thing (the sweep, the heartbeats, the waiter, the hand-back) is the only one who can.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from engine.domain.bus import StepResult
from engine.domain.errors import LivoaError
from engine.domain.execute import ExecuteRequest, ExecuteResponse, ExecuteSucceeded
from engine.domain.run import Run
from tests.chaos.bus_world import START_AT, Agent, Bus, BusWorld, Life, WorkerProcess


@dataclasses.dataclass(frozen=True)
class Script:
    """One schedule. ``within_s``: how long the run may take, in virtual seconds; without the remedy it takes longer.

    ``sweeps``: whether there is a sweep at all. ``results``: how often a result is delivered. ``agent_s``: how long a call takes.
    ``worker_dies_at``: the first worker dies there. ``gives_back_after_s``: the first worker hands its step back. ``bus_down_s``:
    until when commands are refused. ``telling_fails_s``: until when results are. ``set_clock``: (when, by how much).
    """

    name: str
    within_s: float
    plan: Callable[[], list[dict[str, Any]]]
    sweeps: bool = True
    results: int = 1
    agent_s: float = 5.0
    worker_dies_at: str | None = None
    gives_back_after_s: float | None = None
    bus_down_s: float = 0.0
    telling_fails_s: float = 0.0
    forges: Literal["no", "nonce", "token"] = "no"
    set_clock: tuple[float, float] | None = None
    fails_first: bool = False
    repeats: int = 1


def one_step() -> list[dict[str, Any]]:
    return [_step("s0", 1)]


def chain() -> list[dict[str, Any]]:
    return [_step("s0", 1), _step("s1", {"$ref": "steps.s0#/n"})]


def items() -> list[dict[str, Any]]:
    return [_step("s0", {"$ref": "item#"}) | {"for_each": [0, 1, 2]}]


def _step(step_id: str, n: Any) -> dict[str, Any]:
    retry = {"max_attempts": 10, "backoff_s": 1, "factor": 1.5}
    return {"id": step_id, "capability": "bus.fit", "retry": retry, "inputs": {"n": n}}


SCRIPTS = (
    Script("nothing goes wrong", 20, chain),
    Script("results are lost, and the sweep tells of them", 40, one_step, results=0),
    Script("results of items are lost, and their waiters are told", 60, items, results=0),
    Script("results come three times", 20, items, results=3),
    Script("a worker dies with its step", 70, one_step, worker_dies_at="taken"),
    Script("a worker dies over the answer", 40, one_step, worker_dies_at="results:before"),
    Script("the bus is away when a step is handed on", 60, one_step, bus_down_s=30),
    Script("commands come three times", 20, items, repeats=3),
    Script("a call lasts longer than a lease", 140, one_step, agent_s=120),
    Script("a worker hands its step back", 115, one_step, agent_s=100, gives_back_after_s=10),
    Script("an answer takes longer to tell than a lease lasts", 100, one_step, sweeps=False, telling_fails_s=45),
    Script("somebody answers in a worker's name", 45, one_step, agent_s=30, forges="nonce"),
    Script("somebody answers for an attempt to come", 45, one_step, agent_s=30, forges="token"),
    Script("the agent fails the first time", 30, chain, fails_first=True),
    Script("the clock is set forwards under a lease", 90, one_step, agent_s=60, set_clock=(20, 7_200)),
    Script("the clock is set back under a lease", 140, one_step, agent_s=100, set_clock=(20, -7_200)),
    Script("the clock is set back before an answer is told", 40, one_step, results=0, set_clock=(6, -7_200)),
)


class Evenly(random.Random):
    """Chance without chance: nothing happens by itself, and of several the first is taken."""

    def random(self) -> float:
        return 0.999

    def choice(self, seq: Any) -> Any:
        return seq[0]

    def uniform(self, a: float, b: float) -> float:
        return a


class ScriptedAgent(Agent):
    """The agent of a script: every call takes as long as it says."""

    def __init__(self, world: ScriptedWorld) -> None:
        super().__init__(world)
        self._script, self._clock = world.script, world.clock

    async def _execute(self, request: ExecuteRequest) -> ExecuteResponse:
        key = request.idempotency_key
        await self._clock.sleep_s(self._script.agent_s)
        self.effects[key] += 1
        self._kept[key] = ExecuteSucceeded(output={"n": request.inputs["n"] + 1})
        del self._running[key]
        return self._kept[key]

    async def invoke(self, capability: Any, request: ExecuteRequest, **more: Any) -> ExecuteResponse:
        key = request.idempotency_key
        if self._script.fails_first and key not in self._refused:
            self.asked.setdefault(key, set())
            self._refused.add(key)
            raise RuntimeError("the network is away")
        return await super().invoke(capability, request, **more)


class ScriptedBus(Bus):
    """Both queues of a script."""

    def __init__(self, world: ScriptedWorld) -> None:
        super().__init__(world)
        self._script, self._clock = world.script, world.clock
        self.down_until = START_AT + timedelta(seconds=world.script.bus_down_s)

    async def send(self, command: Any, *, session_id: str, message_id: str) -> None:
        for copy in range(self._script.repeats):
            await super().send(command, session_id=session_id, message_id=f"{message_id}{'/' * copy}")

    async def send_result(self, result: StepResult) -> None:
        if self._clock.steady_at < START_AT + timedelta(seconds=self._script.telling_fails_s):
            raise LivoaError("bus.unavailable", "no", status=503)
        self.results.append(result)
        for _ in range(self._script.results):
            self._world.background(self._to_the_host(result))

    async def forge(self) -> None:
        """An answer that no worker gave, while one is at work."""
        if self._script.forges == "no":
            return
        wrong = ExecuteSucceeded(output={"n": -1}).model_dump_json().encode()
        ref = await self._world.payloads.put("contoso", "run-1", wrong)
        await self._clock.sleep_s(10)
        for at in list(self._world.assignments._rows.values()):
            token = at.token + (1 if self._script.forges == "token" else 0)
            forged = StepResult(
                tenant_id=at.tenant_id, run_id=at.run_id, key=at.key, token=token, nonce="f" * 43, response_ref=ref
            )
            self._world.background(self._to_the_host(forged))


class ScriptedLife(Life):
    """A process that dies where the script says."""

    async def point(self, place: str) -> None:
        world: Any = self.world
        if self.kind == "worker" and place == world.dies_at and not self.is_dead:
            world.dies_at = None
            self.die(place)
        await super().point(place)


class ScriptedWorld(BusWorld):
    """One script, from the submission to the end of everything."""

    def __init__(self, script: Script, path: Path) -> None:
        super().__init__(0, path)
        self.script, self.dies_at, self.gives_back = script, script.worker_dies_at, script.gives_back_after_s
        self.chance = Evenly(0)
        self.failures_left, self.is_cancelled, self.is_calm = 0, False, True
        self.deaths_left = {"worker": 0, "host": 0}
        self.plan = {"goal": "chaos", "steps": script.plan(), "answer": {"uses": [script.plan()[-1]["id"]]}}
        self.agent, self.bus = ScriptedAgent(self), ScriptedBus(self)
        self.took_s = 0.0

    def life_of(self, kind: str) -> Life:
        return ScriptedLife(self, kind)

    @property
    def has_sweep(self) -> bool:
        return self.script.sweeps

    async def play(self) -> Run:
        """See ``BusWorld``. AssertionError when it takes longer than the script allows."""
        run = await super().play()
        assert self.took_s <= self.script.within_s, f"it took {self.took_s} s, {self.script.within_s} s are enough"
        return run

    async def _hold(self) -> None:
        """Nobody does."""

    async def _break_the_bus(self) -> None:
        if self.script.set_clock is not None:
            at_s, by_s = self.script.set_clock
            await self.clock.sleep_s(at_s)
            self.set_clock(by_s)

    async def _set_the_clock(self) -> None:
        """The script does."""

    async def carrying_out(self, worker: WorkerProcess, held: Any) -> None:
        if self.gives_back is not None:
            after_s, self.gives_back = self.gives_back, None
            worker.life.spawn(self._back(worker, held, after_s))

    async def _back(self, worker: WorkerProcess, held: Any, after_s: float) -> None:
        await self.clock.sleep_s(after_s)
        await worker.worker.give_back(held)

    async def _until_over(self) -> Run:
        run = await super()._until_over()
        self.took_s = (self.clock.steady_at - START_AT).total_seconds()
        await asyncio.sleep(0)
        return run
