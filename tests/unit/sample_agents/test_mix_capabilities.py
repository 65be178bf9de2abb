"""Own rows in place of the data set, and a model handed from one capability to the next."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from agent_kit import CapabilityError
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
