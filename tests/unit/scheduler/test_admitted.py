"""A run and its place: nothing begins without a lease, nothing that has begun ends for want of one, and waiting has an end."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.outcomes import Succeeded
from engine.domain.skeleton import Skeleton, SkeletonStep
from engine.domain.status import RunStatus
from engine.scheduler import LeaseTerms, RunRef, compile_graph, decide_admitted, evolve_admitted, new_admitted
from engine.scheduler import progress_admitted as progress
from engine.scheduler.admitted import LEASE_ENDED_CODE, NO_PLACE_CODE, AdmittedState
from engine.scheduler.answers import lease_answer
from engine.scheduler.commands import (
    AcquireLease,
    CancelRequested,
    Command,
    ComposeAnswer,
    Done,
    FinishRun,
    Issued,
    LeaseAnswered,
    PerformStep,
    Planned,
    PlanRun,
    RenewLease,
    RunAnswered,
    StepAnswered,
    Tick,
    WakeAt,
)

START = datetime(2026, 11, 22, 12, tzinfo=UTC)
REF = RunRef("contoso", "run-1", START + timedelta(hours=2))
TERMS = LeaseTerms(limit=2, lease_ms=600_000, max_wait_s=600)


class Driven:
    """The brain driven as the loop drives it, one thing at a time, under a clock moved by hand."""

    def __init__(self, terms: LeaseTerms | None = TERMS, ref: RunRef = REF) -> None:
        self.now = START
        self.state: AdmittedState = new_admitted(ref, terms)
        self.issued: list[tuple[datetime, Command]] = []
        self.turn()

    def turn(self, event: Any = None) -> tuple[Command, ...]:
        if event is not None:
            self.state = evolve_admitted(self.state, event)
        if self.state.is_over:
            return ()
        commands = decide_admitted(self.state, self.now)
        self.state = evolve_admitted(self.state, Issued(commands, self.now))
        self.issued.extend((self.now, command) for command in commands)
        return commands

    def answer(self, answer: Any, after_s: float = 0) -> tuple[Command, ...]:
        self.now += timedelta(seconds=after_s)
        return self.turn(LeaseAnswered(AcquireLease(self.state.look), answer, self.now))

    def ring(self) -> tuple[Command, ...]:
        """Let the wake-up ring."""
        assert self.state.armed_at is not None
        self.now = max(self.now, self.state.armed_at)
        return self.turn(Tick(self.now))

    def of(self, kind: type) -> list[Any]:
        return [command for _, command in self.issued if isinstance(command, kind)]


def test_a_run_plans_only_with_a_place_and_says_meanwhile_what_it_waits_for() -> None:
    driven = Driven()
    assert driven.of(PlanRun) == []
    driven.answer("full")
    assert progress(driven.state) == {"status": "accepted", "done": 0, "total": 0, "waiting_for": "quota"}
    asked = driven.ring()
    assert [command for command in asked if isinstance(command, AcquireLease)] == [AcquireLease(1)]
    assert PlanRun(1) in driven.answer("granted")
    assert progress(driven.state)["status"] == "planning"


def test_a_place_that_is_granted_at_once_costs_one_question_and_no_timer_of_its_own() -> None:
    driven = Driven()
    driven.answer("granted")
    assert len(driven.of(AcquireLease)) == 1
    assert len(driven.of(WakeAt)) == 1


def test_who_waits_asks_more_often_than_a_waiting_place_lasts_and_is_refused_in_the_end() -> None:
    driven = Driven()
    while not driven.state.is_over and not driven.of(FinishRun):
        driven.answer("full") if driven.state.call_open else driven.ring()
    asked_at = [at for at, command in driven.issued if isinstance(command, AcquireLease)]
    assert max(b - a for a, b in itertools.pairwise(asked_at)) < timedelta(seconds=30)
    assert driven.of(FinishRun) == [FinishRun(1, RunStatus.FAILED, NO_PLACE_CODE)]
    assert driven.now - START <= timedelta(seconds=TERMS.max_wait_s + 1)
    assert len(asked_at) < 150
    assert driven.of(PlanRun) == []


def test_a_tenant_may_refuse_at_once_and_still_waits_for_the_answer() -> None:
    driven = Driven(replace(TERMS, max_wait_s=0))
    driven.answer("full", after_s=3)
    assert driven.of(FinishRun) == [FinishRun(1, RunStatus.FAILED, NO_PLACE_CODE)]
    granted = Driven(replace(TERMS, max_wait_s=0))
    assert PlanRun(1) in granted.answer("granted", after_s=3)


def test_a_quota_that_nobody_can_ask_admits_nobody() -> None:
    driven = Driven()
    for _ in range(5):
        driven.answer("unknown")
        driven.ring()
    assert driven.of(PlanRun) == []
    silent = Driven()
    while not silent.of(FinishRun):
        silent.ring()
    assert silent.of(FinishRun)[0].code == NO_PLACE_CODE
    assert len(silent.of(AcquireLease)) == 1


def test_a_lease_that_was_given_back_before_starts_nothing() -> None:
    driven = Driven()
    driven.answer("ended")
    assert driven.of(FinishRun) == [FinishRun(1, RunStatus.FAILED, LEASE_ENDED_CODE)]


def test_a_cancelled_run_ends_without_its_place_and_a_late_grant_changes_nothing() -> None:
    driven = Driven()
    driven.turn(CancelRequested(driven.now))
    assert driven.of(FinishRun)[0].status is RunStatus.CANCELLED
    before = driven.state
    driven.answer("granted")
    assert driven.state == before
    assert driven.of(PlanRun) == []


def test_the_deadline_ends_a_run_that_waits() -> None:
    driven = Driven(ref=replace(REF, deadline_at=START + timedelta(seconds=20)))
    while not driven.of(FinishRun):
        driven.answer("full") if driven.state.call_open else driven.ring()
    assert driven.of(FinishRun)[0].code == "run.deadline"
    assert driven.now <= START + timedelta(seconds=30)


def test_the_lease_is_renewed_at_half_its_time_while_the_run_lasts_whatever_the_run_does() -> None:
    driven = Driven()
    driven.answer("granted")
    while driven.now < START + timedelta(hours=1):
        driven.ring()
    renewed_at = [at for at, command in driven.issued if isinstance(command, RenewLease)]
    assert 11 <= len(renewed_at) <= 12
    assert max(b - a for a, b in itertools.pairwise(renewed_at)) <= timedelta(seconds=300)
    assert [command.number for command in driven.of(RenewLease)] == list(range(len(renewed_at)))


def test_without_terms_it_is_the_run_alone() -> None:
    driven = Driven(terms=None)
    assert driven.issued == [(START, PlanRun(1)), (START, WakeAt(REF.deadline_at))]


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        ({"granted": True, "ended": False, "held": 1, "waiting": 0}, "granted"),
        ({"granted": False, "ended": True}, "ended"),
        ({"granted": False, "ended": False}, "full"),
        ({"error": "quota.malformed"}, "unknown"),
        ({"granted": 1}, "unknown"),
        ({"granted": "yes"}, "unknown"),
        (None, "unknown"),
        ("granted", "unknown"),
    ],
)
def test_only_a_clear_yes_is_a_yes(value: Any, meaning: str) -> None:
    assert lease_answer(value) == meaning


@given(st.integers(0, 2**32), st.integers(1, 40_000), st.sampled_from([0.0, 5.0, 600.0]))
def test_every_run_ends_begins_only_with_a_place_and_never_loses_a_wake_up(
    seed: int, lease_ms: int, max_wait_s: float
) -> None:
    chooser = random.Random(seed)
    graph = compile_graph(Skeleton((SkeletonStep("a"), SkeletonStep("b", needs=(0,))), 2, "0" * 64))
    driven = Driven(LeaseTerms(2, lease_ms, max_wait_s), replace(REF, deadline_at=START + timedelta(seconds=120)))
    granted = False
    for _ in range(3_000):
        if driven.state.is_over:
            break
        open_calls = _open_calls(driven)
        if open_calls and chooser.random() < 0.7:
            call = chooser.choice(open_calls)
            driven.now += timedelta(seconds=chooser.random())
            if isinstance(call, AcquireLease):
                answer = chooser.choice(["granted", "full", "full", "unknown"])
                granted |= answer == "granted" and driven.state.stage == "asking"
                driven.turn(LeaseAnswered(call, answer, driven.now))
            elif isinstance(call, PerformStep):
                driven.turn(StepAnswered(call, Succeeded(), driven.now))
            else:
                driven.turn(RunAnswered(call, Planned(graph) if isinstance(call, PlanRun) else Done(), driven.now))
        elif chooser.random() < 0.02:
            driven.turn(CancelRequested(driven.now))
        elif driven.state.armed_at is not None:
            driven.ring()
    assert driven.state.is_over
    assert granted or not driven.of(PlanRun)


def _open_calls(driven: Driven) -> list[Any]:
    """Calls that were issued and not answered yet, as far as the brain still waits for them."""
    calls: list[Any] = []
    if driven.state.stage == "asking" and driven.state.call_open:
        calls.append(AcquireLease(driven.state.look))
    run = driven.state.run
    last = next((c for _, c in reversed(driven.issued) if isinstance(c, PlanRun | ComposeAnswer | FinishRun)), None)
    if run.call_open and last is not None:
        calls.append(last)
    if run.board is not None:
        steps = list(driven.of(PerformStep))
        calls.extend(call for call in steps[-1:] if run.board.unfinished)
    return calls
