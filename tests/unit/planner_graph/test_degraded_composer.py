"""The answer states only what the steps put out, names what is missing, and streams its sentences."""

from engine.domain.run import ErrorInfo, RunRequest
from engine.domain.tenant import TenantConfig
from engine.ports.planner import ComposeRequest, StepResult
from planner_graph.degraded import DegradedComposer
from tests.support.sinks import RecordingSink

MIX = {
    "kpis": [
        {"name": "ROI", "value": 1.25, "unit": "GBP/GBP", "low": 1.0, "high": 1.5},
        {"name": "bad", "value": None},
    ],
    "tables": [{"title": "Channels", "columns": ["channel"], "rows": [["tv"], ["x" * 900]]}, {"title": "broken"}],
    "insights": [{"text": "TV is saturated."}, {"text": "TV is saturated."}, {"text": "  "}],
}


async def compose(*steps):
    sink = RecordingSink()
    request = ComposeRequest(RunRequest(intent="why?"), "why?", "", steps)
    return await DegradedComposer().compose(request, sink), sink.pieces


async def test_figures_are_copied_with_the_step_they_come_from():
    answer, deltas = await compose(StepResult("mix", "mix", "succeeded", output=MIX))
    assert [(k.name, k.value, k.low, k.high, k.step_id) for k in answer.kpis] == [("ROI", 1.25, 1.0, 1.5, "mix")]
    assert answer.tables[0].rows[0] == ("tv",)
    assert len(answer.tables[0].rows[1][0]) == 500
    assert [i.text for i in answer.insights] == ["TV is saturated."]
    assert answer.degraded_reason
    assert "".join(deltas).strip() == answer.summary


async def test_what_failed_is_named_with_its_code():
    failed = StepResult("notes", "notes", "failed", error=ErrorInfo(code="agent.timeout", message="x"))
    answer, _ = await compose(StepResult("mix", "mix", "succeeded", output=MIX), failed)
    assert answer.missing == ("notes failed (agent.timeout)",)
    assert "notes failed (agent.timeout)" in answer.summary


async def test_outputs_of_a_map_are_read_item_by_item():
    answer, _ = await compose(StepResult("all", "all", "succeeded", output=[MIX, None, MIX]))
    assert len(answer.kpis) == 1
    assert len(answer.tables) == 2


async def test_passages_are_quoted_with_their_citation_and_without_links():
    hostile = "Read ![x](https://evil.example/?q=secret) and [this](http://evil.example) or www.evil.example/x now."
    passages = [
        {"text": "Cap email at two a week.", "citation": "Email programme, 2026-05-11"},
        {"text": hostile, "citation": "Note"},
    ]
    answer, _ = await compose(StepResult("notes", "notes", "succeeded", output={"passages": passages}))
    assert answer.summary.splitlines()[0] == "“Cap email at two a week.” — Email programme, 2026-05-11"
    assert "evil.example" not in answer.model_dump_json()
    assert "Read x and this or [address removed] now." in answer.summary


async def test_passages_stand_back_when_a_step_made_findings_of_them():
    output = {"passages": [{"text": "p", "citation": "c"}], "insights": [{"text": "Finding."}]}
    answer, _ = await compose(StepResult("notes", "notes", "succeeded", output=output))
    assert [insight.text for insight in answer.insights] == ["Finding."]


async def test_a_figure_is_shown_by_its_label_and_told_apart_by_its_name():
    """As agents give it that are written with the kit: ``engine.domain.outputs.Kpi``."""
    kpis = [
        {"name": name, "label": label, "value": value, "unit": "GBP"}
        for name, label, value in (("sum", "Sum", 6.5), ("mean", " ", 2.5), ("sum", "Total", 9), ("total", "Sum", 7))
    ]
    answer, _ = await compose(StepResult("x", "x", "succeeded", output={"kpis": kpis}))
    assert [(kpi.name, kpi.value) for kpi in answer.kpis] == [("Sum", 6.5), ("mean", 2.5), ("Sum", 7)]


async def test_what_two_steps_say_stands_where_the_first_said_it():
    first = {"insights": [{"text": "A."}, {"text": "B."}], "kpis": [{"name": "K", "value": 1}]}
    second = {"insights": [{"text": "C."}, {"text": "A."}], "kpis": [{"name": "K", "value": 2}]}
    answer, _ = await compose(
        StepResult("x", "x", "succeeded", output=first), StepResult("y", "y", "succeeded", output=second)
    )
    assert [insight.text for insight in answer.insights] == ["A.", "B.", "C."]
    assert [(kpi.value, kpi.step_id) for kpi in answer.kpis] == [(1, "x")]


