"""Two small tokenizers: with the control tokens of version 1, and with those of version 1.5."""

import json

import pytest

from apertus_jax.data.tokenizer.bpe import Tokenizer, train_bpe
from tests.chat import generated

# As in the tokenizer of version 1.5 the think tags are the inner ones; two ids of ours stand for its outputs of tools.
RENAMED = {
    "<|inner_prefix|>": "<SPECIAL_69>",
    "<|inner_suffix|>": "<SPECIAL_70>",
    "<think>": "<|inner_prefix|>",
    "</think>": "<|inner_suffix|>",
    "<answer>": "<|tool_output_start|>",
    "</answer>": "<|tool_output_end|>",
}


@pytest.fixture(scope="session")
def chat_tokenizers() -> dict[str, Tokenizer]:
    """Template → a tokenizer that has its control tokens."""
    texts = [
        " ".join(generated.WORDS),
        "the cantons and the people, die Kantone und das Volk",
        "Deliberation: disabled",
    ]
    version_1 = train_bpe(texts * 3, 420)
    description = json.loads(version_1._serialized)
    for entry in description["added_tokens"]:
        entry["content"] = RENAMED.get(entry["content"], entry["content"])
    vocabulary = description["model"]["vocab"]
    description["model"]["vocab"] = {RENAMED.get(token, token): number for token, number in vocabulary.items()}
    return {"apertus": version_1, "apertus-1.5": Tokenizer(json.dumps(description))}
