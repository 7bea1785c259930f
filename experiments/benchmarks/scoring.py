"""Log-likelihoods on the CPU, `LikelihoodScorer` against the HF backend of lm-evaluation-harness, on the same weights.

    python experiments/benchmarks/scoring.py                    (both shapes, about a quarter of an hour)
    python experiments/benchmarks/scoring.py --shape 60m --rounds 5 --json result.json

Both sides encode the same texts with the same tokenizer and score them in float32 on two threads: questions with four
letters to choose from, questions with four longer answers, and whole texts by rolling windows. The harness runs through
its public methods with batches of 16 (`--batch auto` lets it look for its own, once, while it warms up). Answers must
agree within 1e-4 + 1e-6 |ll|. See `alternation.py` for how it is measured.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from alternation import build_parser, show, take_turns, time_calls
from decode import SHAPES, write_model
from rich.console import Console
from train_step_measurements import THREADS

TARGET = 1.5
SIDES = ("ours", "lm_eval HFLM")
QUESTIONS, LETTER_QUESTIONS, TEXTS = 16, 32, 8
NUM_WORDS = 1000
BEGIN = "<s>"
Answers = dict[str, list[Any]]


def make_tokenizer():
    """Returns a tokenizer of whole words: both sides' share of the work is then the model."""
    import tokenizers

    words = ["<unk>", BEGIN, "</s>", *(f"w{number}" for number in range(NUM_WORDS))]
    vocabulary = {word: number for number, word in enumerate(words)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return made


def make_texts() -> tuple[list[tuple[str, str]], list[str]]:
    """Returns (context, continuation) pairs, four to a context, and whole texts."""
    random = np.random.default_rng(0)

    def words(count: int) -> str:
        return " ".join(f"w{number}" for number in random.integers(0, NUM_WORDS, count))

    pairs = []
    for question in range(QUESTIONS + LETTER_QUESTIONS):
        context = words(random.integers(60, 200))
        for choice in range(4):
            answer = f"w{choice}" if question >= QUESTIONS else words(random.integers(3, 20))
            pairs.append((context, f" {answer}"))
    return pairs, [words(random.integers(100, 700)) for _ in range(TEXTS)]


def count_tokens() -> int:
    """Returns how many tokens the model would read if every request were a row of its own."""
    pairs, texts = make_texts()
    return sum(len(f"{left}{right}".split()) - 1 for left, right in pairs) + sum(len(text.split()) for text in texts)


def ours(folder: Path, batch: str) -> Callable[[], Answers]:
    """Returns a call that scores with this package."""
    from apertus_jax.evaluation.scoring import LikelihoodScorer, ScoringRequest
    from apertus_jax.release import load_huggingface

    del batch
    tokenizer, (pairs, texts) = make_tokenizer(), make_texts()
    scorer = LikelihoodScorer(*load_huggingface(folder))
    begin = tokenizer.token_to_id(BEGIN)

    def score() -> Answers:
        requests = []
        for context, continuation in pairs:
            head = tokenizer.encode(context).ids
            requests.append(ScoringRequest(head, tokenizer.encode(context + continuation).ids[len(head) :]))
        scored = scorer.score(requests, progress=False)
        rolled = scorer.score_rolling_texts([tokenizer.encode(text).ids for text in texts], begin, progress=False)
        return {
            "pairs": [[each.log_likelihood, each.is_greedy] for each in scored],
            "texts": [each.log_likelihood for each in rolled],
        }

    return score


def backend_class(batch: str) -> type:
    """Returns the harness' own backend, which imports `accelerate` but calls it only to look for a batch size."""
    import importlib.util
    import sys
    import types

    if importlib.util.find_spec("accelerate") is None:
        if batch == "auto":
            raise SystemExit("--batch auto needs the package accelerate; install it, or give a number")
        stand_in, utils = types.ModuleType("accelerate"), types.ModuleType("accelerate.utils")
        stand_in.Accelerator = stand_in.InitProcessGroupKwargs = stand_in.find_executable_batch_size = None
        utils.get_max_memory = None
        sys.modules.update({"accelerate": stand_in, "accelerate.utils": utils})
    from lm_eval.models.huggingface import HFLM

    return HFLM


def harness(folder: Path, batch: str) -> Callable[[], Answers]:
    """Returns a call that scores with the harness' own backend on torch."""
    import contextlib
    import sys

    import torch
    from lm_eval.api.instance import Instance
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    torch.set_num_threads(THREADS)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=make_tokenizer(), bos_token=BEGIN, eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    backend = backend_class(batch)(
        pretrained=model,
        tokenizer=tokenizer,
        device="cpu",
        batch_size=batch if batch == "auto" else int(batch),
        add_bos_token=False,
    )
    pairs, texts = make_texts()

    def score() -> Answers:
        asked = [
            Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=number)
            for number, pair in enumerate(pairs)
        ]
        rolling = [
            Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=number)
            for number, text in enumerate(texts)
        ]
        with contextlib.redirect_stdout(sys.stderr):
            scored = backend.loglikelihood(asked, disable_tqdm=True)
            rolled = backend.loglikelihood_rolling(rolling, disable_tqdm=True)
        return {"pairs": [[float(ll), bool(greedy)] for ll, greedy in scored], "texts": [float(ll) for ll in rolled]}

    return score


