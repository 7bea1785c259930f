"""Base columns that every document has, whatever the policy asks: identity, origin, size, number of tokens."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from etils import epath

from apertus_jax.corpus.ledger import url_digest
from apertus_jax.corpus.personal_data import PersonalDataPolicy, rewrite_url
from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.corpus.web_addresses import parse_web_address, registrable_domain
from apertus_jax.errors import UserError
from apertus_jax.storage import artifacts

if TYPE_CHECKING:
    import pyarrow

TEKKEN, TEKKEN_FILE = "tekken", "tekken_240718.json"


@dataclasses.dataclass(frozen=True)
class TokenCounter:
    """Counts the tokens of texts, without marks of start and end; `digest` names the vocabulary."""

    count: Callable[[str], int]
    digest: str

    @classmethod
    def load(cls, tokenizer: str) -> Self:
        """Reads `tekken` (from the installed package mistral_common), a tokenizer.json, or the folder that holds one.

        Raises:
          UserError: it is missing or no tokenizer.
        """
        if tokenizer == TEKKEN:
            return cls._load_tekken()
        import tokenizers

        file = epath.Path(tokenizer)
        file = file / "tokenizer.json" if file.is_dir() else file
        if not file.exists():
            raise UserError(f"Policy.tokenizer {file} does not exist; give a tokenizer.json, {TEKKEN!r} or nothing")
        content = file.read_bytes()
        try:
            model = tokenizers.Tokenizer.from_str(content.decode())
        except Exception as error:  # the library raises nothing narrower
            raise UserError(f"Policy.tokenizer {file} is not a tokenizer ({error}); give a tokenizer.json") from error
        return cls(lambda text: len(model.encode(text, add_special_tokens=False)), artifacts.digest_bytes(content))

    @classmethod
    def _load_tekken(cls) -> Self:
        import importlib.resources

        import mistral_common

        path = importlib.resources.files(mistral_common) / "data" / TEKKEN_FILE

        @functools.cache  # loading takes a second, which a corpus that is finished already need not wait for
        def model() -> Any:
            from mistral_common.tokens.tokenizers.tekken import Tekkenizer

            return Tekkenizer.from_file(str(path))

        return cls(
            lambda text: len(model().encode(text, bos=False, eos=False)), artifacts.digest_bytes(path.read_bytes())
        )


def facts_schema() -> list[pyarrow.Field]:
    """Returns the columns of `facts`."""
    import pyarrow

    text, number = pyarrow.string(), pyarrow.int64()
    kinds = {
        "document_id": text,
        "source": text,
        "source_version": text,
        "own_source": text,
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
        "own_source": document.own_source,
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
