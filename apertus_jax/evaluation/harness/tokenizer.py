"""Harness tokenizer of a model folder: boundary tokens, chat template, digest."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from apertus_jax.checkpoints import OpenedModel
from apertus_jax.errors import UserError
from apertus_jax.model.model_folder import TOKENIZER_FILE, check_tokenizer
from apertus_jax.storage.artifacts import digest_json
from apertus_jax.storage.json_reader import JSONError, read_json_object

BOUNDARY_TOKENS = {"bos": "<s>", "eos": "</s>", "pad": "<pad>"}
END_OF_TURN = "<|assistant_end|>"
CHAT_TEMPLATE_FILE = "chat_template.jinja"
COMPANION_FILES = ("special_tokens_map.json", "tokenizer_config.json")
CONTINUE_HERE = "⟪continue-here⟫"


class HarnessTokenizer:
    """Text to ids and back with the `tokenizers` library, as transformers does it from the same files.

    Attributes:
      folder: where tokenizer.json is.
      digest: of tokenizer.json, whatever its spelling.
      bos_token, eos_token, pad_token: spellings, or None where the vocabulary has none.
      chat_template: the Jinja text, or None.
    """

    def __init__(self, folder: epath.PathLike):
        """Reads a tokenizer folder.

        Raises:
          UserError: no tokenizer.json, or one that cannot be read.
        """
        import tokenizers

        self.folder = epath.Path(folder)
        path = self.folder / TOKENIZER_FILE
        if not path.exists():
            raise UserError(f"{path} does not exist; give a model that was saved with its tokenizer")
        try:
            self.digest = digest_json(read_json_object(path))
        except JSONError as error:
            raise UserError(f"{path} is damaged ({error}); save the model with its tokenizer again") from error
        serialized = path.read_text()
        try:
            self._library = tokenizers.Tokenizer.from_str(serialized)
        except Exception as error:  # the library raises plain exceptions, and panics of its own class
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{path} is no tokenizer ({reason}); save the model with its tokenizer again") from error
        self._library.no_padding()
        self._library.no_truncation()
        companions = [_read_json(self.folder / name) for name in COMPANION_FILES]
        spellings = {role: _spelling(companions, role) for role in BOUNDARY_TOKENS}
        known = {role: token for role, token in spellings.items() if self.token_to_id(token) is not None}
        self.bos_token, self.eos_token, self.pad_token = (known.get(role) for role in BOUNDARY_TOKENS)
        template = self.folder / CHAT_TEMPLATE_FILE
        self.chat_template = template.read_text() if template.exists() else companions[1].get("chat_template")

    @classmethod
    def of_model(cls, model: OpenedModel) -> HarnessTokenizer:
        """Returns the tokenizer of a model.

        Raises:
          UserError: the model has none, or one with ids outside its vocabulary.
        """
        folder = model.tokenizer
        if folder is None:
            raise UserError(
                f"{model.place} has no tokenizer, so it cannot read tasks; save the model with its tokenizer"
            )
        check_tokenizer(folder, model.config.vocab_size)
        return cls(folder)

    def __len__(self) -> int:
        return self._library.get_vocab_size(with_added_tokens=True)

    def token_to_id(self, token: str | None) -> int | None:
        """Returns the id of a token by its spelling, or None."""
        return None if token is None else self._library.token_to_id(token)

    @property
    def bos_token_id(self) -> int | None:
        """The id of <s>, or None."""
        return self.token_to_id(self.bos_token)

    @property
    def eos_token_id(self) -> int | None:
        """The id of </s>, or None."""
        return self.token_to_id(self.eos_token)

    @property
    def pad_token_id(self) -> int | None:
        """The id of <pad>, or None."""
        return self.token_to_id(self.pad_token)

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        """Returns the ids of a text, with the boundary tokens that the file prescribes when asked for."""
        return self._library.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Returns the text of ids."""
        return self._library.decode(list(ids), skip_special_tokens=skip_special_tokens)

    @functools.cached_property
    def token_texts(self) -> list[str]:
        """The text of each id on its own, special tokens empty; half characters are U+FFFD."""
        return self._library.decode_batch([[token] for token in range(len(self))], skip_special_tokens=True)

    def render_chat(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True) -> str:
        """Returns a conversation in the model's chat format; without generation prompt its last message stays open.

        The template runs in Jinja's sandbox: model folders come from anywhere.

        Raises:
          UserError: the tokenizer has no chat template, or the template refuses the conversation.
        """
        import jinja2

        if self.chat_template is None:
            raise UserError(f"{self.folder} has no chat template; evaluate without apply_chat_template")
        conversation = [dict(message) for message in messages]
        if not add_generation_prompt:
            conversation[-1]["content"] += CONTINUE_HERE
        try:
            text = _compile_chat_template(self.chat_template).render(
                messages=conversation,
                add_generation_prompt=add_generation_prompt,
                bos_token=self.bos_token or "",
                eos_token=self.eos_token or "",
                pad_token=self.pad_token or "",
            )
        except jinja2.TemplateError as error:
            raise UserError(f"the chat template of {self.folder} refuses a conversation: {error}") from error
        if add_generation_prompt:
            return text
        opened, found, _ = text.rpartition(CONTINUE_HERE)
        if not found:
            raise UserError(f"the chat template of {self.folder} drops the beginning of an answer (gen_prefix)")
        return opened


@functools.lru_cache(maxsize=4)
def _compile_chat_template(template: str) -> Any:
    import jinja2
    import jinja2.ext

    from apertus_jax.evaluation.harness.template_sandbox import LimitedSandbox

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = LimitedSandbox(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = refuse
    # A date in the prompt would make two evaluations differ.
    environment.globals["strftime_now"] = lambda pattern: ""
    return environment.from_string(template)


def _read_json(path: epath.Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return read_json_object(path)
    except JSONError as error:
        raise UserError(f"{path} is damaged ({error}); save the model with its tokenizer again") from error


def _spelling(companions: Sequence[Mapping[str, Any]], role: str) -> str:
    """Returns how a boundary token is spelled, from the companions that name it, else as in Apertus."""
    for content in companions:
        value = content.get(f"{role}_token")
        value = value.get("content") if isinstance(value, Mapping) else value
        if isinstance(value, str):
            return value
    return BOUNDARY_TOKENS[role]
