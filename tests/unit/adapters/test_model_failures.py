"""Whatever status, document and headers a provider answers with, it is a failure in our words."""

from __future__ import annotations

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from engine.adapters.azure_openai.failures import MAX_RETRY_AFTER_S, of_status, of_stream_error, retry_after_s
from engine.ports.models import FailureCode

MARK = "provider-words"
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20).map(lambda text: MARK + text)
documents = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "code", "type", "message", "innererror", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)
values = st.text(max_size=12) | st.sampled_from(["0", "3", "1e9", "-1", "inf", "nan", "999999999", "9" * 40, "٣"])


@given(st.integers(300, 599), documents, values, values)
def test_any_error_answer_is_a_failure_that_repeats_nothing_of_it(status, body, seconds, milliseconds):
    failure = of_status(status, body, {"retry-after": seconds, "retry-after-ms": milliseconds})
    assert failure.code in get_args(FailureCode)
    assert MARK not in repr(failure)
    assert failure.retry_after_s is None or 0 <= failure.retry_after_s <= MAX_RETRY_AFTER_S
    assert not failure.retryable or status in (408, 409, 425, 429) or status >= 500


@given(documents)
def test_any_error_inside_a_stream_is_a_failure_that_repeats_nothing_of_it(body):
    failure = of_stream_error(body)
    assert failure.code in get_args(FailureCode)
    assert MARK not in repr(failure)


def test_milliseconds_come_before_seconds_and_dates_are_ignored():
    assert retry_after_s({"retry-after": "9", "retry-after-ms": "1500"}) == 1.5
    assert retry_after_s({"retry-after": "0.5"}) == 0.5
    assert retry_after_s({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}) is None
    assert retry_after_s({}) is None
