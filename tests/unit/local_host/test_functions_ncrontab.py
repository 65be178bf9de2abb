"""Timer schedules: the next occurrence is a match, and nothing before it is one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local_host.errors import HostError
from local_host.ncrontab import ConstantSchedule, CronSchedule, parse_schedule
from local_host.timers import is_monitorable

NOON_AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)  # a Sunday
moments = st.datetimes(datetime(2020, 1, 1), datetime(2099, 12, 31), timezones=st.just(UTC))


def _field(lowest: int, highest: int) -> st.SearchStrategy[str]:
    value = st.integers(lowest, highest)
    item = st.one_of(
        st.just("*"),
        value.map(str),
        st.tuples(value, value).map(lambda pair: f"{pair[0]}-{pair[1]}"),
        st.integers(1, highest + 1).map(lambda step: f"*/{step}"),
        st.tuples(value, value, st.integers(1, 9)).map(lambda t: f"{t[0]}-{t[1]}/{t[2]}"),
    )
    return st.lists(item, min_size=1, max_size=3).map(",".join)


expressions = st.tuples(_field(0, 59), _field(0, 59), _field(0, 23), _field(1, 28), _field(1, 12), _field(0, 6))


def _expected_values(field: str, lowest: int, highest: int) -> set[int]:
    """An independent reading of a field: try each value against each item."""
    values = set()
    for item in field.split(","):
        body, _, step = item.partition("/")
        first, last = (
            (lowest, highest) if body == "*" else tuple(sorted(int(x) for x in (body + "-" + body).split("-")[:2]))
        )
        values |= {v for v in range(first, last + 1) if (v - first) % int(step or 1) == 0}
    return values


def _matches(parts: tuple[str, ...], moment_at: datetime) -> bool:
    actual = (
        moment_at.second,
        moment_at.minute,
        moment_at.hour,
        moment_at.day,
        moment_at.month,
        moment_at.isoweekday() % 7,
    )
    ranges = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
    return all(
        value in _expected_values(part, *bounds) for part, value, bounds in zip(parts, actual, ranges, strict=True)
    )


@given(expressions, moments)
@settings(max_examples=150, deadline=None)
def test_the_next_occurrence_is_later_and_matches_every_field(parts, moment_at):
    next_at = parse_schedule(" ".join(parts)).next_after(moment_at)
    assert next_at is not None
    assert next_at > moment_at
    assert next_at.microsecond == 0
    assert _matches(parts, next_at)


@given(expressions, moments)
@settings(max_examples=60, deadline=None)
def test_no_earlier_second_of_the_next_minutes_matches(parts, moment_at):
    next_at = parse_schedule(" ".join(parts)).next_after(moment_at)
    second_at = moment_at.replace(microsecond=0) + timedelta(seconds=1)
    for _ in range(150):
        if second_at >= next_at:
            break
        assert not _matches(parts, second_at)
        second_at += timedelta(seconds=1)


@given(expressions, moments)
@settings(max_examples=60, deadline=None)
def test_asking_from_just_before_an_occurrence_finds_it_again(parts, moment_at):
    schedule = parse_schedule(" ".join(parts))
    next_at = schedule.next_after(moment_at)
    assert schedule.next_after(next_at - timedelta(microseconds=1)) == next_at
    assert schedule.next_after(next_at) > next_at


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 */5 * * * *", "2026-03-01T12:05:00"),
        ("*/15 * * * * *", "2026-03-01T12:00:15"),
        ("30 9 * * *", "2026-03-02T09:30:00"),  # five fields: no seconds
        ("0 30 9 * * Mon-Fri", "2026-03-02T09:30:00"),
        ("0 0 0 * * FRIDAY", "2026-03-06T00:00:00"),
        ("0 0 0 1 jan *", "2027-01-01T00:00:00"),
        ("0 0 0 29 2 *", "2028-02-29T00:00:00"),
        ("0 0 0 13 * 5", "2026-03-13T00:00:00"),  # day of month AND day of week
        ("0 0 10/6 * * *", "2026-03-01T16:00:00"),  # from 10 to the maximum
        ("0 0 17-9 * * *", "2026-03-01T13:00:00"),  # a reversed range is turned round
        ("00:30:00", "2026-03-01T12:30:00"),
        ("1.00:00:00", "2026-03-02T12:00:00"),
    ],
)
def test_known_expressions(text, expected):
    assert parse_schedule(text).next_after(NOON_AT) == datetime.fromisoformat(expected).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "* * *",
        "* * * * * * *",
        "60 * * * * *",
        "* * 24 * * *",
        "* * * 0 * *",
        "* * * * 13 *",
        "* * * * * 7",
        "x * * * * *",
        "*/x * * * * *",
        "1- * * * * *",
        ", * * * * *",
        "0 0 0 31 2 *",
        "00:00:00",
        "25:00:00",
        "1:2",
    ],
)
def test_a_bad_schedule_is_refused_with_its_place(text):
    with pytest.raises(HostError) as caught:
        parse_schedule(text, where="nightly")
    assert caught.value.code in {"host.bad_schedule", "host.bad_timespan"}
    assert caught.value.where == "nightly"


def test_only_schedules_of_a_minute_or_more_are_monitored():
    assert is_monitorable(parse_schedule("0 * * * * *"), NOON_AT)
    assert not is_monitorable(parse_schedule("*/30 * * * * *"), NOON_AT)
    assert not is_monitorable(ConstantSchedule(59), NOON_AT)
    assert isinstance(parse_schedule("0 0 0 * * *"), CronSchedule)