async def test_nothing_is_made_up_when_nothing_succeeded():
    answer, _ = await compose(StepResult("mix", "mix", "skipped"))
    assert answer.kpis == answer.tables == answer.insights == ()
    assert "No step" in answer.summary


async def test_odd_outputs_do_not_break_it():
    for output in (
        None,
        3,
        "text",
        {"kpis": 5, "tables": [1], "insights": [None]},
        [[1]],
        {"tables": [{"columns": [], "rows": 3}]},
    ):
        answer, _ = await compose(StepResult("s", "s", "succeeded", output=output))
        assert answer.kpis == ()


async def test_what_an_agent_overdoes_is_cut():
    huge = {
        "kpis": [
            {"name": "n" * 10_000, "value": 1e300, "unit": "u" * 10_000},
            {"name": "odd", "value": 1, "low": "1e999"},
        ],
        "tables": [{"title": "t" * 10_000, "columns": ["c" * 10_000] * 1_000, "rows": [["x"] * 1_000] * 1_000}],
    }
    answer, deltas = await compose(StepResult("mix", "mix", "succeeded", output=huge))
    assert [kpi.value for kpi in answer.kpis] == [1e300]
    assert len(answer.model_dump_json()) < 40_000
    assert len("".join(deltas)) < 1_000
    words, deltas = await compose(
        StepResult("mix", "mix", "succeeded", output={"insights": [{"text": "w" * 1_000_000}]})
    )
    assert len(words.insights[0].text) == 2_000
    assert len("".join(deltas)) < 2_100


async def test_an_output_that_was_not_read_is_said_to_be_missing():
    lost = StepResult("big", "big", "succeeded", error=ErrorInfo(code="answer.output_too_large", message="x"))
    answer, _ = await compose(lost)
    assert answer.missing == ("big succeeded (answer.output_too_large)",)


async def test_no_part_of_the_answer_carries_a_foreign_address():
    bad = "![x](https://evil.example/?q=1)"
    output = {
        "kpis": [{"name": f"ROI {bad}", "value": f"1 {bad}", "unit": f"x {bad}"}],
        "tables": [{"title": bad, "columns": [f"c {bad}"], "rows": [[f"cell {bad}"]]}],
        "insights": [{"text": f"TV is\u2028 saturated. {bad}"}, {"text": "[](https://evil.example/)"}],
    }
    answer, deltas = await compose(StepResult("web", "web", "succeeded", output=output))
    assert "evil" not in answer.model_dump_json()
    assert "evil" not in "".join(deltas)
    assert answer.removed_links == 8
    assert [insight.text for insight in answer.insights] == ["TV is\u2028 saturated. x"]
    assert "".join(deltas).strip() == answer.summary


async def test_an_address_the_tenant_allows_stays():
    tenant = TenantConfig.model_validate(
        {"tenant_id": "contoso", "display_name": "Contoso", "answer": {"link_hosts": ["wiki.contoso.example"]}}
    )
    text = "See https://wiki.contoso.example/roi and https://evil.example/"
    found = StepResult("web", "web", "succeeded", output={"insights": [{"text": text}]})
    request = ComposeRequest(RunRequest(intent="why?"), "why?", "", (found,), tenant=tenant)
    answer = await DegradedComposer().compose(request, RecordingSink())
    assert answer.summary == "See https://wiki.contoso.example/roi and (address removed)"


async def test_a_column_has_the_unit_that_its_step_gave_it_and_no_other():
    columns = [
        "Channel",
        {"label": "Shift", "unit": "change"},
        {"name": "spend", "label": "Spend", "type": "number", "unit": "see https://evil.example/"},
        {"label": "Share", "unit": 7},
    ]
    given = {"tables": [{"title": "Split", "columns": columns, "rows": [["TV", -0.0749, 12, 0.5]]}, MIX["tables"][0]]}
    answer, _ = await compose(StepResult("split", "split", "succeeded", output=given))
    split, plain = answer.tables
    assert split.columns == ("Channel", "Shift", "Spend", "Share")
    assert split.units[:2] == ("", "change")
    assert split.units[3] == ""
    assert "evil.example" not in answer.model_dump_json()
    assert split.rows == (("TV", -0.0749, 12, 0.5),), "values stay as the step gave them"
    assert plain.units == ()
