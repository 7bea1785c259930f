"""Tokenizer files of a Hugging Face repository, and the ids of their special tokens.

Source: docs/reference/model_and_training.md §13.
"""

from __future__ import annotations

import json
from typing import Any

from etils import epath

from apertus_jax.chat import chat_template, template_of_vocabulary
from apertus_jax.chat.format import TEMPLATES
from apertus_jax.errors import UserError
from apertus_jax.storage.tokenizer_files import CHAT_TEMPLATE_FILE, TOKENIZER_FILE, copy_tokenizer, read_vocabulary

TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"
END_OF_TURN = "<|assistant_end|>"
# (role, spelling, id in the released vocabulary)
SPECIAL_TOKENS = (("bos", "<s>", 1), ("eos", "</s>", 2), ("pad", "<pad>", 3))
RELEASED_END_OF_TURN_ID = 68
UNKNOWN_TOKEN = "<unk>"


def special_token_ids(tokenizer: epath.PathLike | None, vocab_size: int, chat: bool) -> dict[str, int]:
    """Returns bos_token_id, eos_token_id and pad_token_id.

    They are looked up in the tokenizer; without one they are the released ids, as far as the vocabulary reaches. A chat
    model ends at the end of the assistant's turn.

    Raises:
      UserError: a chat model without that token.
    """
    vocabulary = None if tokenizer is None else read_vocabulary(tokenizer)
    found = {}
    for role, spelling, released in SPECIAL_TOKENS:
        if chat and role == "eos":
            spelling, released = END_OF_TURN, RELEASED_END_OF_TURN_ID
        token_id = released if vocabulary is None else vocabulary.get(spelling)
        if token_id is not None and token_id < vocab_size:
            found[f"{role}_token_id"] = token_id
        elif chat and role == "eos":
            raise UserError(f"a chat model needs the token {END_OF_TURN} (id 68), which this vocabulary lacks")
    return found


def check_chat_tokens(tokenizer: epath.PathLike) -> None:
    """Raises UserError for a tokenizer with no chat template and not every token of the one that it would be given."""
    if (epath.Path(tokenizer) / CHAT_TEMPLATE_FILE).exists():
        return
    vocabulary = read_vocabulary(tokenizer)
    template = template_of_vocabulary(vocabulary)
    lacking = [token for token in TEMPLATES[template].ids if token not in vocabulary]
    if lacking:
        raise UserError(
            f"a chat model needs the token {lacking[0]}, which the vocabulary of {tokenizer} lacks; put a "
            f"{CHAT_TEMPLATE_FILE} beside it, or export without chat"
        )


def write_tokenizer(tokenizer: epath.PathLike, folder: epath.PathLike, max_length: int, chat: bool) -> None:
    """Copies a tokenizer folder into a repository and makes the two companions that it lacks.

    The chat template is published with chat models only: a base model has never seen its tokens in use. A tokenizer
    without one is given that of this package for its vocabulary, `apertus_jax.chat.chat_template`.
    """
    files = (TOKENIZER_FILE, TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE, *([CHAT_TEMPLATE_FILE] if chat else []))
    copy_tokenizer(tokenizer, folder, files)
    root = epath.Path(folder)
    if chat and not (root / CHAT_TEMPLATE_FILE).exists():
        template = template_of_vocabulary(read_vocabulary(tokenizer))
        (root / CHAT_TEMPLATE_FILE).write_text(chat_template(template))
    special = special_token_spellings(tokenizer, chat)
    if not (root / SPECIAL_TOKENS_FILE).exists():
        _write_json(root / SPECIAL_TOKENS_FILE, special)
    if not (root / TOKENIZER_CONFIG_FILE).exists():
        _write_json(
            root / TOKENIZER_CONFIG_FILE,
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "clean_up_tokenization_spaces": False,
                "model_max_length": max_length,
                **special,
            },
        )


def special_token_spellings(tokenizer: epath.PathLike, chat: bool) -> dict[str, str]:
    """Returns bos_token, eos_token, pad_token and unk_token, as far as the tokenizer has them."""
    vocabulary = read_vocabulary(tokenizer)
    wanted = {f"{role}_token": spelling for role, spelling, _ in SPECIAL_TOKENS} | {"unk_token": UNKNOWN_TOKEN}
    if chat:
        wanted["eos_token"] = END_OF_TURN
    return {role: spelling for role, spelling in wanted.items() if spelling in vocabulary}


def _write_json(path: epath.Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
