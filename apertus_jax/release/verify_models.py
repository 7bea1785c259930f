"""Verification of model folders, Hugging Face repositories and output filters."""

from __future__ import annotations

from typing import Any

from etils import epath

from apertus_jax.checkpoints.huggingface_config import GENERATION_CONFIG_FILE
from apertus_jax.checkpoints.huggingface_repository import load_huggingface
from apertus_jax.errors import UserError
from apertus_jax.model.model_folder import load_model, tokenizer_folder
from apertus_jax.model.parameters import count_parameters
from apertus_jax.release.output_filter.filter_file import FILTER_FILE, MAGIC, read_filter
from apertus_jax.storage.json_reader import parse_json, read_json_object
from apertus_jax.storage.tokenizer_files import TOKENIZER_FILE, check_tokenizer
from apertus_jax.storage.verification import Notes


def verify_model(folder: epath.Path, manifest: dict[str, Any], notes: Notes) -> None:
    """Checks configuration, every weight and the tokenizer of a model folder.

    Raises:
      UserError: the first thing that is not as readers assume.
    """
    config, params = load_model(folder, verify=False)
    count = count_parameters(params)
    stated = manifest["summary"].get("num_parameters", count)
    if stated != count:
        raise UserError(f"{folder} says it has {stated!r:.40} parameters and has {count}; rebuild it")
    notes.add(folder, "weights", f"{count:,} parameters, all finite")
    tokenizer = tokenizer_folder(folder)
    check_tokenizer(tokenizer, config.vocab_size)
    notes.add(folder, "tokenizer", "none" if tokenizer is None else f"fits {config.vocab_size:,} ids")


def verify_huggingface(folder: epath.Path, manifest: dict[str, Any] | None, notes: Notes) -> None:
    """Checks configuration, every weight and the tokenizer of a Hugging Face repository, ours or another's.

    Raises:
      UserError: the first thing that is not as readers assume.
    """
    config, params = load_huggingface(folder)
    notes.add(folder, "weights", f"{count_parameters(params):,} parameters, all finite")
    if (folder / GENERATION_CONFIG_FILE).exists():
        read_json_object(folder / GENERATION_CONFIG_FILE)
    has_tokenizer = (folder / TOKENIZER_FILE).exists()
    check_tokenizer(folder if has_tokenizer else None, config.vocab_size)
    notes.add(folder, "tokenizer", f"fits {config.vocab_size:,} ids" if has_tokenizer else "none")


def verify_filter(folder: epath.Path, manifest: dict[str, Any], notes: Notes) -> None:
    """Checks that an output filter is signed by the key that it names, and that its lists are in order.

    Whose key that is, only its publisher can say: the key is noted.

    Raises:
      UserError: it is not signed, or not whole.
    """
    path = folder / FILTER_FILE
    content = path.read_bytes()
    line = content[len(MAGIC) :].partition(b"\n")[0]
    header = parse_json(line, str(path)) if content.startswith(MAGIC) else {}
    key: Any = header.get("public_key") if isinstance(header, dict) else None
    try:
        public_key = bytes.fromhex(key)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} names no public key; fetch it again from its publisher") from error
    if isinstance(header.get("string_key"), str) and header["string_key"]:
        notes.add(folder, "strings", f"need the key {header['string_key'][:16]}; only n-grams were opened")
        _check_signature(path, content, public_key)
    else:
        read_filter(content, str(path), public_key)
    notes.add(folder, "signature", f"by {public_key.hex()}")


def _check_signature(path: epath.Path, content: bytes, public_key: bytes) -> None:
    from apertus_jax.release.output_filter.signing import SIGNATURE_BYTES, is_signed_by

    if not is_signed_by(public_key, content[-SIGNATURE_BYTES:], content[:-SIGNATURE_BYTES]):
        raise UserError(f"{path} has changed since it was signed; fetch it again")
