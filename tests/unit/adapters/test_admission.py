"""The door: a rate that all processes share, refusals that say when to come back, and a few permits in an outage, then none."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.adapters.admission import BLOCK_MS, BlockAdmission
from engine.adapters.memory import FixedClock, MemoryPermitLedger
from engine.domain.tenant import Quota
from engine.ports.quota import Admitted, Door, PermitBlock


class CountedLedger(MemoryPermitLedger):
    """Counts how often it is asked, and can be out of order."""

    def __init__(self, clock: FixedClock) -> None:
        super().__init__(clock)
        self.asked, self.down = 0, False

    async def lease(self, tenant_id: str, quota: Quota, permits: int, door: Door = "submissions") -> PermitBlock:
        self.asked += 1
        if self.down:
            raise OSError("the store is down")
        return await super().lease(tenant_id, quota, permits, door)


async def test_a_block_is_handed_out_without_asking_and_the_refusal_says_when_to_come_back() -> None:
    clock = FixedClock()
    ledger = CountedLedger(clock)
    door = BlockAdmission(ledger, clock)
    quota = Quota(submissions_per_minute=30, burst=20, permits_per_block=10)
    answers = [await door.admit("contoso", quota) for _ in range(25)]
    assert [answer.granted for answer in answers] == [True] * 20 + [False] * 5
    assert answers[-1] == Admitted(granted=False, retry_after_s=2)
    assert ledger.asked == 6  # 1, 2, 4, 8, the last 5, and none
    clock.advance(2)
    assert (await door.admit("contoso", quota)).granted


async def test_one_tenants_flood_costs_another_nothing() -> None:
    clock = FixedClock()
    door = BlockAdmission(MemoryPermitLedger(clock), clock)
    quota = Quota(burst=5)
    flood = [await door.admit("noisy", quota) for _ in range(50)]
    quiet = [await door.admit("quiet", quota) for _ in range(5)]
    assert sum(answer.granted for answer in flood) == 5
    assert all(answer.granted for answer in quiet)


async def test_what_is_left_of_a_block_is_not_hoarded() -> None:
    clock = FixedClock()
    ledger = CountedLedger(clock)
    door = BlockAdmission(ledger, clock)
    await door.admit("contoso", Quota())
    clock.advance(BLOCK_MS / 1_000)
    await door.admit("contoso", Quota())
    assert ledger.asked == 2


async def test_a_tenant_at_half_its_rate_is_let_in_by_whichever_process_it_meets() -> None:
    clock = FixedClock()
    ledger = MemoryPermitLedger(clock)
    doors = [BlockAdmission(ledger, clock) for _ in range(4)]
    quota = Quota(submissions_per_minute=120, burst=20)
    answers = []
    for number in range(600):
        clock.advance(1)
        answers.append((await doors[number * 7 % 4].admit("contoso", quota)).granted)
    assert all(answers)


async def test_without_the_shared_count_a_few_come_in_and_then_nobody() -> None:
    clock = FixedClock()
    ledger = CountedLedger(clock)
    door = BlockAdmission(ledger, clock)
    ledger.down = True
    answers = [await door.admit("contoso", Quota(emergency_permits=3)) for _ in range(10)]
    assert [answer.granted for answer in answers] == [True] * 3 + [False] * 7
    assert answers[-1].retry_after_s > 0
    ledger.down = False
    assert (await door.admit("contoso", Quota(emergency_permits=3))).granted


async def test_no_emergency_permits_means_closed_at_once() -> None:
    clock = FixedClock()
    ledger = CountedLedger(clock)
    ledger.down = True
    assert not (await BlockAdmission(ledger, clock).admit("contoso", Quota(emergency_permits=0))).granted


@settings(max_examples=50)
@given(
    st.integers(1, 600),
    st.integers(1, 50),
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(0, 8_000), st.integers(0, 3)), max_size=80),
)
async def test_all_processes_together_never_admit_more_than_burst_and_rate(
    per_minute: int, burst: int, block: int, arrivals: list[tuple[int, int]]
) -> None:
    clock = FixedClock()
    ledger = MemoryPermitLedger(clock)
    doors = [BlockAdmission(ledger, clock) for _ in range(4)]
    quota = Quota(submissions_per_minute=per_minute, burst=burst, permits_per_block=block)
    start, admitted = clock.now(), 0
    for wait_ms, process in arrivals:
        clock.advance(wait_ms / 1_000)
        admitted += (await doors[process].admit("contoso", quota)).granted
        elapsed_s = (clock.now() - start).total_seconds()
        assert admitted <= burst + elapsed_s * per_minute / 60 + 1e-6
