"""What every store of model results promises: a count that never repeats, and one result per key, the first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from engine.domain.errors import LivoaError
from engine.domain.run import PayloadRef
from engine.ports.model_results import ModelCallKey, ModelResultRecord
from engine.ports.models import ModelUsage
from tests.contract.stores.conftest import Stores

KEY = ModelCallKey("contoso", "run-1", 1, "plan", "a" * 64)
REPLY = ModelResultRecord(
    request=1,
    deployment="gpt-4o",
    model="gpt-4o-2024-11-20",
    finish_reason="stop",
    usage=ModelUsage(120, 30, cached_input_tokens=20),
    cost_micro_usd=600,
    latency_s=1.25,
    output=PayloadRef(sha256="b" * 64, size_bytes=7),
)


async def test_a_result_is_kept_as_it_was(stores: Stores) -> None:
    assert await stores.model_results.get(KEY) is None
    assert await stores.model_results.begin(KEY) == 1
    assert await stores.model_results.get(KEY) is None
    assert await stores.model_results.put(KEY, REPLY) == REPLY
    assert await stores.model_results.get(KEY) == REPLY


async def test_a_final_failure_is_a_result(stores: Stores) -> None:
    failure = replace(REPLY, output=None, code="model.content_filtered", finish_reason="")
    await stores.model_results.begin(KEY)
    await stores.model_results.put(KEY, failure)
    assert await stores.model_results.get(KEY) == failure


async def test_the_first_result_stands(stores: Stores) -> None:
    await stores.model_results.begin(KEY)
    await stores.model_results.put(KEY, REPLY)
    assert await stores.model_results.put(KEY, replace(REPLY, request=2, deployment="other")) == REPLY
    assert await stores.model_results.get(KEY) == REPLY


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, tenant_id="fabrikam"),
        replace(KEY, run_id="run-2"),
        replace(KEY, plan_version=2),
        replace(KEY, node="repair.1"),
        replace(KEY, prompt_sha256="c" * 64),
    ],
)
async def test_any_other_key_is_another_call(stores: Stores, other: ModelCallKey) -> None:
    await stores.model_results.begin(KEY)
    await stores.model_results.put(KEY, REPLY)
    assert await stores.model_results.get(other) is None
    assert await stores.model_results.begin(other) == 1


async def test_a_result_without_its_request_is_refused(stores: Stores) -> None:
    with pytest.raises(LivoaError):
        await stores.model_results.put(KEY, REPLY)


async def test_no_two_requests_share_a_number(stores: Stores) -> None:
    numbers = await asyncio.gather(*(stores.model_results.begin(KEY) for _ in range(20)))
    assert sorted(numbers) == list(range(1, 21))


async def test_counts_and_results_are_there_after_opening_again(open_sql: Callable[[], Stores]) -> None:
    first = open_sql()
    await first.model_results.begin(KEY)
    await first.model_results.put(KEY, REPLY)
    second = open_sql()
    assert await second.model_results.get(KEY) == REPLY
    assert await second.model_results.begin(KEY) == 2
