"""The columns that every document has, whatever the policy looks at."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any, Self

from etils import epath

from apertus_jax import artifacts
from apertus_jax.corpus.ledger import url_digest
from apertus_jax.corpus.personal_data import PersonalDataPolicy, rewrite_url
from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.web_addresses import parse_web_address, registrable_domain
from apertus_jax.errors import UserError

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


@dataclasses.dataclass(frozen=True)
class TokenCounter:
    """Counts the tokens of texts, without the marks of start and end."""

    tokenizer: Any
    digest: str

    @classmethod
    def load(cls, path: epath.PathLike) -> Self:
        """Reads a tokenizer.json or the folder that holds one.

        Raises:
          UserError: it is missing or no tokenizer.
        """
        import tokenizers

        file = epath.Path(path)
        file = file / "tokenizer.json" if file.is_dir() else file
        if not file.exists():
            raise UserError(f"Policy.tokenizer {file} does not exist; give a tokenizer.json or leave it empty")
        content = file.read_bytes()
        try:
            return cls(tokenizers.Tokenizer.from_str(content.decode()), artifacts.digest_bytes(content))
        except Exception as error:  # the library raises nothing narrower
            raise UserError(f"Policy.tokenizer {file} is not a tokenizer ({error}); give a tokenizer.json") from error

    def count(self, text: str) -> int:
        """Returns the number of tokens of a text."""
        return len(self.tokenizer.encode(text, add_special_tokens=False))


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
