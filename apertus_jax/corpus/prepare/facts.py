"""The columns that every document has, whatever the policy looks at."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from apertus_jax.corpus.ledger import url_digest
from apertus_jax.corpus.personal_data import PersonalDataPolicy, rewrite_url
from apertus_jax.corpus.prepare.token_counts import TokenCounter
from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.web_addresses import parse_web_address, registrable_domain

if TYPE_CHECKING:
    import pyarrow


def facts_schema() -> list[pyarrow.Field]:
    """Returns the columns of `facts`."""
    import pyarrow

    text, number = pyarrow.string(), pyarrow.int64()
    kinds = {
        "document_id": text,
        "source": text,
        "source_version": text,
        "file": text,
        "row": number,
        "url": text,
        "url_digest": text,
        "authority": text,
        "registrable_domain": text,
        "crawl_date": text,
        "licence_declared": text,
        "characters": number,
        "utf8_bytes": number,
        "tokens": number,
        "text_sha256_in": text,
    }
    return [pyarrow.field(name, kind) for name, kind in kinds.items()]


def facts(
    document: RawDocument, source_version: str, personal_data: PersonalDataPolicy, counter: TokenCounter | None
) -> dict[str, Any]:
    """Returns identity, origin and size of a document; personal data in its address is rewritten."""
    content = document.text.encode()
    address = parse_web_address(document.url) if document.url else None
    return {
        "document_id": document.document_id,
        "source": document.source,
        "source_version": source_version,
        "file": document.file,
        "row": document.row,
        "url": rewrite_url(document.url, personal_data) if document.url else "",
        "url_digest": url_digest(document.url),
        "authority": address.authority if address else "",
        "registrable_domain": registrable_domain(address.host) if address else "",
        "crawl_date": document.crawl_date,
        "licence_declared": document.licence,
        "characters": len(document.text),
        "utf8_bytes": len(content),
        "tokens": counter.count(document.text) if counter else None,
        "text_sha256_in": hashlib.sha256(content).hexdigest(),
    }
