"""Dates of archives at the precision in which they were written: what they bound, and what is none."""

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax.corpus.robots_snapshot import RobotsSnapshot, build_robots_snapshot
from apertus_jax.corpus.robots_snapshot.responses import format_time, parse_time
from apertus_jax.corpus.web.dates import parse_date
from tests.corpus.robots_snapshot.test_robots_snapshot_table import CLOSED, OPEN, warc_record, write_warc
from tests.corpus.sources.web_archive_records import page, read_bytes

EXAMPLES = {
    # What is written, the date at its precision, the first and the last second that it may mean.
    "2016-12-31T23:59:60Z": ("2016-12-31", "2016-12-31T23:59:59Z", "2016-12-31T23:59:59Z"),
    "2017-01-01T00:59:60+01:00": ("2016-12-31", "2016-12-31T23:59:59Z", "2016-12-31T23:59:59Z"),
    "2024": ("2024", "2024-01-01T00:00:00Z", "2024-12-31T23:59:59Z"),
    "2024-02": ("2024-02", "2024-02-01T00:00:00Z", "2024-02-29T23:59:59Z"),
    "2024-02-29": ("2024-02-29", "2024-02-29T00:00:00Z", "2024-02-29T23:59:59Z"),
    "20240229": ("2024-02-29", "2024-02-29T00:00:00Z", "2024-02-29T23:59:59Z"),
    "20240229120000": ("2024-02-29", "2024-02-29T12:00:00Z", "2024-02-29T12:00:00Z"),
    "2024-02-29T12": ("2024-02-29", "2024-02-29T12:00:00Z", "2024-02-29T12:59:59Z"),
    "2024-02-29T12:30Z": ("2024-02-29", "2024-02-29T12:30:00Z", "2024-02-29T12:30:59Z"),
    "2024-02-29T12:30:15.123456789Z": ("2024-02-29", "2024-02-29T12:30:15Z", "2024-02-29T12:30:15Z"),
    "2024-03-01t01:30:00.5z": ("2024-03-01", "2024-03-01T01:30:00Z", "2024-03-01T01:30:00Z"),
    "2024-03-01T01:30:00+02:00": ("2024-02-29", "2024-02-29T23:30:00Z", "2024-02-29T23:30:00Z"),
    "2024-02-29 23:30:00 -0100": ("2024-03-01", "2024-03-01T00:30:00Z", "2024-03-01T00:30:00Z"),
    "2024-02-29T24:00:00Z": ("2024-03-01", "2024-03-01T00:00:00Z", "2024-03-01T00:00:00Z"),
    "2024-W09-4": ("2024-02-29", "2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"),
}


@pytest.mark.parametrize("written", EXAMPLES)
def test_dates_of_the_standard_are_read_at_their_precision(written):
    found = parse_date(f" {written} ")
    assert (found.text, format_time(found.first), format_time(found.last)) == EXAMPLES[written]
    assert parse_time(written) == found.first


@pytest.mark.parametrize(
    "written",
    [
        *("", "0000", "202403", "2024-13", "2023-02-29", "2024-3-1", "1704164645", "2024-02-29T25:00", "24"),
        *(
            "2024-02-29T24:00:01Z",
            "2024-02-29T12:60",
            "2024-02-29T12:00:60Z",
            "2024-02-29T23:59:61Z",
            "the third of May",
        ),
        *("2024-02-29T12:00+99:00", "２０２４", "2024-02-29T12:00:00 CET", "-2024", "9999-12-31T23:00-05:00"),
    ],
)
def test_what_is_no_date_is_none(written):
    assert parse_date(written) is None


@settings(max_examples=200, deadline=None)
@given(
    st.datetimes(datetime.datetime(1000, 1, 2), datetime.datetime(9998, 12, 30)),
    st.sampled_from([None, *(datetime.timezone(datetime.timedelta(minutes=m)) for m in (0, 60, -330, 840))]),
)
def test_moments_are_those_of_the_standard_library(moment, zone):
    moment = moment.replace(microsecond=0, tzinfo=zone)
    expected = moment if zone else moment.replace(tzinfo=datetime.UTC)
    found = parse_date(moment.isoformat())
    assert found.first == found.last == int(expected.timestamp())
    assert found.text == expected.astimezone(datetime.UTC).date().isoformat()


@pytest.mark.parametrize("written", ["2016-12-31T23:59:60Z", "2024-03", "2024", "2024-03-04t05:06:07.8+02:00"])
def test_records_of_such_dates_are_documents(tmp_path, written):
    content = b"".join((page("a"), page("b").replace(b"2024-03-04T05:06:07Z", written.encode()), page("c")))
    documents, quarantined = read_bytes(tmp_path, content)
    assert [each.crawl_date for each in documents] == ["2024-03-04", parse_date(written).text, "2024-03-04"]
    assert not quarantined


@pytest.mark.parametrize("written, is_future", [("2026", False), ("2026-01", False), ("2026-02", True), ("2027", True)])
def test_a_month_is_in_the_future_only_if_all_of_it_is(tmp_path, written, is_future):
    content = page("a").replace(b"2024-03-04T05:06:07Z", written.encode())  # read on 2026-01-01
    documents, quarantined = read_bytes(tmp_path, content)
    assert len(documents) == (not is_future) and [reason for _, reason in quarantined] == ["future_date"] * is_future


def test_an_answer_that_may_be_old_enough_belongs_to_a_snapshot(tmp_path):
    url = "https://a.example/robots.txt"
    records = [
        warc_record(url, OPEN, date="2025-02"),
        warc_record(url, CLOSED, date="2025-01"),
        warc_record("https://b.example/robots.txt", CLOSED, date="2025"),
    ]
    write_warc(tmp_path / "a.warc.gz", records)
    build_robots_snapshot(tmp_path / "a.warc.gz", tmp_path / "day", "2025-01-15", progress=False)
    snapshot = RobotsSnapshot(tmp_path / "day")
    assert snapshot.record("a.example", "https").body == snapshot.record("b.example", "https").body == CLOSED
    build_robots_snapshot(tmp_path / "a.warc.gz", tmp_path / "month", "2025-02", progress=False)
    assert RobotsSnapshot(tmp_path / "month").record("a.example", "https").body == OPEN
    assert RobotsSnapshot(tmp_path / "month").as_of == "2025-02-28T23:59:59Z"
