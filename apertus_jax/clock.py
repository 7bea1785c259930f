"""The current day in UTC, the same for every process of a run; crawls count their days the same way."""

from __future__ import annotations

import datetime
import re

from apertus_jax.errors import UserError

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def now() -> datetime.datetime:
    """Returns the present moment, in UTC."""
    return datetime.datetime.now(datetime.UTC)


def today() -> datetime.date:
    """Returns the present day in UTC."""
    return now().date()


def parse_day(text: str) -> datetime.date | None:
    """Returns the calendar day written YYYY-MM-DD, or None."""
    try:
        return datetime.date.fromisoformat(text) if _DAY.fullmatch(text) else None
    except ValueError:
        return None


def require_day(text: str, name: str) -> datetime.date:
    """Returns the calendar day written YYYY-MM-DD.

    Raises:
      UserError: it is none; `name` says whose value it is.
    """
    day = parse_day(text)
    if day is None:
        raise UserError(f"{name} = {text!r} is not a day; write YYYY-MM-DD")
    return day
