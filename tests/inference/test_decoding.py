"""Decoding with a cache is the model run over and over, whatever the batch, the lengths and the mesh."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import torch
import transformers

from apertus_jax.errors import UserError
from apertus_jax.inference import Sampling, decoding, decoding_parameters, generate_tokens, init_cache, program
from apertus_jax.inference.unrolled import init_unrolled_cache
from apertus_jax.model import Transformer
from apertus_jax.release import save_huggingface
from apertus_jax.sharding import MeshConfig, make_mesh, parameter_shardings, resolve_rules, use_mesh

RAGGED = [3, 1, 12, 9, 16, 2, 7]


@pytest.fixture(scope="module")
def prompts(config):
    random = np.random.default_rng(0)
    return [random.integers(0, config.vocab_size, length).tolist() for length in RAGGED]


@functools.partial(jax.jit, static_argnums=0)
def full_forward(config, params, tokens):
    return Transformer(config).apply({"params": params}, tokens)


def without_cache(config, params, prompt, num_tokens, length=128):
    """The oracle: the whole sequence through the model for every single token. Causal, so padding changes nothing."""
    tokens = list(prompt)
    for _ in range(num_tokens):
        padded = np.zeros((1, length), np.int32)
        padded[0, : len(tokens)] = tokens
        tokens.append(int(np.asarray(full_forward(config, params, padded))[0, len(tokens) - 1].argmax()))
    return tokens[len(prompt) :]


def test_greedy_decoding_is_the_model_run_over_and_over(config, params, prompts):
    ours = generate_tokens(config, params, prompts, max_new_tokens=16)
    assert ours == [without_cache(config, params, prompt, 16) for prompt in prompts]


def test_greedy_64_tokens_equal_transformers(tmp_path, config, params, prompts):
    save_huggingface(tmp_path / "repository", config, params)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "repository").eval()
    ours = generate_tokens(config, params, prompts, max_new_tokens=64)
    width = max(map(len, prompts))
    # Decoder-only models are padded on the left there.
    tokens = torch.tensor([[3] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    theirs = model.generate(
        tokens, attention_mask=mask, do_sample=False, max_new_tokens=64, min_new_tokens=64, eos_token_id=None
    )
    assert ours == theirs[:, width:].tolist()


def test_results_do_not_depend_on_the_batch(config, params, prompts):
    options = {"max_new_tokens": 12, "temperature": 1.3, "top_k": 200, "top_p": 0.95, "seed": 5}
    together = generate_tokens(config, params, prompts, **options)
    assert generate_tokens(config, params, prompts, batch_size=2, **options) == together
    for row, prompt in enumerate(prompts):
        assert generate_tokens(config, params, [prompt], row_seeds=[row], **options) == [together[row]]
    order = [4, 2, 6, 0, 5]
    chosen = generate_tokens(config, params, [prompts[row] for row in order], row_seeds=order, **options)
    assert chosen == [together[row] for row in order]


def test_ragged_batches_equal_one_by_one(config, params):
    random = np.random.default_rng(11)
    prompts = [random.integers(0, config.vocab_size, length).tolist() for length in (26, 1, 16, 31, 5, 32, 2, 9, 11)]
    limits = [12, 16, 3, 16, 16, 7, 16, 1, 16]
    one_by_one = [
        generate_tokens(config, params, [prompt], max_new_tokens=limit)[0]
        for prompt, limit in zip(prompts, limits, strict=True)
    ]
    for batch_size in (1, 3, 8):
        assert generate_tokens(config, params, prompts, max_new_tokens=limits, batch_size=batch_size) == one_by_one


@pytest.mark.parametrize(("unroll", "batch_size"), [(True, 1), (True, 3), (True, 8), (False, 8)])
def test_logits_of_ragged_batches_equal_whole_sequences(config, params, unroll, batch_size):
    random = np.random.default_rng(batch_size)
    lengths = random.integers(1, 30, batch_size).astype(np.int32)
    tokens = random.integers(0, config.vocab_size, (batch_size, 32)).astype(np.int32)
    ready = decoding_parameters(config, params, unroll=unroll)
    cache = (init_unrolled_cache if unroll else init_cache)(config, batch_size, 48)
    request = decoding._pad_request(
        config,
        [row[:length].tolist() for row, length in zip(tokens, lengths, strict=True)],
        *([4] * batch_size, range(batch_size), range(batch_size), [], 0, 0, Sampling(temperature=0.0)),
    )
    request = request._replace(tokens=request.tokens[:batch_size], lengths=request.lengths[:batch_size])

    @jax.jit
    def last_logits(ready, request, cache):
        cache = program.prefill(ready, request, cache, config)
        slots = request.lengths - 1
        newest = np.arange(batch_size), slots
        return program.decode(config, ready, request.tokens[newest][:, None], slots[:, None], cache, slots)[0][:, 0]

    whole = np.asarray(full_forward(config, params, tokens))[np.arange(batch_size), lengths - 1]
    np.testing.assert_allclose(last_logits(ready, jax.device_put(request), cache), whole, rtol=2e-5, atol=2e-5)


def test_seeds_decide_the_draws(config, params):
    options = {"max_new_tokens": 16, "temperature": 1.0}
    same_prompt = [[1, 2, 3]] * 5
    first = generate_tokens(config, params, same_prompt, seed=1, **options)
    assert first == generate_tokens(config, params, same_prompt, seed=1, **options)
    assert len({tuple(row) for row in first}) == 5
    assert first != generate_tokens(config, params, same_prompt, seed=2, **options)
    assert len({tuple(row) for row in generate_tokens(config, params, same_prompt, row_seeds=[3] * 5, **options)}) == 1


def test_prompts_longer_than_a_chunk_are_read_in_chunks(config, params, monkeypatch):
    random = np.random.default_rng(1)
    prompts = [random.integers(0, config.vocab_size, length).tolist() for length in (100, 16, 17, 65, 1)]
    monkeypatch.setattr(program, "PREFILL_CHUNK", 16)
    # A configuration of its own, so that this program is in no other test's cache.
    chunked = generate_tokens(
        dataclasses.replace(config, max_position_embeddings=255), params, prompts, max_new_tokens=8
    )
    assert chunked == [without_cache(config, params, prompt, 8) for prompt in prompts]


def test_continuations_have_exactly_the_wanted_length(config, params, prompts):
    limits = [5, 0, 16, 1, 11, 3, 2]
    results = generate_tokens(config, params, prompts, max_new_tokens=limits)
    assert [len(tokens) for tokens in results] == limits
    longest = generate_tokens(config, params, prompts, max_new_tokens=16)
    assert results == [tokens[:limit] for tokens, limit in zip(longest, limits, strict=True)]
    assert generate_tokens(config, params, []) == []


def test_stop_token_ends_its_own_row_only(config, params, prompts):
    free = generate_tokens(config, params, prompts, max_new_tokens=16)
    stops = [free[0][4], free[3][9]]
    stopped = generate_tokens(config, params, prompts, max_new_tokens=16, stop_tokens=stops)
    for tokens, expected in zip(stopped, free, strict=True):
        ends = [place for place, token in enumerate(expected) if token in stops]
        assert tokens == (expected[: ends[0] + 1] if ends else expected)
    assert len(stopped[0]) <= 5


def test_stop_tokens_wait_for_the_minimum(config, params):
    prompt = [[7, 8, 9]]
    first = generate_tokens(config, params, prompt, max_new_tokens=1)[0][0]
    assert generate_tokens(config, params, prompt, max_new_tokens=9, stop_tokens=[first]) == [[first]]
    waited = generate_tokens(config, params, prompt, max_new_tokens=9, stop_tokens=[first], min_new_tokens=4)[0]
    assert len(waited) > 4 and first not in waited[:4]


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "top_p": 0.9}])
def test_exact_length_is_not_ended_by_a_stop_token(config, params, prompts, options):
    free = generate_tokens(config, params, prompts, max_new_tokens=16, **options)
    stops = sorted({row[0] for row in free} | {row[7] for row in free})
    exact = generate_tokens(config, params, prompts, max_new_tokens=16, min_new_tokens=16, stop_tokens=stops, **options)
    assert [len(row) for row in exact] == [16] * len(prompts)
    assert not set(stops) & {token for row in exact for token in row}


def test_prompt_that_fills_the_context_is_continued_to_its_end(config, params):
    prompt = np.random.default_rng(2).integers(0, config.vocab_size, 250).tolist()
    ours = generate_tokens(config, params, [prompt], max_new_tokens=6)
    assert ours == [without_cache(config, params, prompt, 6, length=256)]


def test_many_lengths_share_few_compiled_programs(config, params):
    before = program.decode_batch._cache_size()
    random = np.random.default_rng(3)
    for length in range(1, 33):
        prompt = random.integers(0, config.vocab_size, length).tolist()
        generate_tokens(config, params, [prompt], max_new_tokens=1 + length % 16, stop_tokens=[1, 2][: length % 3])
    assert program.decode_batch._cache_size() - before <= 2


@pytest.mark.parametrize("with_rules", [False, True])
def test_parameters_on_a_mesh_decode_to_the_same_tokens(config, params, prompts, with_rules):
    mesh = make_mesh(MeshConfig(data=1, fsdp=2, tensor=4))
    rules = resolve_rules("auto", "cpu")
    boxed = jax.eval_shape(Transformer(config).init, jax.random.key(0), np.zeros((1, 4), np.int32))["params"]
    placed = jax.device_put(params, parameter_shardings(boxed, mesh, rules))
    assert not placed["layers"]["feedforward"]["up"]["kernel"].sharding.is_fully_replicated
    expected = generate_tokens(config, params, prompts, max_new_tokens=12)
    if with_rules:
        with use_mesh(mesh, rules):
            assert generate_tokens(config, placed, prompts, max_new_tokens=12) == expected
    else:
        assert generate_tokens(config, placed, prompts, max_new_tokens=12) == expected


def test_matrices_in_bfloat16_change_only_what_the_model_rounds(config, params):
    low = dataclasses.replace(config, compute_dtype="bfloat16")
    converted = decoding_parameters(low, params, unroll=False)
    assert converted["lm_head"]["kernel"].dtype == "bfloat16" and converted["final_norm"]["scale"].dtype == "float32"
    tokens = np.arange(32, dtype=np.int32).reshape(2, 16)
    np.testing.assert_array_equal(full_forward(low, params, tokens), full_forward(low, converted, tokens))
    results = generate_tokens(low, params, [[1, 2, 3]], max_new_tokens=8)
    assert results == generate_tokens(low, converted, [[1, 2, 3]], max_new_tokens=8) and len(results[0]) == 8


def test_layers_apart_decode_to_the_same_tokens_as_the_stack(config, params, prompts):
    """What CPU does against what accelerators do."""
    stacked = decoding_parameters(config, params, unroll=False)
    apart = decoding_parameters(config, params, unroll=True)
    assert isinstance(apart["layers"], tuple) and not isinstance(stacked["layers"], tuple)
    request = decoding._pad_request(
        config, prompts, [16] * 7, list(range(7)), list(range(7)), [], 0, 0, Sampling(temperature=0.0)
    )
    compiled = program.Program(config, 16, None, True, False, False, ())
    left, right = (program.decode_batch(each, request, np.int32(16), compiled) for each in (stacked, apart))
    for name in ("outputs", "counts", "done", "finite"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (
            lambda layers: layers["feedforward"].update(gate={"kernel": np.zeros((2, 48, 112))}),
            "feedforward/gate/kernel",
        ),
        (lambda layers: layers["attention"].pop("query_norm"), "attention/query_norm/scale"),
        (lambda layers: layers["attention_norm"].update(scale=np.zeros((2, 4, 12))), "attention_norm/scale"),
    ],
    ids=["added", "missing", "other axes"],
)
def test_unrolled_layers_serve_only_trees_that_they_read_whole(config, params, change, name, caplog):
    other = jax.tree.map(np.asarray, params)
    change(other["layers"])
    decoding._log_once.cache_clear()
    with caplog.at_level("INFO", logger="apertus_jax.inference"):
        assert not isinstance(decoding_parameters(config, other)["layers"], tuple)
        assert isinstance(decoding_parameters(config, params)["layers"], tuple)
    assert [record.getMessage() for record in caplog.records] == [
        f"decoding on cpu with the model's own module (the unrolled layers do not know layers/{name})",
        "decoding on cpu with unrolled layers",
    ]
    with pytest.raises(UserError, match=f"does not know layers/{name}"):
        decoding_parameters(config, other, unroll=True)


def test_cache_has_the_shape_and_type_asked_for(config):
    cache = init_cache(config, 3, 20)
    assert {name: (leaf.shape, str(leaf.dtype)) for name, leaf in cache.items()} == {
        "key": ((2, 3, 20, 4, 16), "float32"),
        "value": ((2, 3, 20, 4, 16), "float32"),
    }
    assert init_cache(config, 1, 4, "bfloat16")["key"].dtype == "bfloat16"


def test_cache_in_bfloat16_is_close_to_the_full_one(config, params, prompts):
    full = generate_tokens(config, params, prompts, max_new_tokens=1)
    low = generate_tokens(config, params, prompts, max_new_tokens=1, cache_dtype="bfloat16")
    assert sum(left == right for left, right in zip(full, low, strict=True)) >= len(prompts) - 1


@pytest.mark.parametrize(
    ("prompts", "options", "words"),
    [
        ([[1], []], {}, "prompt 1 is empty"),
        ([[1, 320]], {}, "token id 320, outside the vocabulary of 320"),
        ([[-1]], {}, "token id -1"),
        ([[1], [1] * 257], {"max_new_tokens": 0}, "prompt 1 has 257 tokens"),
        ([[1] * 200], {"max_new_tokens": 57}, "57 new ones are wanted, but the context is 256"),
        ([[1]], {"stop_tokens": [400]}, "stop token 400"),
        ([[1]], {"max_new_tokens": -1}, "max_new_tokens = -1"),
        ([[1]], {"max_new_tokens": [1, 2]}, "max_new_tokens has 2 numbers for 1 prompts"),
        ([[1]], {"row_seeds": [-4]}, r"row_seeds\[0\]=-4"),
        ([[1]], {"temperature": -0.5}, "temperature = -0.5"),
        ([[1]], {"temperature": float("nan")}, "temperature = nan"),
        ([[1]], {"top_k": 0, "temperature": 1.0}, "top_k = 0"),
        ([[1]], {"top_p": 0.0, "temperature": 1.0}, "top_p = 0.0"),
        ([[1]], {"batch_size": 0}, "batch_size = 0"),
        ([[1]], {"min_new_tokens": -1}, "min_new_tokens = -1"),
        ([[1]], {"min_new_tokens": 9, "max_new_tokens": 8}, "min_new_tokens=9"),
    ],
)
def test_bad_requests_are_refused_in_one_line(config, params, prompts, options, words):
    with pytest.raises(UserError, match=words) as caught:
        generate_tokens(config, params, prompts, **options)
    assert "\n" not in str(caught.value)


def test_logits_not_finite_are_an_error_that_names_the_prompt(config, params):
    poisoned = jax.tree.map(np.array, params)
    poisoned["embedder"]["embedding"][300] = np.nan
    assert len(generate_tokens(config, poisoned, [[1, 2]], max_new_tokens=1)[0]) == 1
    with pytest.raises(UserError, match="prompt 1 gave logits that are not finite after 0 new tokens"):
        generate_tokens(config, poisoned, [[1, 2], [1, 300]], max_new_tokens=4)


def test_every_step_draws_anew(config, params):
    """With all tokens equally likely, one random number per step must not come back."""
    indifferent = {**params, "lm_head": {"kernel": np.zeros_like(params["lm_head"]["kernel"])}}
    drawn = generate_tokens(config, indifferent, [[1]] * 8, max_new_tokens=16, temperature=1.0)
    assert all(len(set(row)) > 12 for row in drawn)
    assert len({token for row in drawn for token in row}) > 85  # 128 draws of 320 tokens hold 105 different ones
