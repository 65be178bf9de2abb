"""Leases of runs: never more than the limit, idempotent by run, given back by the dead, bounded in size."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from engine.limits.quota import (
    MAX_TOMBSTONES,
    MAX_WAITERS,
    TOMBSTONE_MS,
    WAITER_MS,
    Acquire,
    QuotaState,
    Release,
    Renew,
    apply_quota,
)

LIMIT, LEASE_MS = 5, 10_000
IDS = st.integers(0, 11).map(lambda number: f"run-{number}")


class Leases(RuleBasedStateMachine):
    """Runs that come, go, die and repeat themselves, against a plain set of who holds what."""

    def __init__(self) -> None:
        super().__init__()
        self.state, self.now_ms = QuotaState(), 1_000
        self.held: dict[str, int] = {}
        self.ended: dict[str, int] = {}

    def apply(self, op: Acquire | Renew | Release) -> bool:
        self.state, result = apply_quota(self.state, op, self.now_ms)
        assert result.held == len(self.state.leases)
        return result.granted

    def forget(self) -> None:
        self.held = {key: at for key, at in self.held.items() if at > self.now_ms}
        self.ended = {key: at for key, at in self.ended.items() if at > self.now_ms}

    @rule(run=IDS, twice=st.booleans())
    def acquire(self, run: str, twice: bool) -> None:
        before = len(self.held)
        granted = self.apply(Acquire(run, LIMIT, LEASE_MS))
        assert not (granted and run in self.ended)
        assert granted or run not in self.held
        assert not granted or run in self.held or before < LIMIT
        if granted:
            self.held[run] = self.now_ms + LEASE_MS
        if twice:
            assert self.apply(Acquire(run, LIMIT, LEASE_MS)) == granted

    @rule(run=IDS)
    def renew(self, run: str) -> None:
        if run not in self.held:
            return
        assert self.apply(Renew(run, LEASE_MS))
        self.held[run] = self.now_ms + LEASE_MS

    @rule(run=IDS)
    def release(self, run: str) -> None:
        assert not self.apply(Release(run))
        self.held.pop(run, None)
        self.ended[run] = self.now_ms + TOMBSTONE_MS

    @rule(ms=st.one_of(st.integers(0, 12_000), st.just(TOMBSTONE_MS)))
    def wait(self, ms: int) -> None:
        self.now_ms += ms
        self.forget()

    @invariant()
    def the_books_agree_and_the_limit_holds(self) -> None:
        live = self.state.live(self.now_ms)
        assert dict(live.leases) == self.held
        assert len(live.leases) <= LIMIT
        assert not {key for key, _ in live.leases} & {key for key, _ in live.waiting}
        assert QuotaState.from_json(json.loads(json.dumps(self.state.to_json()))) == self.state


TestLeases = Leases.TestCase


def test_two_hundred_at_once_against_twenty_are_exactly_twenty() -> None:
    state, granted = QuotaState(), 0
    for number in range(200):
        state, result = apply_quota(state, Acquire(f"run-{number}", 20, LEASE_MS), 0)
        granted += result.granted
    assert (granted, len(state.leases), len(state.waiting)) == (20, 20, 180)


def test_who_waits_is_not_overtaken_and_a_waiter_that_left_blocks_nobody() -> None:
    state, _ = apply_quota(QuotaState(), Acquire("a", 1, LEASE_MS), 0)
    state, waits = apply_quota(state, Acquire("b", 1, LEASE_MS), 0)
    state, _ = apply_quota(state, Release("a"), 1)
    state, newcomer = apply_quota(state, Acquire("c", 1, LEASE_MS), 2)
    assert (waits.granted, newcomer.granted) == (False, False)
    _, in_turn = apply_quota(state, Acquire("b", 1, LEASE_MS), 3)
    assert in_turn.granted
    _, later = apply_quota(state, Acquire("d", 1, LEASE_MS), 2 + WAITER_MS)
    assert later.granted


def test_a_run_that_outlived_its_lease_counts_again_and_keeps_newcomers_out() -> None:
    state, _ = apply_quota(QuotaState(), Acquire("a", 1, 10), 0)
    state, taken = apply_quota(state, Acquire("b", 1, 1_000), 20)
    assert taken.granted
    state, back = apply_quota(state, Renew("a", 1_000), 30)
    assert (back.granted, back.held) == (True, 2)
    state, _ = apply_quota(state, Release("b"), 40)
    assert not apply_quota(state, Acquire("c", 1, 1_000), 50)[1].granted


def test_nothing_grows_without_end() -> None:
    state = QuotaState()
    for number in range(3_000):
        state, _ = apply_quota(state, Acquire(f"run-{number}", 1, LEASE_MS), number)
        if number % 2:
            state, _ = apply_quota(state, Release(f"run-{number}"), number)
    assert len(state.ended) <= MAX_TOMBSTONES
    assert len(state.waiting) <= MAX_WAITERS
    assert len(state.leases) <= 1


@given(st.sampled_from([Acquire("a", 0, 1), Acquire("a", 1, 0), Renew("a", 0)]))
def test_nonsense_is_refused(op: Acquire | Renew) -> None:
    with pytest.raises(ValueError):
        apply_quota(QuotaState(), op, 0)


def test_a_clock_that_was_set_back_keeps_no_place_for_longer_than_two_leases() -> None:
    hour_ms, lease_ms = 3_600_000, 60_000
    state, first = apply_quota(QuotaState(), Acquire("dead", 1, lease_ms), 2 * hour_ms)
    assert first.granted
    state, _ = apply_quota(state, Acquire("waits", 1, lease_ms), 2 * hour_ms)
    now_ms = hour_ms
    for _ in range(13):
        state, answer = apply_quota(state, Acquire("waits", 1, lease_ms), now_ms)
        if answer.granted:
            break
        now_ms += 10_000
    assert answer.granted, "the place of a run that is gone was kept"


def test_what_was_given_back_before_the_clock_was_set_back_is_forgotten_in_its_time() -> None:
    state, _ = apply_quota(QuotaState(), Release("over"), 10 * 3_600_000)
    state, _ = apply_quota(state, Release("other"), 0)
    assert dict(state.ended)["over"] == TOMBSTONE_MS


def test_a_short_lease_of_one_run_does_not_cut_the_long_ones_of_others() -> None:
    """A tenant's lease may be set anew while runs are under way that were admitted with another one."""
    day_ms = 86_400_000
    state, _ = apply_quota(QuotaState(), Acquire("long", 1, day_ms), 0)
    state, newcomer = apply_quota(state, Acquire("short", 1, 10_000), 1_000)
    assert not newcomer.granted
    state, _ = apply_quota(QuotaState.from_json(state.to_json()), Release("other"), 2_000)
    _, later = apply_quota(state, Acquire("short", 1, 10_000), 60_000)
    assert not later.granted, "its place was given away while it runs"


def test_of_leases_that_an_earlier_build_wrote_none_is_cut() -> None:
    former = {"leases": [["long", 86_400_000]], "ended": [], "waiting": []}
    state, _ = apply_quota(QuotaState.from_json(former), Acquire("short", 1, 10_000), 1_000)
    _, later = apply_quota(state, Acquire("short", 1, 10_000), 60_000)
    assert not later.granted


def test_the_longest_lease_is_forgotten_with_the_last_one() -> None:
    state, _ = apply_quota(QuotaState(), Acquire("long", 1, 86_400_000), 0)
    state, _ = apply_quota(state, Release("long"), 1)
    state, _ = apply_quota(state, Acquire("short", 1, 10_000), 2)
    assert state.longest_ms == 10_000
