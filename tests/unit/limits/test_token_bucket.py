"""The token bucket: a rate with a burst, exact in integers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.limits.token_bucket import Bucket, BucketRules, Drawn, draw, draw_up_to

RULES = st.builds(BucketRules, st.integers(1, 50), st.integers(1, 50), st.integers(1, 60))


@given(RULES, st.lists(st.tuples(st.integers(0, 3_000), st.integers(1, 60)), max_size=60))
def test_no_span_of_time_lets_more_through_than_burst_and_rate(
    rules: BucketRules, calls: list[tuple[int, int]]
) -> None:
    now_ms, bucket, granted = 10_000, Bucket.full(rules, 10_000), [(0, 0)][:0]
    for wait_ms, permits in calls:
        now_ms += wait_ms
        bucket, drawn = draw(bucket, permits, now_ms, rules)
        if drawn.granted:
            granted.append((now_ms, permits))
    for first in range(len(granted)):
        total = 0
        for at_ms, permits in granted[first:]:
            total += permits
            assert total * rules.unit <= rules.burst * rules.unit + (at_ms - granted[first][0]) * rules.rate


@given(RULES, st.integers(1, 50), st.integers(1, 50))
def test_what_it_says_about_when_to_come_back_is_true_to_the_millisecond(
    rules: BucketRules, first: int, permits: int
) -> None:
    bucket, _ = draw(Bucket.full(rules, 0), min(first, rules.burst), 0, rules)
    bucket, drawn = draw(bucket, permits, 0, rules)
    if drawn.granted:
        return
    if permits > rules.burst:
        assert drawn.retry_after_ms is None
        return
    assert drawn.retry_after_ms is not None
    assert not draw(bucket, permits, drawn.retry_after_ms - 1, rules)[1].granted
    assert draw(bucket, permits, drawn.retry_after_ms, rules)[1].granted


@given(RULES, st.integers(0, 5_000))
def test_a_clock_that_goes_back_adds_nothing(rules: BucketRules, back_ms: int) -> None:
    bucket, _ = draw(Bucket.full(rules, 10_000), rules.burst, 10_000, rules)
    bucket, drawn = draw(bucket, 1, 10_000 - back_ms, rules)
    assert not drawn.granted
    again, _ = draw(bucket, 1, 10_000, rules)
    assert again == bucket


@given(RULES, st.lists(st.tuples(st.integers(0, 3_000), st.integers(1, 60)), max_size=60))
def test_a_block_is_what_there_is_and_an_empty_one_says_when_there_will_be_a_permit(
    rules: BucketRules, calls: list[tuple[int, int]]
) -> None:
    now_ms, bucket, total = 0, Bucket.full(rules, 0), 0
    for wait_ms, permits in calls:
        now_ms += wait_ms
        before = bucket
        bucket, taken, retry_after_ms = draw_up_to(bucket, permits, now_ms, rules)
        total += taken
        assert 0 <= taken <= permits
        assert total * rules.unit <= rules.burst * rules.unit + now_ms * rules.rate
        assert (retry_after_ms == 0) == (taken > 0)
        if taken == 0:
            assert not draw(before, 1, now_ms + retry_after_ms - 1, rules)[1].granted
            assert draw(before, 1, now_ms + retry_after_ms, rules)[1].granted


def test_a_rate_below_one_in_a_second_is_exact_and_a_lowered_burst_holds_at_once() -> None:
    rules = BucketRules(1, 1, period_s=60)
    bucket, _ = draw(Bucket.full(rules, 0), 1, 0, rules)
    assert draw_up_to(bucket, 5, 59_999, rules)[1:] == (0, 1)
    assert draw_up_to(bucket, 5, 60_000, rules)[1:] == (1, 0)
    assert draw_up_to(Bucket.full(BucketRules(10, 9), 0), 9, 0, BucketRules(10, 2))[1] == 2


def test_states_are_json_and_nonsense_is_refused() -> None:
    bucket = Bucket.full(BucketRules(1, 5), 7)
    assert Bucket.from_json(json.loads(json.dumps(bucket.to_json()))) == bucket
    assert draw(bucket, 5, 7, BucketRules(1, 5)) == (Bucket(0, 7), Drawn(True))
    with pytest.raises(ValueError):
        draw(bucket, 0, 7, BucketRules(1, 5))
    with pytest.raises(ValueError):
        draw_up_to(bucket, 0, 7, BucketRules(1, 5))
    for wrong in ((0, 1, 1), (1, 0, 1), (1, 1, 0)):
        with pytest.raises(ValueError):
            BucketRules(*wrong)
