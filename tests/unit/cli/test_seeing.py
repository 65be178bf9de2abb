"""What is shown of a run: the fold over its events, the tree of its plan, the crash account of the demo."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cli.commands.demo import _out_of_time, _say_next, same_options
from cli.commands.three_ways import lines_of
from cli.crashes import Crash, WorkerCrash
from cli.errors import CliError
from cli.exit_codes import ExitCode
from cli.output import human_console
from cli.render.text import clean, duration, number, planner_words
from cli.render.views import MAX_SHOWN_STEPS, answer_panel, plan_tree, runs_table
from cli.run_state import RunState
from cli.stages import Stage, run_stage
from cli.watch import line_of
from engine.domain.events import EventType
from tests.unit.cli.api_double import EVENTS, PLAN, event

steps = st.sampled_from(["a", "b"])
step_event = st.builds(
    lambda kind, step, attempt, item: event(
        1, kind, step_id=step, attempt=attempt, **({} if item is None else {"item": item})
    ),
    st.sampled_from([kind.value for kind in EventType if kind.value.startswith("step.")]),
    steps,
    st.integers(1, 3),
    st.none() | st.integers(0, 3),
)
any_event = step_event | st.builds(
    lambda kind, data: event(1, kind, **data),
    st.sampled_from([kind.value for kind in EventType] + ["later.invention"]),
    st.dictionaries(st.sampled_from(["message", "code", "plan_hash", "reason", "text"]), st.text(max_size=5)),
)


@given(st.lists(any_event, max_size=30))
def test_any_events_fold_into_a_state_and_lines(events):
    state = RunState("r")
    for entry in events:
        state.apply(entry)
        assert "\n" not in line_of(entry)
    assert set(state.steps) <= {"a", "b"}
    last = {}
    for entry in events:
        if entry["type"].startswith("step.") and "step_id" in entry["data"] and "item" not in entry["data"]:
            last[entry["data"]["step_id"]] = entry["type"]
    for step, kind in last.items():
        if kind == "step.succeeded":
            assert state.steps[step].status == "succeeded"


def test_the_events_of_a_run_tell_its_end_attempts_and_durations():
    state = RunState("r")
    for entry in EVENTS:
        state.apply(entry)
    assert (state.status, state.degraded, state.playbook) == ("succeeded", "no model is configured", "explain")
    assert (state.steps["fit"].attempt, state.steps["fit"].duration_ms) == (2, 2100)


def test_items_of_a_for_each_step_are_counted_not_mistaken_for_the_step():
    state = RunState("r")
    for item in range(3):
        state.apply(event(1, "step.succeeded", step_id="m", item=item))
    state.apply(event(1, "step.started", step_id="m", item_count=5))
    assert (state.steps["m"].items_done, state.steps["m"].items, state.steps["m"].status) == (3, 5, "running")


def printed(plan) -> str:
    console = human_console()
    with console.capture() as captured:
        console.print(plan_tree(plan, "a" * 64))
    return captured.get()


@given(st.integers(1, 12).flatmap(lambda n: st.lists(st.sets(st.integers(0, n - 1)), min_size=n, max_size=n)))
def test_every_step_of_any_graph_is_in_the_tree_once(needs):
    plan = {
        "goal": "g",
        "steps": [{"id": f"s{i}_", "needs": [f"s{n}_" for n in sorted(of) if n < i]} for i, of in enumerate(needs)],
    }
    text = printed(plan)
    lines = [line.split("─ ")[1].split()[0] for line in text.splitlines() if "─ " in line]
    assert sorted(lines) == sorted(step["id"] for step in plan["steps"])


def test_the_tree_puts_a_step_below_its_last_need_and_names_the_others():
    text = printed(PLAN)
    assert [line.count("    ") + line.count("│   ") for line in text.splitlines()[1:]] == [0, 1, 2]
    assert "also needs spend" in text


def shown(renderable, width: int) -> str:
    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


@given(st.integers(76, 140), st.text(alphabet="abc ", max_size=150))
def test_a_run_id_is_whole_and_on_one_line_at_any_usual_width(width, title):
    run = {"run_id": "run-01karx5w4q8m2n9t7v3b6c1d0e", "status": "succeeded", "created_at": "2026-11-22T12:00:00Z"}
    text = shown(runs_table([{**run, "title": title, "degraded": True}], width), width)
    assert run["run_id"] in text
    assert "2026-11-22 12:00" in text
    assert len(text.strip().splitlines()) == 3


def test_no_figure_of_an_answer_is_cut_in_a_narrow_terminal():
    figures = [111_111 * index for index in range(1, 7)]
    answer = {"summary": "s", "tables": [{"title": "t", "columns": ["A long heading"] * 6, "rows": [figures]}]}
    text = shown(answer_panel(answer), 50)
    assert "…" not in text
    assert [len(re.findall(str(index), text)) for index in range(1, 7)] == [6] * 6


def test_a_finding_and_the_reason_to_have_no_model_are_told_once():
    first, second = "Search fell.", "Email grew."
    answer = {
        "summary": f"{first}\nMissing from this answer: notes failed.",
        "insights": [{"text": first}, {"text": second}],
        "missing": ["notes failed"],
        "degraded_reason": "no model is configured",
    }
    text = shown(answer_panel(answer), 100)
    told = (first, second, "notes failed", "no model is configured")
    assert [text.count(words) for words in told] == [1, 1, 1, 1]
    assert "configured" not in line_of(event(1, "degraded.entered", part="planner", reason="no model is configured"))


def test_a_huge_or_broken_plan_does_not_hang_or_flood_the_terminal():
    huge = {"goal": "g", "steps": [{"id": f"s{i}", "needs": [f"s{i - 1}"] if i % 50 else []} for i in range(2000)]}
    text = printed(huge)
    assert text.count("\n") < MAX_SHOWN_STEPS * 4
    assert "more steps" in text
    assert "x" in printed({"goal": "g", "steps": [{"id": "x", "needs": ["y"]}, {"id": "y", "needs": ["x"]}]})


@given(st.text())
def test_cleaned_text_has_no_control_characters(text):
    assert not any(
        (ord(c) < 32 and c not in "\t\n") or 0x7F <= ord(c) < 0xA0 or c in "\u202e\u2066" for c in clean(text)
    )


def test_figures_read_well():
    assert [number(v) for v in (1234567, 0.123456, 12.345, True, "x", 3.0)] == [
        "1,234,567",
        "0.1235",
        "12.35",
        "True",
        "x",
        "3",
    ]
    assert [duration(v) for v in (None, 5, 2400, 185_000)] == ["-", "5 ms", "2.4 s", "3 min 05 s"]


def test_the_demo_kills_the_host_once_and_counts_what_ran_again(tmp_path):
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    (tmp_path / "up.json").write_text(json.dumps({"url": "u", "pid": os.getpid(), "host_pid": victim.pid}))
    crash = Crash(tmp_path)
    seq = itertools.count(1)
    for kind, step in (("started", "a"), ("started", "b"), ("succeeded", "a")):
        crash.see(event(next(seq), f"step.{kind}", step_id=step))
    assert victim.wait(20) == -signal.SIGKILL
    crash.see(event(next(seq), "step.started", step_id="b"))
    assert crash.held()
    assert crash.report() == {"after_step": "a", "finished_before": ["a"], "repeated": []}
    crash.see(event(next(seq), "step.started", step_id="a"))
    assert not crash.held()


def test_the_demo_kills_the_worker_that_has_a_step_and_watches_the_step(tmp_path):
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    facts = {"url": "u", "pid": os.getpid(), "worker_pids": {"worker-1": victim.pid}}
    (tmp_path / "up.json").write_text(json.dumps(facts))
    crash = WorkerCrash(tmp_path)
    assert (crash.held(), crash.told()) == (False, "")
    seq = itertools.count(1)
    crash.see(event(next(seq), "step.started", step_id="mix"))
    crash.see(event(next(seq), "step.progressed", step_id="mix", progress=0.5))
    crash.see(event(next(seq), "step.progressed", step_id="mix", worker="worker-1"))
    assert victim.wait(20) == -signal.SIGKILL
    assert not crash.held()
    crash.see(event(next(seq), "step.progressed", step_id="mix", worker="worker-1", attempt=2))
    crash.see(event(next(seq), "step.succeeded", step_id="mix", attempt=2))
    assert crash.held()
    assert "carried out again" in crash.told()
    taken_by = ["worker-1", "worker-1"]
    assert crash.report() == {"worker": "worker-1", "step": "mix", "attempts": 2, "taken_by": taken_by}
    crash.see(event(next(seq), "step.succeeded", step_id="mix", attempt=2))
    assert not crash.held(), "twice is once too often"


def test_a_cell_is_a_percentage_where_its_column_says_so_and_nowhere_else():
    columns = ["Channel", "Shift", "Share", "Spend", "Rate"]
    row = ["TV", -0.0749, 0.65, 1200.5, 0.3]
    table = {
        "title": "t",
        "columns": columns,
        "units": ["", "change", "fraction", "GBP", ""],
        "rows": [row, [None] * 5],
    }
    text = shown(answer_panel({"summary": "s", "tables": [table]}), 120)
    assert all(one in text for one in ("-7.5%", "65.0%", "Spend (GBP)", "1,200.50", "0.3 ")), text
    bare = shown(answer_panel({"summary": "s", "tables": [{**table, "units": []}]}), 120)
    assert "%" not in bare
    words = {**table, "rows": [["TV", "none", True, "x", "y"]]}
    assert "none" in shown(answer_panel({"summary": "s", "tables": [words]}), 120)


def test_what_the_demo_suggests_works_as_pasted(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("LIVOA_HOME", str(tmp_path))
    data = tmp_path / "a b"
    assert same_options(tmp_path, "contoso") == ("", "")
    _say_next("run-1", same_options(data, "fabrikam"), is_short=True)
    said = capsys.readouterr().err
    assert f"./livoa up --data '{data}'\n" in said
    assert f"./livoa show run-1 --data '{data}' --tenant fabrikam\n" in said
    assert "--crash" not in said
    assert "http" not in said, "nothing answers there any more"
    _say_next("run-1", same_options(data, "contoso"))
    assert "--crash" in capsys.readouterr().err
    late = CliError("it goes on", exit_code=ExitCode.TIMEOUT, code="cli.timeout")
    told = _out_of_time(late, argparse.Namespace(timeout=5, tenant="contoso"), data)
    assert "goes on" not in str(told)
    assert f"./livoa up --data '{data}'" in told.hint


def test_a_stage_reports_its_closing_line_its_failure_and_its_timeout(tmp_path, capsys):
    good = run_stage(Stage("good", [sys.executable, "-c", "print('=== 3 passed ===')"], 60), tmp_path)
    assert (good.status, good.note) == ("passed", "3 passed")
    bad = run_stage(Stage("bad", [sys.executable, "-c", "print('what is wrong'); raise SystemExit(3)"], 60), tmp_path)
    assert (bad.status, bad.exit_code) == ("failed", 3)
    assert "what is wrong" in capsys.readouterr().err
    slow = run_stage(Stage("slow", [sys.executable, "-c", "import time; time.sleep(60)"], 0.5), tmp_path)
    assert (slow.status, slow.exit_code) == ("failed", 124)
    assert run_stage(Stage("none", (), 0, skip="why"), tmp_path).note == "why"


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, ""),
        ({"source": "caller"}, "by the caller"),
        ({"source": "playbook", "playbook": "explain", "router": "lexical"}, "by playbook explain, routed by lexical"),
        (
            {
                "source": "model",
                "model": "gpt-4o",
                "attempts": 2,
                "router": "lexical",
                "fallbacks": ["small: model.timeout"],
            },
            "by model gpt-4o in 2 attempts, routed by lexical (small: model.timeout)",
        ),
        ({"codes": ["plan.no_capability"], "router": "small"}, "routed by small"),
    ],
)
def test_who_planned_is_said_in_words(facts, words):
    assert planner_words(facts) == words
    assert line_of(event(3, "plan.proposed", **facts)) == f"plan.proposed  {words}".rstrip()


def test_a_rejected_plan_is_told_by_its_code_and_apart_from_the_router():
    said = line_of(event(3, "plan.rejected", router="lexical", codes=["plan.unclear_intent"], message="say which"))
    assert said == "plan.rejected  routed by lexical  plan.unclear_intent"
    assert line_of(event(3, "plan.rejected", codes=[], message="not so")) == "plan.rejected  not so"


def test_three_ways_fit_a_narrow_terminal_and_own_up_to_the_script():
    way = {
        "way": "the model is down, the open-weight fallback answers",
        "status": "succeeded",
        "degraded": False,
        "steps": 5,
        "seconds": 33.1,
        "router": "qwen2.5-7b-instruct.fallback",
        "passed_over": ["gpt-4o-down: model.unavailable"],
        "planner": "qwen2.5-7b-instruct.fallback",
        "writer": "qwen2.5-7b-instruct.fallback",
    }
    lines = lines_of([way])
    assert "scripted" in lines[0]
    assert max(map(len, lines)) <= 80
    assert [line.strip() for line in lines[2:4]] == [
        "routed by   qwen2.5-7b-instruct.fallback",
        "after gpt-4o-down: model.unavailable",
    ]
