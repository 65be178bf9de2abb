"""What limits are worth: a tenant at ten times its rate beside a quiet one, in virtual time, with and without the limits.

    .venv/bin/python -m bench.quota --minutes 10 --seed 1

Prints one JSON object. A model of the platform (slots that are served first come, first served) around the real parts: the door
(`BlockAdmission` over one shared count, four processes), the leases (`apply_quota`) and the waiting between two questions for a
place. Latency is from the submission to the end of a run; those refused at the door have none. ``rise`` compares the quiet
tenant's p95 with what it has alone.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import itertools
import json
import random
import statistics
from collections import deque
from collections.abc import Callable
from typing import Any

from engine.adapters.admission import BlockAdmission
from engine.adapters.memory import FixedClock, MemoryPermitLedger
from engine.domain.tenant import Quota
from engine.limits.quota import Acquire, QuotaState, Release, apply_quota
from engine.scheduler.admitted import ASK_AGAIN
from engine.scheduler.backoff import delay_s

SLOTS = 32
SERVICE_S = 4.0
QUIET_PER_S = 1.0
QUOTA = Quota()
NOISY_PER_S = 10 * QUOTA.submissions_per_minute / 60


class Platform:
    """Slots, doors and leases under one virtual clock."""

    def __init__(self, *, limited: bool, seed: int) -> None:
        self.limited = limited
        self.clock = FixedClock()
        self._started_at = self.clock.now()
        self.chooser = random.Random(seed)
        ledger = MemoryPermitLedger(self.clock)
        self._doors = [BlockAdmission(ledger, self.clock) for _ in range(4)]
        self._leases: dict[str, QuotaState] = {}
        self._queue: deque[Callable[[], None]] = deque()
        self._busy = 0
        self._events: list[tuple[float, int, Callable[[], Any]]] = []
        self._numbers = itertools.count()
        self.latencies: dict[str, list[float]] = {}
        self.refused: dict[str, int] = {}
        self.most_at_once: dict[str, int] = {}

    @property
    def now_s(self) -> float:
        return (self.clock.now() - self._started_at).total_seconds()

    def at(self, when_s: float, action: Callable[[], Any]) -> None:
        heapq.heappush(self._events, (when_s, next(self._numbers), action))

    async def run(self) -> None:
        while self._events:
            when_s, _, action = heapq.heappop(self._events)
            self.clock.advance(max(0.0, when_s - self.now_s))
            done = action()
            if asyncio.iscoroutine(done):
                await done

    async def submit(self, tenant: str, number: int, service_s: float) -> None:
        if self.limited and not (await self._doors[number % 4].admit(tenant, QUOTA)).granted:
            self.refused[tenant] = self.refused.get(tenant, 0) + 1
            return
        self._ask(tenant, f"{tenant}-{number}", self.now_s, service_s, 0)

    def _ask(self, tenant: str, run_id: str, begun_s: float, service_s: float, look: int) -> None:
        if self.limited:
            state = self._leases.get(tenant, QuotaState())
            op = Acquire(run_id, QUOTA.max_concurrent_runs, int(QUOTA.lease_s * 1_000))
            self._leases[tenant], result = apply_quota(state, op, int(self.now_s * 1_000))
            self.most_at_once[tenant] = max(self.most_at_once.get(tenant, 0), result.held)
            if not result.granted:
                wait_s = delay_s(ASK_AGAIN, f"{run_id}/place", look + 1)
                self.at(self.now_s + wait_s, lambda: self._ask(tenant, run_id, begun_s, service_s, look + 1))
                return
        self._queue.append(lambda: self._serve(tenant, run_id, begun_s, service_s))
        self._fill()

    def _fill(self) -> None:
        while self._queue and self._busy < SLOTS:
            self._busy += 1
            self._queue.popleft()()

    def _serve(self, tenant: str, run_id: str, begun_s: float, service_s: float) -> None:
        self.at(self.now_s + service_s, lambda: self._end(tenant, run_id, begun_s))

    def _end(self, tenant: str, run_id: str, begun_s: float) -> None:
        self._busy -= 1
        self.latencies.setdefault(tenant, []).append(self.now_s - begun_s)
        if self.limited:
            self._leases[tenant], _ = apply_quota(self._leases[tenant], Release(run_id), int(self.now_s * 1_000))
        self._fill()


async def measure(*, noisy: bool, limited: bool, minutes: float, seed: int) -> dict[str, Any]:
    """One world; every tenant's arrivals are the same in all of them."""
    platform = Platform(limited=limited, seed=seed)
    rates = {"quiet": QUIET_PER_S} | ({"noisy": NOISY_PER_S} if noisy else {})
    for tenant, per_s in rates.items():
        chooser = random.Random(f"{seed}/{tenant}")
        when_s = 0.0
        for number in itertools.count():
            when_s += chooser.expovariate(per_s)
            if when_s > minutes * 60:
                break
            service_s = chooser.uniform(0.5, 1.5) * SERVICE_S
            platform.at(when_s, lambda t=tenant, n=number, s=service_s: platform.submit(t, n, s))
    await platform.run()
    return {
        tenant: {
            "finished": len(latencies),
            "refused": platform.refused.get(tenant, 0),
            "most_at_once": platform.most_at_once.get(tenant),
            "p50_s": round(statistics.median(latencies), 3),
            "p95_s": round(statistics.quantiles(latencies, n=20)[-1], 3),
        }
        for tenant, latencies in sorted(platform.latencies.items())
    }


async def compare(minutes: float, seed: int) -> dict[str, Any]:
    """The quiet tenant alone, beside a noisy one, and beside it without limits."""
    alone = await measure(noisy=False, limited=True, minutes=minutes, seed=seed)
    limited = await measure(noisy=True, limited=True, minutes=minutes, seed=seed)
    unlimited = await measure(noisy=True, limited=False, minutes=minutes, seed=seed)
    base = alone["quiet"]["p95_s"]
    return {
        "seed": seed,
        "minutes": minutes,
        "noisy_times_its_limit": 10,
        "alone": alone,
        "limited": limited,
        "unlimited": unlimited,
        "rise_percent": round(100 * (limited["quiet"]["p95_s"] / base - 1), 1),
        "rise_percent_without_limits": round(100 * (unlimited["quiet"]["p95_s"] / base - 1), 1),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(json.dumps(asyncio.run(compare(options.minutes, options.seed))))


if __name__ == "__main__":
    main()
