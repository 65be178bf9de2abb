"""Many runs at once, and the process that runs them is killed again and again: the benchmark's figures, as promises."""

from __future__ import annotations

from bench.many_crashes import measure


def test_every_run_is_finished_rightly_however_often_the_process_dies() -> None:
    figures = measure(runs=8, kills=4, seed=3, step_s=0.15)
    assert figures["finished_rightly"] == 8, figures
    assert figures["distinct_steps"] == figures["steps"] == 160, figures
    assert figures["most_of_one_step"] <= figures["kills"] + 1, figures
