"""Random skeletons and a random world to run them in: calls end in any order, any way, late, twice or never."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from engine.domain.names import REPAIRS_SINCE, approval_event
from engine.domain.outcomes import (
    AwaitingApproval,
    Cancelled,
    Denied,
    Dispatched,
    Expanded,
    Failed,
    Skipped,
    StepOutcome,
    Succeeded,
    Suspended,
    Waiting,
)
from engine.domain.skeleton import Skeleton, SkeletonStep
from engine.domain.status import RunStatus
from engine.scheduler import RunRef, RunState, compile_graph, decide, evolve, new_run
from engine.scheduler.commands import (
    Announced,
    AwaitResume,
    Broken,
    Call,
    CancelRequested,
    CollectMap,
    Command,
    ComposeAnswer,
    Done,
    Event,
    ExpandMap,
    FinishRun,
    Held,
    Issued,
    Listen,
    More,
    Paused,
    PerformStep,
    Planned,
    PlanRun,
    Refused,
    RepairPlan,
    Resumed,
    RunAnswered,
    RunMapPart,
    StepAnswered,
    Tick,
    UndoStep,
    WakeAt,
)

START_AT = datetime(2026, 1, 1, tzinfo=UTC)
DEADLINE_AT = START_AT + timedelta(hours=1)
NO_CALLS = (WakeAt, Listen, AwaitResume)
REF = RunRef("contoso", "run-1", DEADLINE_AT, REPAIRS_SINCE)


@st.composite
def skeletons(draw: st.DrawFn, max_steps: int = 12) -> Skeleton:
    count = draw(st.integers(0, max_steps))
    caps = tuple(draw(st.lists(st.integers(1, 4), max_size=2)))
    steps = []
    for index in range(count):
        needs = tuple(draw(st.lists(st.integers(0, index - 1), unique=True, max_size=4))) if index else ()
        tolerates = tuple(need for need in needs if draw(st.integers(0, 3)) == 0)
        steps.append(
            SkeletonStep(
                id=f"s{index}",
                needs=needs,
                tolerates=tolerates,
                kind=draw(st.sampled_from(["call", "call", "call", "map", "wait"])),
                optional=draw(st.booleans()),
                on_failure=draw(st.sampled_from(["fail", "fail", "skip", "fallback", "repair"])),
                max_attempts=draw(st.integers(1, 3)),
                backoff_s=draw(st.sampled_from([0.0, 1.0, 30.0])),
                concurrency=draw(st.integers(1, 6)),
                expected_s=draw(st.sampled_from([1.0, 5.0, 60.0])),
                undo=draw(st.integers(0, 2)) == 0,
                cap=draw(st.integers(0, len(caps))),
            )
        )
    parallel, repairs = draw(st.integers(1, 8)), draw(st.integers(0, 3))
    return Skeleton(steps=tuple(steps), max_parallel=parallel, plan_hash="0" * 64, caps=caps, repairs=repairs)


def spoilt(skeleton: Skeleton, step: int) -> set[int]:
    """A step and everything that comes after it, whether it could do without it or not."""
    found = {step}
    for index, spec in enumerate(skeleton.steps):
        if found & set(spec.needs):
            found.add(index)
    return found


def next_version(skeleton: Skeleton, failed: str, names: Iterator[str], chance: random.Random) -> Skeleton:
    """A version of the plan without the failed step and all that comes after it, and with a few new steps."""
    gone = spoilt(skeleton, next(i for i, spec in enumerate(skeleton.steps) if spec.id == failed))
    kept = [index for index in range(len(skeleton.steps)) if index not in gone]
    place = {index: position for position, index in enumerate(kept)}
    steps = []
    for index in kept:
        spec = skeleton.steps[index]
        moved = tuple(place[need] for need in spec.needs), tuple(place[need] for need in spec.tolerates)
        steps.append(replace(spec, needs=moved[0], tolerates=moved[1]))
    for _ in range(chance.randrange(4)):
        needs = tuple(sorted(chance.sample(range(len(steps)), min(len(steps), chance.randrange(3)))))
        steps.append(
            SkeletonStep(
                id=next(names),
                needs=needs,
                tolerates=tuple(need for need in needs if chance.random() < 0.3),
                kind=chance.choice(("call", "call", "map")),
                optional=chance.random() < 0.3,
                on_failure=chance.choice(("fail", "skip", "repair")),
                undo=chance.random() < 0.3,
                cap=chance.randint(0, len(skeleton.caps)),
            )
        )
    return replace(skeleton, steps=tuple(steps), plan_hash=f"{chance.getrandbits(256):064x}")


@dataclass
class World:
    """Answers by a seed. ``mood`` weighs how often things go wrong; ``hangs`` lets some calls never return.

    With ``people`` the plan and some steps wait for a person, who answers in time, too late or never; some announcements are
    lost. ``decided`` is what the store knows of them. With ``suspends`` somebody suspends and resumes the run at any time;
    some resumptions are announced late or never. With ``workers`` some steps are handed to a worker, which finishes, or whose
    time runs out; some of that is announced. ``handed`` is by when each must be done, ``worked`` what the store knows of them.
    ``version`` is the plan in force, ``numbered`` the ids of steps by their numbers, whatever version they came with.
    """

    skeleton: Skeleton
    seed: int
    mood: float = 0.3
    hangs: bool = False
    cancels: bool = False
    people: bool = False
    suspends: bool = False
    workers: bool = False
    suspended: bool = False
    suspensions: int = 0
    asked: dict[str, datetime] = field(default_factory=dict)
    decided: dict[str, bool] = field(default_factory=dict)
    handed: dict[str, datetime] = field(default_factory=dict)
    worked: set[str] = field(default_factory=set)
    random: random.Random = field(init=False)
    version: Skeleton = field(init=False)
    numbered: list[str] = field(init=False)
    names: Iterator[str] = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.version = self.skeleton
        self.numbered = [spec.id for spec in self.skeleton.steps]
        self.names = (f"r{number}" for number in itertools.count())

    def answer(self, call: Call, at: datetime) -> Event:
        if self.suspended:
            match call:
                case PlanRun() | RepairPlan() | ComposeAnswer():
                    return RunAnswered(call, Paused(self.suspensions), at)
                case PerformStep() | ExpandMap() | CollectMap():
                    return StepAnswered(call, Suspended(number=self.suspensions), at)
        match call:
            case PlanRun():
                return RunAnswered(call, self._held(at) or self._planned(), at)
            case RepairPlan():
                held = self._held(at, f"ap-repair-{call.number}")
                return RunAnswered(call, held or self._repaired(call), at)
            case UndoStep() if call.look < 2 and self.random.random() < 0.2:
                return RunAnswered(call, More(), at)
            case ComposeAnswer() | UndoStep() | FinishRun():
                return RunAnswered(call, Broken("x.y", self.random.random() < 0.8) if self._bad() else Done(), at)
            case _:
                return StepAnswered(call, self._outcome(call, at), at)

    def _planned(self) -> Any:
        if self._bad() and self.random.random() < 0.3:
            return self.random.choice(
                [Refused(RunStatus.DENIED, "policy.x"), Broken("x.y", True), Broken("x.y", False)]
            )
        return Planned(compile_graph(self.skeleton))

    def _repaired(self, call: RepairPlan) -> Any:
        failed = self.numbered[call.step]
        if self._bad():
            odd = [Broken("x.y", True), Broken("x.y", False), Refused(RunStatus.DENIED, "policy.x"), Done()]
            odd += [Planned(compile_graph(self.version)), Held("ap-odd", "whenever")]
            odd += [Refused(RunStatus.CANCELLED, "run.cancelled")] if self.cancels else []
            return self.random.choice(odd)
        self.version = next_version(self.version, failed, self.names, self.random)
        self.numbered += [spec.id for spec in self.version.steps if spec.id not in self.numbered]
        return Planned(compile_graph(self.version))

    def _held(self, at: datetime, approval_id: str = "ap-plan") -> Held | Refused | None:
        if not self.people or self.seed % 3:
            return None
        expires_at = self._wait_for(approval_id, at)
        if expires_at is not None:
            return Held(approval_id, expires_at)
        return None if self.decided[approval_id] else Refused(RunStatus.DENIED, "approval.refused")

    def _wait_for(self, approval_id: str, at: datetime) -> str | None:
        """Until when a question waits; None once it is decided, by an answer or by the time."""
        if approval_id in self.decided:
            return None
        patience_s = self.random.choice([0, 40, 1_000, 10_000])
        expires_at = self.asked.setdefault(approval_id, at + timedelta(seconds=patience_s))
        if at < expires_at:
            return expires_at.isoformat()
        self.decided[approval_id] = False
        return None

    def someone_answers(self, now: datetime) -> Event | None:
        """A person answers one of the open questions, or nobody does. None also when the announcement is lost."""
        waiting = [asked for asked, until in self.asked.items() if asked not in self.decided and now < until]
        if not waiting or self.random.random() < 0.7:
            return None
        approval_id = self.random.choice(waiting)
        self.decided[approval_id] = self.random.random() < 0.7
        return Announced(approval_event(approval_id), now) if self.random.random() < 0.8 else None

    def some_worker_ends(self, now: datetime) -> Event | None:
        """A worker finishes one of the steps handed on, or none does. None also when the announcement is lost."""
        open_work = [event for event in self.handed if event not in self.worked]
        if not open_work or self.random.random() < 0.6:
            return None
        event = self.random.choice(open_work)
        self.worked.add(event)
        return Announced(event, now) if self.random.random() < 0.8 else None

    def _at_work(self, call: PerformStep, at: datetime) -> Dispatched | None:
        """The step while a worker has it; None once that has finished or its time is over."""
        event = f"step-finished.{call.step}.{call.attempt}"
        look_by = self.handed.setdefault(event, at + timedelta(seconds=self.random.choice([1, 600, 9_000])))
        if event in self.worked or at >= look_by:
            self.worked.add(event)
            return None
        return Dispatched(event=event, look_by=look_by.isoformat())

    def someone_suspends(self, now: datetime) -> Event | None:
        """Somebody suspends the run, or resumes it; None also when the announcement is lost."""
        if not self.suspends or self.random.random() < 0.8:
            return None
        self.suspended = not self.suspended
        self.suspensions += self.suspended
        if self.suspended or self.random.random() < 0.2:
            return None
        return Resumed(self.suspensions, now)

    def _outcome(self, call: Call, at: datetime) -> StepOutcome:
        if self.people and isinstance(call, PerformStep) and call.step % 2 == 0:
            approval_id = f"ap-{call.step}"
            expires_at = self._wait_for(approval_id, at)
            if expires_at is not None:
                return AwaitingApproval(approval_id=approval_id, expires_at=expires_at)
            if not self.decided[approval_id]:
                return Denied(code="approval.refused")
        if self.workers and isinstance(call, PerformStep) and call.step % 3 == 1:
            dispatched = self._at_work(call, at)
            if dispatched is not None:
                return dispatched
        if isinstance(call, ExpandMap) and not self._bad():
            return Expanded(item_count=self.random.choice([0, 1, 5, 150, 420]))
        if not self._bad():
            return Succeeded()
        choices: list[StepOutcome] = [
            Failed(code="agent.busy", retryable=True),
            Failed(code="agent.busy", retryable=True, retry_after_s=7.0),
            Failed(code="agent.broken"),
            Denied(code="policy.x"),
            Skipped(code="step.when_false"),
            Waiting(until_at=(at + timedelta(seconds=self.random.choice([-5, 20]))).isoformat()),
            Waiting(until_at="not a time"),
            Expanded(item_count=3),
            AwaitingApproval(approval_id="ap-odd", expires_at="whenever"),
            Dispatched(event="step-finished.odd", look_by="whenever"),
        ]
        if self.cancels:
            choices.append(Cancelled())
        return self.random.choice(choices)

    def _bad(self) -> bool:
        return self.random.random() < self.mood


@dataclass
class Trace:
    """What happened: ``states[i]`` saw ``commands[i]`` and then ``events[i]``."""

    states: list[RunState] = field(default_factory=list)
    commands: list[tuple[Command, ...]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    nows: list[datetime] = field(default_factory=list)

    @property
    def last(self) -> RunState:
        return self.states[-1]

    def issued(self) -> list[Command]:
        return [command for commands in self.commands for command in commands]


def simulate(
    world: World, *, limit: int = 20_000, between: Callable[[RunState], RunState] = lambda state: state
) -> Trace:
    """Run to the end, delivering answers in random order and, when nothing else can happen, the wake-up.

    ``between`` is what becomes of the state before each decision.
    """
    trace, state, now = Trace(), new_run(REF), START_AT
    open_calls: list[Call] = []
    cancel_after = world.random.randrange(1, 30) if world.cancels else -1
    for turn in range(limit):
        state = between(state)
        commands = decide(state, now)
        trace.states.append(state)
        trace.commands.append(commands)
        trace.nows.append(now)
        if state.is_over:
            return trace
        state = evolve(state, Issued(commands, now))
        open_calls += [command for command in commands if not isinstance(command, NO_CALLS)]
        event = _next_event(world, state, open_calls, now, cancel=turn == cancel_after)
        now = max(now, event.at)
        trace.events.append(event)
        state = evolve(state, event)
    raise AssertionError("the run does not end")


def _next_event(world: World, state: RunState, open_calls: list[Call], now: datetime, *, cancel: bool) -> Event:
    if cancel:
        return CancelRequested(now)
    if world.people and (answered := world.someone_answers(now)) is not None:
        return answered
    if world.workers and (ended := world.some_worker_ends(now)) is not None:
        return ended
    if (resumed := world.someone_suspends(now)) is not None:
        return resumed
    hung = (
        world.hangs
        and not any(isinstance(call, FinishRun | UndoStep) for call in open_calls)
        and world.random.random() < 0.3
    )
    if open_calls and not hung:
        call = open_calls.pop(world.random.randrange(len(open_calls)))
        return world.answer(call, now + timedelta(seconds=world.random.random()))
    assert state.armed_at is not None, "nothing can happen any more"
    return Tick(max(now, state.armed_at))


def part_width(call: Command) -> int:
    """What a call takes of the capacity for steps; planning anew takes none."""
    return call.concurrency if isinstance(call, RunMapPart) else int(not isinstance(call, (*NO_CALLS, RepairPlan)))
