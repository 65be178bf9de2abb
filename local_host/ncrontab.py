"""NCRONTAB and TimeSpan schedules: when does a timer fire next. Pure; UTC only.

Semantics are those of the NCrontab library the platform uses, which differ from Unix cron: day-of-month AND
day-of-week must both match, 7 is not Sunday, a reversed range is turned round, `a/n` means from a to the maximum,
names may be any prefix. Five fields mean "no seconds field". Deliberately no time zones: the host refuses
WEBSITE_TIME_ZONE instead of getting daylight saving nearly right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from local_host.errors import HostError
from local_host.settings import parse_timespan_s

_MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
# (name, lowest, highest, names) in the order of a six-field expression
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("second", 0, 59, ()),
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 6, _DAYS),
)
_HORIZON_YEARS = 9  # 29 February can be 8 years away (1896 to 1904, 2096 to 2104)


@dataclass(frozen=True, slots=True)
class CronSchedule:
    """Allowed values per field; build it with `parse_schedule`."""

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]

    def next_after(self, moment_at: datetime) -> datetime | None:
        """The first matching second strictly after `moment_at` (aware); None when there is none within 9 years."""
        start_at = moment_at.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1)
        day_at = start_at.replace(hour=0, minute=0, second=0)
        earliest = (start_at.hour, start_at.minute, start_at.second)
        for _ in range(366 * _HORIZON_YEARS):
            if self._day_matches(day_at):
                time = self._time_from(earliest)
                if time is not None:
                    return day_at.replace(hour=time[0], minute=time[1], second=time[2])
            day_at += timedelta(days=1)
            earliest = (0, 0, 0)
        return None

    def _day_matches(self, day_at: datetime) -> bool:
        weekday = (day_at.weekday() + 1) % 7  # Python counts from Monday, cron from Sunday
        return day_at.month in self.months and day_at.day in self.days and weekday in self.weekdays

    def _time_from(self, earliest: tuple[int, int, int]) -> tuple[int, int, int] | None:
        for hour in self.hours:
            if hour < earliest[0]:
                continue
            for minute in self.minutes:
                if (hour, minute) < earliest[:2]:
                    continue
                for second in self.seconds:
                    if (hour, minute, second) >= earliest:
                        return hour, minute, second
        return None


@dataclass(frozen=True, slots=True)
class ConstantSchedule:
    """A fixed distance between runs."""

    interval_s: float

    def next_after(self, moment_at: datetime) -> datetime | None:
        """`moment_at` plus the interval."""
        return moment_at.astimezone(UTC) + timedelta(seconds=self.interval_s)


Schedule = CronSchedule | ConstantSchedule


def parse_schedule(text: str, *, where: str = "") -> Schedule:
    """A five- or six-field NCRONTAB expression or a TimeSpan `hh:mm:ss`.

    Raises HostError `host.bad_schedule` naming the field at fault; also for a date that never comes.
    """
    if ":" in text:
        interval_s = parse_timespan_s(text, where=where)
        if interval_s <= 0:
            raise HostError("host.bad_schedule", f"{text!r} is not a positive interval", where)
        return ConstantSchedule(interval_s)
    parts = text.split()
    if len(parts) == 5:
        parts = ["0", *parts]
    if len(parts) != 6:
        raise HostError("host.bad_schedule", f"{text!r} has {len(parts)} fields instead of 6 (or 5)", where)
    values = [_field_values(part, field, text, where) for part, field in zip(parts, _FIELDS, strict=True)]
    seconds, minutes, hours, days, months, weekdays = values
    schedule = CronSchedule(
        tuple(sorted(seconds)),
        tuple(sorted(minutes)),
        tuple(sorted(hours)),
        frozenset(days),
        frozenset(months),
        frozenset(weekdays),
    )
    if schedule.next_after(datetime(2026, 1, 1, tzinfo=UTC)) is None:
        raise HostError("host.bad_schedule", f"{text!r} never comes true", where)
    return schedule


def _field_values(part: str, field: tuple[str, int, int, tuple[str, ...]], text: str, where: str) -> set[int]:
    values: set[int] = set()
    for item in part.split(","):
        try:
            values |= _item_values(item, field)
        except ValueError as err:
            raise HostError("host.bad_schedule", f"{text!r}, field {field[0]!r}: {err}", where) from err
    return values


def _item_values(item: str, field: tuple[str, int, int, tuple[str, ...]]) -> set[int]:
    _, lowest, highest, _ = field
    body, slash, step_text = item.partition("/")
    if slash and not step_text.isdecimal():
        raise ValueError(f"{step_text!r} is not a step")
    step = max(int(step_text), 1) if slash else 1
    if body == "*":
        first, last = lowest, highest
    elif "-" in body:
        ends = [_value(end, field) for end in body.split("-", 1)]
        first, last = min(ends), max(ends)
    else:
        first = _value(body, field)
        last = highest if step > 1 else first
    return set(range(first, last + 1, step))


def _value(text: str, field: tuple[str, int, int, tuple[str, ...]]) -> int:
    _, lowest, highest, names = field
    if re.fullmatch(r"[0-9]{1,4}", text):
        number = int(text)
        if not lowest <= number <= highest:
            raise ValueError(f"{number} is not between {lowest} and {highest}")
        return number
    if text:
        for index, name in enumerate(names):
            if name.startswith(text.lower()):
                return index + lowest
    raise ValueError(f"{text!r} is not a value")
