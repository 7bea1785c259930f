"""Dates as archives and crawls write them: W3CDTF (the profile of ISO 8601 in the WARC standard) and basic ISO 8601.

A date may say a year, a month, a day or a moment, and is kept at that precision; where a moment is needed, `first` and
`last` are the bounds of what it says. Everything is in UTC, which is also meant where no zone is written.
"""

from __future__ import annotations

import calendar
import dataclasses
import datetime
import functools
import re

_TIME = (
    r"(?:[Tt]|[ ]+)?(?P<hour>\d\d)(?::?(?P<minute>\d\d)(?::?(?P<second>\d\d)(?:[.,]\d+)?)?)?"
    r"[ ]*(?P<zone>[Zz]|UTC|GMT|[+-]\d\d(?::?\d\d)?)?"
)
_EXTENDED = re.compile(rf"(?P<year>\d{{4}})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d)(?:(?=[Tt ]){_TIME})?)?)?", re.ASCII)
_BASIC = re.compile(rf"(?P<year>\d{{4}})(?P<month>\d\d)(?P<day>\d\d)(?:{_TIME})?", re.ASCII)
_DAY, _MINUTE = 86_400, 60
_LONGEST = 64  # characters of a date


@dataclasses.dataclass(frozen=True, slots=True)
class WrittenDate:
    """A date at the precision in which it was written.

    Attributes:
      text: YYYY, YYYY-MM or YYYY-MM-DD in UTC; as text it sorts before every day inside it.
      first, last: seconds since 1970 of the first and of the last second that it may mean.
    """

    text: str
    first: int
    last: int


def parse_date(text: str) -> WrittenDate | None:
    """Returns a date, or None if it is none. A leap second is the last second of its day."""
    text = text.strip()
    return _parse(text) if len(text) <= _LONGEST else None


@functools.lru_cache(maxsize=1 << 14)
def _parse(text: str) -> WrittenDate | None:
    match = _EXTENDED.fullmatch(text) or _BASIC.fullmatch(text)
    if match is None:
        return _other_iso_8601(text)
    found = match.groupdict()
    year = int(found["year"])
    month, day = (int(found[name]) if found[name] else None for name in ("month", "day"))
    try:
        first = _seconds(year, month or 1, day or 1)
        if day is None:
            last_month = month or 12
            last = _seconds(year, last_month, calendar.monthrange(year, last_month)[1]) + _DAY - 1
            return WrittenDate(f"{year:04d}" if month is None else f"{year:04d}-{month:02d}", first, last)
        return _moment(first, found) if found["hour"] else WrittenDate(_day_of(first), first, first + _DAY - 1)
    except (ValueError, OverflowError):
        return None


def _moment(midnight: int, found: dict[str, str]) -> WrittenDate | None:
    """Returns the date of a day with a time, or None if the time is none."""
    hour, minute, second = (int(found[name] or 0) for name in ("hour", "minute", "second"))
    is_end_of_day = hour == 24 and minute == second == 0
    if (hour > 23 and not is_end_of_day) or minute > 59 or second > 60:
        return None
    first = midnight + hour * 3600 + minute * _MINUTE + min(second, 59) - _offset(found["zone"] or "Z")
    if second == 60 and (first + 1) % _DAY:
        return None
    length = 1 if found["second"] else _MINUTE if found["minute"] else 3600
    return WrittenDate(_day_of(first), first, first + (0 if second == 60 or is_end_of_day else length - 1))


def _offset(zone: str) -> int:
    """Returns seconds east of UTC.

    Raises:
      ValueError: there is no such zone.
    """
    if zone[0] not in "+-":
        return 0
    digits = zone[1:].replace(":", "")
    hours, minutes = int(digits[:2]), int(digits[2:] or 0)
    if hours > 23 or minutes > 59:
        raise ValueError(zone)
    return (hours * 60 + minutes) * _MINUTE * (1 if zone[0] == "+" else -1)


def _other_iso_8601(text: str) -> WrittenDate | None:
    """Returns the moment of what else the standard knows, such as days of weeks, or None."""
    try:
        moment = datetime.datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        first = int(moment.timestamp())
        return WrittenDate(_day_of(first), first, first)
    except (ValueError, OverflowError):
        return None


def _seconds(year: int, month: int, day: int) -> int:
    return (datetime.date(year, month, day) - datetime.date(1970, 1, 1)).days * _DAY


def _day_of(seconds: int) -> str:
    return (datetime.date(1970, 1, 1) + datetime.timedelta(seconds // _DAY)).isoformat()
