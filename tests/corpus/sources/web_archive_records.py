"""Records of web archives written by hand, and what the reader makes of them."""

from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.sources import QuarantinedRow, Source, plan_units, read_unit

TODAY = "2026-01-01"
PAGE = "<html><head><title>T</title></head><body><p>{}</p></body></html>"


def record(name, block, kind="response", length=None, content_type="application/http; msgtype=response", extra=""):
    """Returns the bytes of one record, written by hand after ISO 28500."""
    header = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:{name}>\r\nWARC-Date: 2024-03-04T05:06:07Z\r\n"
        f"WARC-Target-URI: https://a.example/{name}\r\nContent-Type: {content_type}\r\n{extra}"
        f"Content-Length: {len(block) if length is None else length}\r\n\r\n"
    )
    return header.encode() + block + b"\r\n\r\n"


def response(name, body, headers="Content-Type: text/html; charset=utf-8\r\n", status="200 OK", **options):
    body = body if isinstance(body, bytes) else body.encode()
    return record(name, f"HTTP/1.1 {status}\r\n{headers}\r\n".encode() + body, **options)


def page(name, **options):
    return response(name, PAGE.format(f"This is page {name}."), **options)


def read(path, ignored=None, **options):
    source = Source("crawl", str(path), **options)
    rows = [each for unit in plan_units([source]) for each in read_unit(source, unit, today=TODAY, ignored=ignored)]
    documents = [each for each in rows if isinstance(each, RawDocument)]
    return documents, [(each.row, str(each.reason)) for each in rows if isinstance(each, QuarantinedRow)]


def read_bytes(folder, content, name="a.warc", **options):
    (folder / name).write_bytes(content)
    return read(folder / name, **options)
