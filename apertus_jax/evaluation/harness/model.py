"""lm-evaluation-harness adapter: log-likelihoods and generation from our models.

This module imports lm_eval; `evaluate_tasks` imports it when it is needed. No torch is involved.

Source: docs/reference/evaluation_and_release.md §2.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath
from jax.sharding import Mesh
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM

from apertus_jax import __version__
from apertus_jax.checkpoints import open_model
from apertus_jax.errors import UserError
from apertus_jax.evaluation.execution import Execution
from apertus_jax.evaluation.harness.generation_settings import GenerationSettings, cut_before, read_settings
from apertus_jax.evaluation.harness.options import HarnessOptions
from apertus_jax.evaluation.harness.tokenizer import END_OF_TURN, HarnessTokenizer
from apertus_jax.evaluation.scoring import LikelihoodScorer, ScoringRequest
from apertus_jax.inference import decoding_parameters, generate_tokens
from apertus_jax.model.config import ModelConfig
from apertus_jax.model.parameters import abstract_parameters, count_parameters

ADAPTER_VERSION = 2
GENERATED_TOGETHER = 8
TokenPair = tuple[tuple[str, str] | None, list[int], list[int]]
_log = logging.getLogger(__name__)


class HarnessModel(TemplateLM):
    """An lm_eval model over `LikelihoodScorer` and `generate_tokens`.

    Requests are encoded, truncated and cut as the harness's own transformers backend does it, so both ask the same of
    the same weights.

    Attributes:
      tokenizer: the model's.
      truncated: how many requests so far lost the beginning of their context.
    """

    def __init__(
        self,
        config: ModelConfig,
        params: Mapping[str, Any],
        tokenizer: HarnessTokenizer,
        options: HarnessOptions = HarnessOptions(),  # noqa: B008 (frozen)
        execution: Execution = Execution(),  # noqa: B008 (frozen)
        mesh: Mesh | None = None,
        identity: Mapping[str, Any] | None = None,
    ):
        """Wraps a model.

        Args:
          config: the architecture.
          params: the plain parameter tree.
          tokenizer: with <s> or </s>, which stands for an empty context.
          options: longest input, what stands before a text, and the seed of sampled generation.
          execution: how many contexts are continued together (None means 8), and how many tokens scored.
          mesh: devices for scoring; None means one device.
          identity: digests and the like, for `get_model_info`.

        Raises:
          UserError: a tokenizer without boundary tokens or larger than the model's vocabulary, or a bad length.
        """
        super().__init__()
        longest = config.max_position_embeddings
        if options.max_length is not None and options.max_length > longest:
            raise UserError(
                f"HarnessOptions.max_length = {options.max_length} must be between 1 and the model's context of "
                f"{longest} tokens"
            )
        if len(tokenizer) > config.vocab_size:
            raise UserError(
                f"the tokenizer in {tokenizer.folder} has {len(tokenizer)} tokens but the model's vocab_size is "
                f"{config.vocab_size}; use the model's own tokenizer"
            )
        if tokenizer.eos_token_id is None:
            raise UserError(f"the tokenizer in {tokenizer.folder} has no </s>, which ends a generated text")
        self.tokenizer = tokenizer
        self.truncated = 0
        self._config, self._params = config, params
        self._decoding_params: dict[str, Any] | None = None
        self._options = options
        self._max_length = longest if options.max_length is None else options.max_length
        self._scorer = LikelihoodScorer(config, params, mesh, self._max_length, execution.batch_tokens)
        self._batch_size = execution.batch_size or GENERATED_TOGETHER
        self._identity = dict(identity or {})
        self._mesh_shape = {} if mesh is None else dict(mesh.shape)
        self._chat = False

    @classmethod
    def open(
        cls,
        folder: epath.PathLike,
        options: HarnessOptions = HarnessOptions(),  # noqa: B008 (frozen)
        execution: Execution = Execution(),  # noqa: B008 (frozen)
        mesh: Mesh | None = None,
        step: int | None = None,
    ) -> HarnessModel:
        """Returns the model of a run folder, a step of it, or a model folder; the rest as in the constructor.

        Raises:
          UserError: no such model, or one without a fitting tokenizer.
        """
        opened = open_model(folder, step)
        root, params = opened.place, opened.load()
        tokenizer = HarnessTokenizer.of_model(opened)
        trained_with = opened.inputs.get("tokenizer")
        if trained_with not in (None, tokenizer.digest):
            raise UserError(
                f"{root} was trained with the tokenizer {trained_with}, but the one beside it is {tokenizer.digest}; "
                "put the model's own tokenizer back"
            )
        identity = {"model_sha": opened.identity["model"], **({} if step is None else {"step": step})}
        return cls(opened.config, params, tokenizer, options, execution, mesh, identity=identity)

    @property
    def eot_token_id(self) -> int:
        """The id of </s>."""
        end = self.tokenizer.eos_token_id
        assert end is not None  # by the constructor
        return end

    @property
    def prefix_token_id(self) -> int:
        """What stands for an empty context: <s>, or </s> in a vocabulary without it."""
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else begin

    @property
    def max_length(self) -> int:
        """Most tokens that the model reads at once."""
        return self._max_length

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer's digest: equal names encode alike."""
        return f"apertus_jax-{self.tokenizer.digest}"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Returns the ids of a text; by default with <s> in front, unless the text begins with it already."""
        if add_special_tokens is None:
            prefix = self.tokenizer.decode([self.prefix_token_id], skip_special_tokens=False)
            add_special_tokens = self._options.add_bos and not string.startswith(prefix)
        return self.tokenizer.encode(string, add_special_tokens)

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Returns (log p of the continuation, whether greedy decoding gives it) for each (context, continuation).

        Raises:
          UserError: an empty continuation, one longer than the context, or logits that are not finite.
        """
        pairs = [self._encode_request(request) for request in requests]
        return self._score(pairs, [_name(request) for request in requests], progress=not disable_tqdm)

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """Returns the log-likelihood of each whole text, every token predicted once with as much context as fits.

        What stands before the first token is decided by `rolling_prefix`.

        Raises:
          UserError: logits that are not finite.
        """
        texts = [request.args[0] for request in requests]
        tokens = [self._encode_text(text) for text in texts]
        scored = self._scorer.score_rolling_texts(tokens, self.prefix_token_id, progress=not disable_tqdm)
        for text, answer in zip(texts, scored, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), answer.log_likelihood)
        return [answer.log_likelihood for answer in scored]

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Returns the continuation of each context, cut before the first of its stop strings.

        A context longer than fits beside the budget loses its beginning. Sampled texts depend on the seed and on a
        request's place in the list, not on the batch.

        Raises:
          UserError: a setting this decoder lacks, no room for the budget, or logits that are not finite.
        """
        groups: dict[GenerationSettings, list[int]] = {}
        for number, request in enumerate(requests):
            settings = read_settings(request.args[1], _task(request))
            if settings.budget >= self.max_length:
                raise UserError(
                    f"task {_task(request)} wants {settings.budget} new tokens, but the model's context is "
                    f"{self.max_length}; lower max_gen_toks (HarnessOptions.max_gen_toks) or use a longer context"
                )
            groups.setdefault(settings, []).append(number)
        texts = [""] * len(requests)
        for settings, numbers in groups.items():
            contexts = [requests[number].args[0] for number in numbers]
            names = [_name(requests[number]) for number in numbers]
            for number, text in zip(numbers, self._continue(contexts, names, numbers, settings), strict=True):
                texts[number] = text
                self.cache_hook.add_partial("generate_until", requests[number].args, text)
        return texts

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Returns a conversation in the model's chat format.

        Raises:
          UserError: the model has no chat template.
        """
        return self.tokenizer.render_chat(chat_history, add_generation_prompt)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Returns the chat template's text, or None when none is to be applied.

        Raises:
          UserError: one is to be applied and the model has none.
        """
        self._chat = bool(chat_template)
        if not chat_template:
            return None
        if self.tokenizer.chat_template is None:
            raise UserError(f"{self.tokenizer.folder} has no chat template; evaluate without apply_chat_template")
        return self.tokenizer.chat_template

    def get_model_info(self) -> dict[str, Any]:
        """Returns what the results say of the model."""
        return {
            "model_num_parameters": count_parameters(abstract_parameters(self._config)),
            "model_dtype": self._config.compute_dtype,
            "model_revision": __version__,
            "adapter_version": ADAPTER_VERSION,
            "tokenizer_digest": self.tokenizer.digest,
            "max_length": self.max_length,
            "add_bos": self._options.add_bos,
            "rolling_prefix": self._options.rolling_prefix,
            "mesh": self._mesh_shape,
            **self._identity,
        }

    def _encode_text(self, text: str) -> list[int]:
        tokens = self.tok_encode(text)
        # Rolling windows begin with the prefix token, so it is none of the text's own, as in `_encode_request`.
        one = self._options.rolling_prefix == "one" and tokens[:1] == [self.prefix_token_id]
        return tokens[1:] if one else tokens

    def _encode_request(self, request: Instance) -> TokenPair:
        context, continuation = request.args
        if context == "":
            target = self.tok_encode(continuation, add_special_tokens=False)
            # A continuation that begins with the prefix token itself brings its own context.
            start = [] if target[:1] == [self.prefix_token_id] else [self.prefix_token_id]
            source, target = (start, target) if start else (target[:1], target[1:])
        else:
            source, target = self._encode_pair(context, continuation)
        if not target:
            raise UserError(
                f"{_name(request)} has the continuation {continuation!r}, of which no token is left after its context; "
                "it is empty, or begins inside a token and needs a delimiter"
            )
        if not source:
            raise UserError(f"{_name(request)} has a context {context!r} without any token; leave it empty")
        if len(target) > self.max_length:
            raise UserError(
                f"{_name(request)} has a continuation of {len(target)} tokens, but the model's context is "
                f"{self.max_length}; use a longer context"
            )
        return (context, continuation), source, target

    def _loglikelihood_tokens(
        self, requests: Sequence[TokenPair], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        names = [f"request {number}" for number in range(len(requests))]
        return self._score(requests, names, progress=not disable_tqdm)

    def _score(self, pairs: Sequence[TokenPair], names: Sequence[str], progress: bool) -> list[tuple[float, bool]]:
        lengths = [len(context) + len(continuation) for _, context, continuation in pairs]
        self._warn_of_truncation(names, lengths, self.max_length + 1)
        scored = self._scorer.score(
            [ScoringRequest(context, continuation) for _, context, continuation in pairs], progress=progress
        )
        answers = [(answer.log_likelihood, answer.is_greedy) for answer in scored]
        for (texts, _, _), answer in zip(pairs, answers, strict=True):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, answer)
        return answers

    def _continue(
        self, contexts: Sequence[str], names: Sequence[str], numbers: Sequence[int], settings: GenerationSettings
    ) -> list[str]:
        prompts = [self.tok_encode(context) for context in contexts]
        longest_prompt = self.max_length - settings.budget
        self._warn_of_truncation(names, [len(prompt) for prompt in prompts], longest_prompt)
        for name, prompt in zip(names, prompts, strict=True):
            if not prompt:
                raise UserError(f"{name} has an empty prompt; evaluate with add_bos, which begins it with <s>")
        if self._decoding_params is None:
            self._decoding_params = decoding_parameters(self._config, self._params)
        ends = [self.eot_token_id]
        end_of_turn = self.tokenizer.token_to_id(END_OF_TURN)
        if self._chat and end_of_turn is not None:
            ends.append(end_of_turn)

        def holds_a_stop(_: int, ids: Sequence[int]) -> bool:
            text = self.tokenizer.decode(ids)
            return len(ids) >= settings.min_new_tokens and any(stop in text for stop in settings.until)

        continuations = generate_tokens(
            self._config,
            self._decoding_params,
            [prompt[-longest_prompt:] for prompt in prompts],
            max_new_tokens=settings.budget,
            min_new_tokens=settings.min_new_tokens,
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            # Only ends of text may wait for min_new_tokens; the strings of `until` are then cut out afterwards.
            stop_tokens=[*ends, *([] if settings.min_new_tokens else self._stopping_tokens(settings.until))],
            seed=self._options.seed,
            row_seeds=numbers,
            batch_size=self._batch_size,
            is_finished=holds_a_stop if settings.until else None,
        )
        until = (*settings.until, self.tokenizer.decode([self.eot_token_id], skip_special_tokens=False))
        return [cut_before(self.tokenizer.decode(ids), until) for ids in continuations]

    def _stopping_tokens(self, until: Sequence[str]) -> list[int]:
        """Returns ids whose own text holds a whole stop string: after one of them nothing of the text is kept."""
        return [token for token, text in enumerate(self.tokenizer.token_texts) if any(stop in text for stop in until)]

    def _warn_of_truncation(self, names: Sequence[str], lengths: Sequence[int], longest_prompt: int) -> None:
        longer = [place for place, length in enumerate(lengths) if length > longest_prompt]
        if longer:
            self.truncated += len(longer)
            _log.warning(
                "%d of %d requests are longer than the %d tokens that fit and lost their beginning, first %s with %d",
                len(longer),
                len(lengths),
                longest_prompt,
                names[longer[0]],
                lengths[longer[0]],
            )


def _task(request: Instance) -> str:
    return str(getattr(request, "task_name", None))


def _name(request: Instance) -> str:
    return f"task {_task(request)} document {getattr(request, 'doc_id', None)}"
