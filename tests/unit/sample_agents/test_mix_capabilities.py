"""Own rows in place of the data set, and a model handed from one capability to the next."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent_kit import CapabilityError, StepContext
from engine.domain.execute import ExecuteRequest
from sample_agents.app import SAMPLES, sample_agent
from sample_agents.dataset import Dataset
from sample_agents.mix_capabilities import FitInputs, Model, own_rows, responses
from sample_agents.mix_report import FitWindow, report
from sample_agents.performance import QueryInputs, query


def queried(data: Dataset) -> dict[str, Any]:
    found = query(data, QueryInputs.model_validate({"from": "2023-10-01", "to": "2026-10-04"}))
    return {name: found[name] for name in ("rows", "sales", "currency")}


def test_rows_of_a_query_give_the_same_fit_as_the_data_set(contoso: Dataset) -> None:
    window = FitWindow(date(2026, 7, 1), date(2026, 9, 30))
    assert report(own_rows(FitInputs.model_validate(queried(contoso))), window) == report(contoso, window)


def test_a_fit_says_how_far_it_is_and_is_the_same_whoever_hears(contoso: Dataset) -> None:
    told: list[tuple[float, str]] = []
    window = FitWindow(date(2026, 7, 1), date(2026, 9, 30))
    assert report(contoso, window, lambda fraction, words: told.append((fraction, words))) == report(contoso, window)
    fractions = [fraction for fraction, _ in told]
    assert len(fractions) >= 10
    assert fractions == sorted(set(fractions)), "it only grows"
    assert (fractions[0], fractions[-1] < 1) == (0, True)
    assert told[-1][1].startswith("draw ")


async def test_the_capability_tells_its_caller(contoso: Dataset, tmp_path: Path) -> None:
    agent = sample_agent(SAMPLES, outbox_file=tmp_path / "outbox.db", only=("mmm",))
    fit = agent.capabilities["mmm.fit"]
    inputs = {"from": "2026-07-01", "to": "2026-09-30"}
    with ThreadPoolExecutor(1) as executor:
        context = StepContext(_asked(inputs), fit.manifest, executor)
        await fit.handler(fit.parse(inputs), context)
    assert context.latest is not None
    assert context.latest.fraction is not None
    assert context.latest.fraction > 0.9


def _asked(inputs: dict[str, Any]) -> ExecuteRequest:
    return ExecuteRequest(
        tenant_id="contoso",
        run_id="run-1",
        step_id="fit",
        attempt=1,
        capability="mmm.fit",
        inputs=inputs,
        idempotency_key="run-1/fit",
        deadline_at=datetime(2027, 1, 1, tzinfo=UTC),
    )


def weekly(count: int, channel: str = "tv", start: date = date(2024, 1, 1)) -> dict[str, Any]:
    weeks = [(start + timedelta(weeks=number)).isoformat() for number in range(count)]
    return {
        "rows": [{"period": week, "channel": channel, "spend": 10} for week in weeks],
        "sales": [{"period": week, "sales": 100} for week in weeks],
    }


def doubled() -> dict[str, Any]:
    held = weekly(4)
    return {**held, "rows": held["rows"] * 2}


def without_a_week() -> dict[str, Any]:
    held = weekly(4)
    return {**held, "sales": held["sales"][:2] + held["sales"][3:]}


def with_many_channels() -> dict[str, Any]:
    held = weekly(2)
    rows = [{**row, "channel": f"c{number}"} for number in range(13) for row in held["rows"]]
    return {**held, "rows": rows}


@pytest.mark.parametrize(
    "inputs",
    [
        weekly(4, start=date(2024, 1, 2)),
        without_a_week(),
        doubled(),
        with_many_channels(),
        {**weekly(4), "sales": weekly(3)["sales"]},
    ],
    ids=["not Mondays", "a gap", "a channel twice", "too many channels", "spend without sales"],
)
def test_rows_that_are_not_weekly_are_refused(inputs: dict[str, Any]) -> None:
    with pytest.raises(CapabilityError) as caught:
        own_rows(FitInputs.model_validate(inputs))
    assert caught.value.error.code == "mmm.rows_invalid"


def channel(name: str, draws: int) -> dict[str, Any]:
    curve = {"decay": 0.1, "half_saturation": 10.0, "ceiling": 5.0}
    return {"channel": name, "weekly_spend": 1.0, **curve, "draws": [curve] * draws}


@pytest.mark.parametrize("channels", [[channel("a", 2), channel("a", 2)], [channel("a", 2), channel("b", 3)]])
def test_a_model_that_contradicts_itself_is_refused(channels: list[dict[str, Any]]) -> None:
    with pytest.raises(CapabilityError) as caught:
        responses(Model.model_validate({"currency": "GBP", "channels": channels}))
    assert caught.value.error.code == "mmm.model_invalid"