def check_equal(shape: str, left: Answers, right: Answers) -> float:
    """Returns the largest difference of log-likelihoods; ends the program if one is too large or a greedy differs."""
    if [greedy for _, greedy in left["pairs"]] != [greedy for _, greedy in right["pairs"]]:
        raise SystemExit(f"{shape}: the sides disagree about which answers are greedy")
    mine, theirs = (
        np.array([*(ll for ll, _ in answers["pairs"]), *answers["texts"]], np.float64) for answers in (left, right)
    )
    differences = np.abs(mine - theirs)
    worst = int((differences - 1e-6 * np.abs(theirs)).argmax())
    if differences[worst] > 1e-4 + 1e-6 * abs(theirs[worst]):
        raise SystemExit(f"{shape}: request {worst} has log-likelihood {mine[worst]} here and {theirs[worst]} there")
    return float(differences.max())


def run_child(task: dict[str, Any]) -> dict[str, Any]:
    """The child process: measures one side."""
    side = {"ours": ours, "lm_eval HFLM": harness}[task["side"]]
    return time_calls(side(Path(task["folder"]), task["batch"]), task["calls"], task["patience"])


def main() -> None:
    """Compares the sides at each shape, or is the process of one measurement."""
    parser = build_parser(__doc__, SHAPES, calls=2)
    parser.add_argument("--batch", default="16", help="batch size of the harness' backend: a number or auto")
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(run_child(json.loads(arguments.child))))
        return
    console, outcomes = Console(), {}
    for shape in arguments.shape or SHAPES:
        with tempfile.TemporaryDirectory() as scratch:
            folder = str(Path(scratch) / "model")
            write_model(Path(folder), shape)
            task = {"shape": shape, "folder": folder, "batch": arguments.batch}
            task |= {"calls": arguments.calls, "patience": arguments.patience}
            records = take_turns(__file__, SIDES, task, arguments.rounds, console)
        difference = check_equal(shape, records["ours"]["answer"], records["lm_eval HFLM"]["answer"])
        title = f"{shape}: {4 * (QUESTIONS + LETTER_QUESTIONS)} choices and {TEXTS} texts, float32, {THREADS} threads"
        show(title, count_tokens(), "tokens", records, console)
        ratio = records["lm_eval HFLM"]["median_seconds"] / records["ours"]["median_seconds"]
        console.print(
            f"speed against the harness' HF backend {ratio:.2f} (target: {TARGET}, more is better); "
            f"log-likelihoods differ by at most {difference:.1e}"
        )
        outcomes[shape] = {"speed": ratio, "largest_difference": difference, "sides": records}
        if arguments.json:
            arguments.json.write_text(json.dumps(outcomes, indent=1))


if __name__ == "__main__":
    main()
