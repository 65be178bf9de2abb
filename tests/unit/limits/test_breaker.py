"""The circuit breaker: opens soon, probes a little, closes on proof, and forgets nobody's lease."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.limits.breaker import (
    Breaker,
    BreakerResult,
    BreakerRules,
    CallOutcome,
    Permit,
    Report,
    apply_breaker,
    break_of,
)

RULES = BreakerRules()


@dataclass
class Circuit:
    """A breaker with a clock."""

    state: Breaker = field(default_factory=Breaker)
    now_ms: int = 1_000_000_000
    calls: int = 0

    def permit(self, lease_id: str | None = None) -> BreakerResult:
        self.calls += 1
        self.state, result = apply_breaker(self.state, Permit(lease_id or f"c{self.calls}"), self.now_ms, name="m")
        return result

    def report(self, outcome: CallOutcome, generation: int | None = None, lease_id: str | None = None) -> BreakerResult:
        report = Report(
            lease_id or f"c{self.calls}", self.state.generation if generation is None else generation, outcome
        )
        self.state, result = apply_breaker(self.state, report, self.now_ms, name="m")
        return result

    def call(self, outcome: CallOutcome) -> bool:
        """One call; False when it was not permitted."""
        permit = self.permit()
        if permit.granted:
            self.report(outcome, permit.generation)
        return permit.granted

    def after_break(self) -> None:
        self.now_ms = max(self.now_ms, self.state.until_ms)


def opened() -> Circuit:
    circuit = Circuit()
    while circuit.state.phase == "closed":
        circuit.call("failure")
    return circuit


def test_five_failures_in_a_row_open_it() -> None:
    circuit = Circuit()
    circuit.call("success")
    for _ in range(4):
        circuit.call("failure")
        circuit.now_ms += 60_000
    assert circuit.state.phase == "closed"
    circuit.call("failure")
    assert circuit.state.phase == "open"
    assert not circuit.call("success")


def test_half_of_ten_calls_within_ten_seconds_open_it() -> None:
    circuit = Circuit()
    for number in range(9):
        circuit.call("failure" if number % 2 else "success")
    assert circuit.state.phase == "closed"
    circuit.call("failure")
    assert circuit.state.phase == "open"


def test_failures_that_are_apart_in_time_do_not_open_it() -> None:
    circuit = Circuit()
    for number in range(100):
        circuit.call("failure" if number % 2 else "success")
        circuit.now_ms += 2_500
    assert circuit.state.phase == "closed"


def test_slow_calls_count_half() -> None:
    circuit = Circuit()
    for _ in range(9):
        circuit.call("slow")
        circuit.now_ms += 20_000
    assert circuit.state.phase == "closed"
    circuit.call("slow")
    assert circuit.state.phase == "open"


def test_errors_of_one_caller_change_nothing() -> None:
    circuit = Circuit()
    for _ in range(50):
        circuit.call("neutral")
    assert circuit.state == Breaker()


def test_it_says_when_to_come_back_and_then_lets_two_probes_through() -> None:
    circuit = opened()
    denied = circuit.permit()
    assert not denied.granted
    assert 4_000 <= denied.retry_after_ms <= 5_000
    circuit.now_ms += denied.retry_after_ms - 1
    assert not circuit.permit().granted
    circuit.now_ms += 1
    assert circuit.permit("a").granted
    assert circuit.permit("b").granted
    assert not circuit.permit("c").granted
    assert circuit.permit("a").granted  # asked twice, one lease
    assert len(circuit.state.probes) == 2


def test_two_good_probes_close_it() -> None:
    circuit = opened()
    circuit.after_break()
    assert circuit.call("success")
    assert circuit.state.phase == "half_open"
    permit = circuit.permit()
    assert circuit.report("success", permit.generation).closed
    assert circuit.state == Breaker(generation=circuit.state.generation)


def test_one_success_reported_twice_is_one() -> None:
    circuit = opened()
    circuit.after_break()
    permit = circuit.permit("a")
    for _ in range(3):
        circuit.report("success", permit.generation, "a")
    assert circuit.state.phase == "half_open"


def test_a_bad_probe_opens_it_for_twice_as_long_up_to_a_minute() -> None:
    circuit = opened()
    breaks_ms = []
    for _ in range(8):
        breaks_ms.append(circuit.state.until_ms - circuit.now_ms)
        circuit.after_break()
        assert circuit.call("failure")
    for number, break_ms in enumerate(breaks_ms):
        whole_ms = min(60_000, 5_000 * 2**number)
        assert whole_ms * 0.8 <= break_ms <= whole_ms


def test_a_stale_success_does_not_close_it() -> None:
    circuit = Circuit()
    slowest = circuit.permit("slowest")
    while circuit.state.phase == "closed":
        circuit.call("failure")
    before = circuit.state
    circuit.report("success", slowest.generation, "slowest")
    assert circuit.state == before
    circuit.after_break()
    circuit.permit("probe")
    before = circuit.state
    circuit.report("success", slowest.generation, "slowest")
    assert circuit.state == before


def test_failures_of_an_older_generation_do_not_open_it_again() -> None:
    circuit = Circuit()
    slowest = [circuit.permit(f"slow-{n}") for n in range(8)]
    while circuit.state.phase == "closed":
        circuit.call("failure")
    circuit.after_break()
    while circuit.state.phase != "closed":
        circuit.call("success")
    before = circuit.state
    for number, permit in enumerate(slowest):
        circuit.report("failure", permit.generation, f"slow-{number}")
    assert circuit.state == before


def test_a_probe_that_never_reports_frees_its_place() -> None:
    circuit = opened()
    circuit.after_break()
    lost = [circuit.permit("a"), circuit.permit("b")]
    denied = circuit.permit("c")
    assert not denied.granted
    circuit.now_ms += denied.retry_after_ms
    assert circuit.permit("c").granted
    before = circuit.state
    circuit.report("failure", lost[0].generation, "a")  # its place is somebody else's now
    assert circuit.state == before


def test_a_clock_that_went_back_does_not_keep_it_open() -> None:
    circuit = opened()
    circuit.now_ms -= 3_600_000
    assert circuit.permit().granted


@given(st.text(max_size=20), st.integers(0, 10**9), st.integers(0, 10**6))
def test_breaks_are_within_bounds_and_the_same_every_time(name: str, generation: int, breaks: int) -> None:
    break_ms = break_of(name, generation, breaks, RULES)
    assert break_ms == break_of(name, generation, breaks, RULES)
    assert 4_000 <= break_ms <= 60_000


def test_breaks_of_two_circuits_differ() -> None:
    assert len({break_of(f"m{n}", 1, 0, RULES) for n in range(50)}) > 40


class AnyTraffic(RuleBasedStateMachine):
    """Any callers, crashes, duplicates and clock jumps."""

    @initialize()
    def start(self) -> None:
        self.circuit = Circuit()
        self.held: list[tuple[str, int]] = []
        self.generation = 0

    @rule()
    def ask(self) -> None:
        lease_id = f"call-{self.circuit.calls}-of-a-run"
        permit = self.circuit.permit(lease_id)
        if permit.granted:
            self.held.append((lease_id, permit.generation))

    @precondition(lambda self: self.held)
    @rule(
        data=st.data(),
        outcome=st.sampled_from(["success", "failure", "failure", "slow", "neutral"]),
        keep=st.booleans(),
    )
    def report(self, data: st.DataObject, outcome: CallOutcome, keep: bool) -> None:
        lease_id, generation = data.draw(st.sampled_from(self.held))
        before = self.circuit.state
        self.circuit.report(outcome, generation, lease_id)
        if generation != before.generation:
            assert self.circuit.state == before
        if not keep:
            self.held.remove((lease_id, generation))

    @rule(ms=st.integers(-5_000, 70_000))
    def wait(self, ms: int) -> None:
        self.circuit.now_ms += ms

    @invariant()
    def small_json_and_never_backwards(self) -> None:
        state = self.circuit.state
        text = json.dumps(state.to_json())
        assert len(text) <= 560
        assert Breaker.from_json(json.loads(text)) == state
        assert state.generation >= self.generation
        self.generation = state.generation

    @invariant()
    def few_probes_and_a_short_break(self) -> None:
        state = self.circuit.state
        assert len(state.probes) <= (RULES.probes if state.phase == "half_open" else 0)
        assert len(state.window) <= RULES.window_s
        if state.phase == "closed":
            assert state.row < RULES.consecutive_failures * 2

    def teardown(self) -> None:
        """Whatever happened, a service that works again is used again."""
        if not hasattr(self, "circuit"):
            return
        for _ in range(6):
            self.circuit.now_ms += RULES.max_break_ms + RULES.probe_ttl_ms
            self.circuit.call("success")
        assert self.circuit.state.phase == "closed"


TestAnyTraffic = AnyTraffic.TestCase
TestAnyTraffic.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("dead_for_s", [10, 120])
def test_an_outage_is_hit_by_few_calls(dead_for_s: int) -> None:
    circuit = Circuit()
    start_ms = circuit.now_ms
    hits = 0
    while circuit.now_ms < start_ms + dead_for_s * 1_000:
        hits += circuit.call("failure")
        circuit.now_ms += 200
    assert hits <= 12
