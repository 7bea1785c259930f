"""Croissant description of the corpus (JSON-LD, http://mlcommons.org/croissant/1.0), for catalogues and loaders.

Documents are a file set inside the prepared folder. Its anchor is the folder's manifest: one small file with a SHA-256,
which in turn holds the digest of everything else, so that texts need not be read again. Paths are relative to that
folder: the description is to be published beside its parts.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from apertus_jax.release.data_summary.answers.template import stated
from apertus_jax.release.data_summary.inputs import Inputs
from apertus_jax.release.data_summary.prepared_corpus import DOCUMENTS_FILE, PARTS, column_names
from apertus_jax.storage import artifacts

CROISSANT_FILE = "croissant.json"
CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
MANIFEST_ID, DOCUMENTS_ID, RECORDS_ID = "manifest", "documents-files", "documents"
_TERMS = (
    "citeAs column equivalentProperty extract field fileProperty fileObject fileSet format includes isLiveDataset "
    "jsonPath key md5 parentField path recordSet references regex repeated replace samplingRate separator source "
    "subField transform"
)
# The context that the specification recommends (its appendix 1): loaders warn about any other.
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "sc": "https://schema.org/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _TERMS.split()},
}
FIELD_DESCRIPTIONS = {
    "document_id": "BLAKE2b-128 of source, version and record, in hexadecimal.",
    "text": "The text, personal data of the policy's kinds replaced by markers.",
    "source": "Name of the source.",
    "language": "ISO 639-3 code and ISO 15924 script, und when unknown.",
    "url": "Where it was found, empty without an address.",
    "licence": "As declared by the source, empty when it declared none.",
    "cluster": "Identity that stands for all copies of the document, empty when it has none.",
    "text_digest": "Digest of the text before personal data was replaced, by which removal requests name it.",
}


def describe_as_croissant(inputs: Inputs) -> str:
    """Returns the description as JSON that may stand inside a web page."""
    text = json.dumps(_dataset(inputs), indent=1, ensure_ascii=False)
    return text.replace("<", "\\u003c") + "\n"


def _dataset(inputs: Inputs) -> dict[str, Any]:
    answers, declared = inputs.facts.datasheet, inputs.facts.declarations
    kept = inputs.sums.kept()
    dataset: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": answers.name or f"prepared corpus {inputs.corpus.digest}",
        "description": answers.purpose
        or f"Text corpus prepared under the policy {inputs.corpus.summary['policy_name']}.",
        "conformsTo": CONFORMS_TO,
        "license": str(stated(answers.licence, "bind DatasheetAnswers.licence; each record has its own licence")),
        "url": str(stated(answers.link, "bind DatasheetAnswers.link")),
        "version": f"{inputs.history.version}.0.0",
        "creator": {
            "@type": "sc:Organization",
            "name": str(stated(inputs.facts.provider.name, "bind Provider.name")),
        },
        "inLanguage": [label.replace("_", "-") for label in sorted(inputs.sums.kept_by_language())],
        "keywords": [f"{kept.documents} documents", f"{kept.bytes_kept} bytes", "text", "pretraining"],
        "distribution": _distribution(inputs),
    }
    if declared.last_update:
        dataset["datePublished"] = declared.last_update
    else:  # anything but a date stops loaders
        dataset["description"] += " Date of publication not available: bind Declarations.last_update."
    return dataset | {"recordSet": [_records(inputs)]}


def _distribution(inputs: Inputs) -> list[dict[str, Any]]:
    manifest = (inputs.corpus.folder / artifacts.COMMIT_MARKER).read_bytes()
    return [
        {
            "@type": "cr:FileObject",
            "@id": MANIFEST_ID,
            "name": artifacts.COMMIT_MARKER,
            "description": "Digests of every part; each part has the digests of its files.",
            "contentUrl": artifacts.COMMIT_MARKER,
            "contentSize": f"{len(manifest)} B",
            "encodingFormat": "application/json",
            "sha256": hashlib.sha256(manifest).hexdigest(),
        },
        {
            "@type": "cr:FileSet",
            "@id": DOCUMENTS_ID,
            "name": DOCUMENTS_ID,
            "description": "The permitted documents; the ledger beside them says why each one stayed or went.",
            "encodingFormat": "application/x-parquet",
            "includes": f"{PARTS}/*/{DOCUMENTS_FILE}",
        },
    ]


def _records(inputs: Inputs) -> dict[str, Any]:
    """Returns the record set: one field for each column of the documents' files."""
    columns = column_names(inputs.corpus.parts[0] / DOCUMENTS_FILE)
    return {
        "@type": "cr:RecordSet",
        "@id": RECORDS_ID,
        "name": RECORDS_ID,
        "key": {"@id": f"{RECORDS_ID}/document_id"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{RECORDS_ID}/{name}",
                "name": name,
                "description": FIELD_DESCRIPTIONS.get(name, "A further column."),
                "dataType": "sc:Text",
                "source": {"fileSet": {"@id": DOCUMENTS_ID}, "extract": {"column": name}},
            }
            for name in columns
        ],
    }
