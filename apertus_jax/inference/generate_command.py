"""The `generate` command: text in, text out."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import rich.box
import rich.console
import rich.table
import rich.text
import tokenizers
from etils import epath

from apertus_jax.checkpoints import OpenedModel, open_model
from apertus_jax.errors import UserError
from apertus_jax.inference.sampling import Sampling
from apertus_jax.inference.stop_strings import GeneratedText, generate_texts
from apertus_jax.inference.text_filter import TextFilter, is_stopped
from apertus_jax.storage import artifacts
from apertus_jax.storage.json_reader import parse_json, parse_json_lines
from apertus_jax.storage.listing import regular_file
from apertus_jax.storage.tokenizer_files import TOKENIZER_FILE, check_tokenizer, library_tokenizer, read_tokenizer_file
from apertus_jax.terminal.screen import Screen
from apertus_jax.terminal.terminal_text import printable_text
from apertus_jax.validation import require_list, require_seed, require_whole_number

KIND = "generations"
GENERATIONS_FILE = "generations.jsonl"
BEGIN_OF_DOCUMENT = "<s>"
# A base model ends a document, a chat model its turn.
STOP_TOKENS = ("</s>", "<|assistant_end|>")


def generate(
    model: epath.PathLike,
    prompts: Sequence[str] = (),
    output: epath.PathLike | None = None,
    *,
    prompts_file: epath.PathLike | None = None,
    max_new_tokens: int = 64,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float = 0.9,
    seed: int = 0,
    batch_size: int = 8,
    stop_strings: Sequence[str] = (),
    output_filter: TextFilter | None = None,
    step: int | None = None,
) -> list[dict[str, Any]]:
    """Continues texts with a trained model and prints them.

    Each prompt is read as the beginning of a document: <s> is put in front, and </s> ends it. An empty text is a prompt
    like any other. The same model, prompts and seed give the same texts.

    Args:
      model: a model folder, or a run folder.
      prompts: texts to continue.
      output: a folder for `generations.jsonl`; None only prints.
      prompts_file: more prompts, one a line; a `.jsonl` file has them under "text".
      max_new_tokens: longest continuation.
      temperature: 0 is greedy; see `Sampling` for the three.
      top_k: see `Sampling`.
      top_p: see `Sampling`.
      seed: of the draws.
      batch_size: prompts decoded together; results do not depend on it.
      stop_strings: a continuation ends before the first of them.
      output_filter: takes out of continuations what people asked to have removed, such as `OutputFilter`; see
        `inference.text_filter`. What is listed may begin in the prompt. None filters nothing.
      step: a committed step of the run, which may still be training; None for the model of a finished run.

    Returns:
      One {"prompt", "continuation", "tokens", "stopped"} per prompt, in order. With a filter also "output_filter", what
      it did; "tokens" is then None where it changed the text, which the tokens would still tell.

    Raises:
      UserError: no prompt, no model, a model without tokenizer, a filter that cannot be used, or whatever
        `generate_tokens` refuses.
    """
    require_list("generate.prompts", prompts, of=str)
    texts = [*prompts, *(read_prompts(prompts_file) if prompts_file is not None else ())]
    if not texts:
        raise UserError("there is nothing to continue; give --prompt TEXT, or generate.prompts_file")
    check_prompts(texts)
    require_whole_number("generate.max_new_tokens", max_new_tokens, at_least=1, at_most=2**31 - 1)
    require_whole_number("generate.batch_size", batch_size, at_least=1, at_most=2**20)
    require_seed("generate.seed", seed)
    require_list("generate.stop_strings", [stop_strings] if isinstance(stop_strings, str) else stop_strings, of=str)
    sampling = Sampling(temperature, top_k, top_p)  # refused before anything is read
    opened = open_model(model, step)
    inputs = {
        **opened.identity,
        "prompts": texts,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
        "stop_strings": list(stop_strings),
    }
    if output_filter is not None:
        inputs["output_filter"] = dict(output_filter.identity())
    if output is not None and artifacts.already_built(output, KIND, inputs):
        # Texts may hold separators that splitlines() would cut at, such as U+2028.
        lines = (epath.Path(output) / GENERATIONS_FILE).read_text().split("\n")
        results = [parse_json(line, GENERATIONS_FILE, allow_nan=True) for line in lines if line]
    else:
        results = _continue_texts(
            opened, texts, sampling, max_new_tokens, seed, batch_size, stop_strings, output_filter
        )
        if output is not None:
            _write_results(output, inputs, results)
    print_results(results)
    return results


def read_prompts(path: epath.PathLike) -> list[str]:
    """Returns the prompts of a file: one a line, or the "text" of a `.jsonl` line; blank lines do not count.

    Raises:
      UserError: the file is missing or no file, is not UTF-8, or a line has no text.
    """
    source = regular_file(path, "the file of prompts")
    content = source.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{source}, line {line} is not UTF-8 (perhaps Latin-1); save it as UTF-8") from error
    lines = text.replace("\r\n", "\n").split("\n")
    if source.suffix != ".jsonl":
        return [line for line in lines if line.strip()]
    prompts = []
    for number, value in parse_json_lines(lines, str(source)):
        if not isinstance(value, dict) or not isinstance(value.get("text"), str):
            raise UserError(f'{source} line {number} is not a JSON object with "text"; write {{"text": "…"}}')
        prompts.append(value["text"])
    return prompts


def check_prompts(prompts: Sequence[str]) -> None:
    """Raises UserError for a prompt that is no text: half of a surrogate pair, as of bytes that are not UTF-8."""
    for number, prompt in enumerate(prompts, start=1):
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            found = f"U+{ord(prompt[error.start]):04X}"
            raise UserError(f"prompt {number} holds {found}, which is no character; give it in UTF-8") from error


def load_tokenizer(model: OpenedModel) -> tokenizers.Tokenizer:
    """Returns the tokenizer of a model.

    Raises:
      UserError: the model has none, or one that does not fit it.
    """
    source = model.tokenizer
    if source is None:
        raise UserError(
            f"{model.place} has no tokenizer; use generate_tokens with token ids, or save it with a tokenizer"
        )
    check_tokenizer(source, model.config.vocab_size)
    return library_tokenizer(read_tokenizer_file(source / TOKENIZER_FILE), str(source / TOKENIZER_FILE))


def print_results(results: Sequence[Mapping[str, Any]], console: rich.console.Console | None = None) -> None:
    """Prints prompts and continuations: a table on a terminal, plain text elsewhere."""
    console = Screen(file=sys.stdout) if console is None else console
    if not console.is_terminal:
        for result in results:
            console.file.write(printable_text(f"{result['prompt']}⟶{result['continuation']}\n"))
        return
    table = rich.table.Table(box=rich.box.SIMPLE, show_lines=True)
    table.add_column("prompt", style="bold", ratio=1)
    table.add_column("continuation", ratio=2)
    for result in results:
        table.add_row(*(rich.text.Text(printable_text(result[name])) for name in ("prompt", "continuation")))
    console.print(table)


def _continue_texts(
    model: OpenedModel,
    texts: Sequence[str],
    sampling: Sampling,
    max_new_tokens: int,
    seed: int,
    batch_size: int,
    stop_strings: Sequence[str],
    output_filter: TextFilter | None,
) -> list[dict[str, Any]]:
    tokenizer = load_tokenizer(model)
    begin = tokenizer.token_to_id(BEGIN_OF_DOCUMENT)
    stops = [found for found in map(tokenizer.token_to_id, STOP_TOKENS) if found is not None]
    prompts = [
        [*([] if begin is None else [begin]), *tokenizer.encode(text, add_special_tokens=False).ids] for text in texts
    ]
    ends_text = None
    if output_filter is not None and output_filter.stops:

        def ends_text(row: int, text: str) -> bool:
            return is_stopped(output_filter, texts[row], text)

    continuations = generate_texts(
        model.config,
        model.load(),
        prompts,
        lambda tokens: tokenizer.decode(list(tokens), skip_special_tokens=True),
        stop_strings,
        ends_text,
        max_new_tokens=max_new_tokens,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        stop_tokens=stops,
        seed=seed,
        batch_size=batch_size,
    )
    return [
        _result(text, generated, stops, output_filter) for text, generated in zip(texts, continuations, strict=True)
    ]


def _result(
    prompt: str, generated: GeneratedText, stops: Sequence[int], output_filter: TextFilter | None
) -> dict[str, Any]:
    """Returns one result row, filtered."""
    result = {
        "prompt": prompt,
        "continuation": generated.text,
        "tokens": generated.tokens,
        "stopped": generated.stop_string is not None or (bool(generated.tokens) and generated.tokens[-1] in stops),
    }
    if output_filter is None:
        return result
    stream = output_filter.open(prompt)
    shown = stream.feed(generated.text) + stream.finish()
    if shown != generated.text:
        result |= {"continuation": shown, "tokens": None}
    return result | {"stopped": result["stopped"] or stream.stopped, "output_filter": dict(stream.report())}


def _write_results(output: epath.PathLike, inputs: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> None:
    with artifacts.build(output, KIND, inputs) as under_construction:
        lines = [json.dumps(result, ensure_ascii=False) + "\n" for result in results]
        (under_construction.path / GENERATIONS_FILE).write_text("".join(lines))
        under_construction.summary["num_prompts"] = len(results)
