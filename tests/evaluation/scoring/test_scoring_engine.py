"""The scoring engine against plain references: one request at a time, transformers, and the definitions."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apertus_jax import sharding
from apertus_jax.errors import UserError
from apertus_jax.evaluation.scoring import LikelihoodScorer, ScoringRequest, rolling_windows
from apertus_jax.evaluation.scoring.batches import ALTERNATIVES, bucket_length, make_batches, make_rows
from apertus_jax.evaluation.scoring.program import ScoringProgram, score_batch
from apertus_jax.model import ModelConfig, Transformer, init_parameters

MODEL = ModelConfig(512, 32, 48, 2, 4, 2, max_position_embeddings=96)
# Two buckets only, because each compiles.
SMALL = {"batch_tokens": 512, "smallest_bucket": 48}


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(lambda leaf: leaf * 3, init_parameters(MODEL, jax.random.key(0)))


def random_requests(count, seed, longest=60):
    """Requests of all lengths, with copies and with letters that share a context."""
    generator = np.random.default_rng(seed)
    requests = []
    for _ in range(count):
        lengths = generator.integers(1, longest, 2)
        requests.append(ScoringRequest(*(generator.integers(0, 512, length).tolist() for length in lengths)))
    letters = [ScoringRequest(requests[0].context, [letter]) for letter in generator.permutation(512)[:12].tolist()]
    return [*requests, *letters, requests[1], ScoringRequest(requests[2].context + requests[2].continuation[:1], [7])]


@pytest.fixture(scope="module")
def requests():
    return random_requests(24, seed=0)


@pytest.fixture(scope="module")
def scorer(params):
    return LikelihoodScorer(MODEL, params, **SMALL)


@pytest.fixture(scope="module")
def answers(scorer, requests):
    return scorer.score(requests, statistics=True)


@pytest.fixture(scope="module")
def plain_logits(params):
    """A function from tokens to float64[T, V]: one text alone, no tiles; padded to one shape on the right."""
    forward = jax.jit(lambda tokens: Transformer(MODEL).apply({"params": params}, tokens))

    def logits(tokens):
        padded = np.zeros((1, 128), np.int32)
        padded[0, : len(tokens)] = tokens
        return np.asarray(forward(padded))[0, : len(tokens)].astype(np.float64)

    return logits


def log_softmax(logits):
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def by_definition(plain_logits, request, longest=MODEL.max_position_embeddings):
    """Log p over the vocabulary at each scored position, and the labels."""
    whole = [*request.context, *request.continuation][-(longest + 1) :]
    return log_softmax(plain_logits(whole[:-1]))[-len(request.continuation) :], np.array(request.continuation)


def test_answers_equal_each_request_on_its_own(plain_logits, requests, answers):
    for request, answer in zip(requests, answers, strict=True):
        reference, labels = by_definition(plain_logits, request)
        expected = reference[np.arange(len(labels)), labels]
        np.testing.assert_allclose(answer.log_probabilities, expected, atol=1e-5)
        assert answer.log_likelihood == answer.log_probabilities.sum(dtype=np.float64)
        assert abs(answer.log_likelihood - expected.sum()) <= 1e-4 + 1e-6 * abs(expected.sum())
        assert answer.is_greedy == bool((reference.argmax(axis=-1) == labels).all())


def test_statistics_are_mean_and_deviation_of_log_p_under_p(plain_logits, requests, answers):
    for request, answer in zip(requests, answers, strict=True):
        reference, _ = by_definition(plain_logits, request)
        means = (np.exp(reference) * reference).sum(axis=-1)
        deviations = np.sqrt((np.exp(reference) * (reference - means[:, None]) ** 2).sum(axis=-1))
        np.testing.assert_allclose(answer.means, means, rtol=1e-5)
        np.testing.assert_allclose(answer.deviations, deviations, rtol=1e-4)


def test_statistics_change_no_other_bit_and_come_when_asked(scorer, requests, answers):
    for answer, bare in zip(answers, scorer.score(requests), strict=True):
        assert bare.means is None and bare.deviations is None
        assert bare.log_probabilities.tobytes() == answer.log_probabilities.tobytes()


def test_greedy_continuations_are_recognised(scorer, plain_logits):
    context = [3, 14, 15, 92, 65]
    continuation = []
    for _ in range(4):
        continuation.append(int(plain_logits([*context, *continuation])[-1].argmax()))
    right = ScoringRequest(context, continuation)
    wrong = ScoringRequest(context, [*continuation[:3], (continuation[3] + 1) % 512])
    assert [answer.is_greedy for answer in scorer.score([right, wrong])] == [True, False]


def test_among_equal_logits_the_lowest_id_is_greedy(params):
    flat = params | {"lm_head": {"kernel": np.zeros_like(params["lm_head"]["kernel"])}}
    scorer = LikelihoodScorer(MODEL, flat, **SMALL)
    answers = scorer.score([ScoringRequest([1], [0]), ScoringRequest([1], [1]), ScoringRequest([1], [511])])
    assert [answer.is_greedy for answer in answers] == [True, False, False]


def test_an_answer_has_the_same_bits_whatever_is_asked_with_it(scorer, requests, answers):
    generator = np.random.default_rng(1)
    others = random_requests(30, seed=2)
    for size in (1, 3, 20):
        chosen = generator.permutation(len(requests))[:size]
        mixed = [requests[number] for number in chosen] + others[: 5 * (size - 1)]
        found = scorer.score(mixed, statistics=True)[:size]
        for number, answer in zip(chosen, found, strict=True):
            for name in ("log_probabilities", "means", "deviations"):
                assert getattr(answer, name).tobytes() == getattr(answers[number], name).tobytes()


@pytest.mark.parametrize("axes", [{"data": 8}, {"data": 2, "fsdp": 2, "tensor": 2}], ids=["data", "all_axes"])
def test_eight_devices_answer_as_one_does(params, requests, answers, axes):
    mesh = sharding.make_mesh(sharding.MeshConfig(**axes))
    found = LikelihoodScorer(MODEL, params, mesh=mesh, **SMALL).score(requests, statistics=True)
    for ours, reference in zip(found, answers, strict=True):
        np.testing.assert_allclose(ours.log_probabilities, reference.log_probabilities, rtol=1e-6, atol=4e-6)
        np.testing.assert_allclose(ours.means, reference.means, rtol=2e-6)
        assert ours.is_greedy == reference.is_greedy


def test_one_compilation_per_bucket_whatever_comes(params):
    config = dataclasses.replace(MODEL, init_std=0.5)  # a configuration that no other test compiles
    scorer = LikelihoodScorer(config, params, batch_tokens=128)
    before = score_batch._cache_size()
    for seed in range(3):
        scorer.score(random_requests(12, seed, longest=20))
        scorer.score([ScoringRequest([1] * length, [2]) for length in (5, 16, 17, 32, 33, 48)])
    assert score_batch._cache_size() - before == len({16, 32, 48})


def test_equal_requests_and_letters_share_one_row():
    question = list(range(20, 60))
    letters = [ScoringRequest(question, [letter]) for letter in (1, 2, 3, 4)]
    rows = make_rows([*letters, letters[2], ScoringRequest(question[:10], question[10:] + [2])], 96, 512)
    assert len(rows) == 1 and rows[0].last_labels == [1, 2, 3, 4] and rows[0].first == 9
    many = make_rows([ScoringRequest(question, [letter]) for letter in range(3 * ALTERNATIVES)], 96, 512)
    assert len(many) == 3


def test_logits_exist_for_scored_positions_alone(params):
    config = dataclasses.replace(MODEL, vocab_size=8192)
    rows = make_rows([ScoringRequest([number] * 47, [5]) for number in range(40)], 96, 512)
    (batch,) = make_batches(rows, 96, 48 * 40, shards=1, tile=16)
    assert batch.tokens.shape == (40, 48) and batch.num_tiles == 3
    abstract = jax.eval_shape(lambda: init_parameters(config, jax.random.key(0)))
    program = ScoringProgram(config, 16, True, ())
    arrays = (batch.tokens, batch.places, batch.labels, np.int32(batch.num_tiles))
    memory = score_batch.lower(abstract, *arrays, program).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 40 * 48 * 8192 * 4 / 4


def test_too_long_a_request_loses_the_beginning_of_its_context(scorer, plain_logits):
    tokens = np.random.default_rng(5).integers(0, 512, 150).tolist()
    for continuation in (1, 30, 95, 96):
        request = ScoringRequest(tokens[:-continuation], tokens[-continuation:])
        (answer,) = scorer.score([request])
        reference, labels = by_definition(plain_logits, request)
        np.testing.assert_allclose(answer.log_probabilities, reference[np.arange(continuation), labels], atol=1e-5)


def test_rolling_windows_of_the_golden_case():
    windows = rolling_windows(list(range(10)), 99, longest=4)
    read = [[*window.context, *window.continuation][:-1] for window in windows]
    assert read == [[99, 0, 1, 2], [3, 4, 5, 6], [5, 6, 7, 8]]
    assert [window.continuation for window in windows] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, 60), st.integers(1, 20))
def test_rolling_windows_score_each_token_once_in_most_context(length, longest):
    tokens = list(range(100, 100 + length))
    windows = rolling_windows(tokens, 7, longest)
    assert [token for window in windows for token in window.continuation] == tokens
    text = [7, *tokens]
    for window in windows:
        whole = [*window.context, *window.continuation]
        end = text.index(whole[-1]) + 1
        assert whole == text[end - len(whole) : end]
        assert len(whole) == min(longest + 1, end), "reads as much as fits"


def test_whole_texts_are_scored_in_rolling_windows(scorer, plain_logits):
    generator = np.random.default_rng(6)
    texts = [generator.integers(0, 512, length).tolist() for length in (0, 1, 95, 96, 97, 250)]
    found = scorer.score_rolling_texts(texts, prefix_token=1, statistics=True)
    for text, answer in zip(texts, found, strict=True):
        assert len(answer.log_probabilities) == len(answer.means) == len(text)
        expected = []
        for window in rolling_windows(text, 1, 96):
            reference, labels = by_definition(plain_logits, window)
            expected.extend(reference[np.arange(len(labels)), labels])
        np.testing.assert_allclose(answer.log_probabilities, expected, atol=1e-5)
        assert answer.log_likelihood == pytest.approx(sum(expected), abs=1e-4)
    assert scorer.score_rolling(texts[3], 1).log_likelihood == found[3].log_likelihood


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(1, 5000), st.sampled_from([16, 64, 128]), st.sampled_from([96, 512, 1000, 4096, 5000]))
def test_buckets_hold_their_rows_and_waste_at_most_a_third(length, smallest, longest):
    bucket = bucket_length(min(length, longest), longest, smallest)
    length = min(length, longest)
    assert bucket >= length and bucket % smallest == 0
    assert bucket <= max(2 * smallest, 1.5 * length)


def test_logits_that_are_not_numbers_name_their_request(params):
    table = np.array(params["embedder"]["embedding"])
    table[7] = np.nan
    scorer = LikelihoodScorer(MODEL, params | {"embedder": {"embedding": table}}, **SMALL)
    fine = [ScoringRequest([1, 2], [3]), ScoringRequest([1, 2, 4], [7])]
    scorer.score(fine)
    with pytest.raises(UserError, match=r"request 2 \(a context of 3 tokens, a continuation of 2\) gave logits"):
        scorer.score([*fine, ScoringRequest([1, 7, 2], [3, 4])])


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ScoringRequest([1], []), "request 1 has an empty continuation"),
        (ScoringRequest([], [1]), "request 1 has an empty context"),
        (ScoringRequest([1], [2] * 97), "request 1 has a continuation of 97 tokens, longer than the context of 96"),
        (ScoringRequest([1], [512]), "request 1 holds token id 512, outside the vocabulary of 512"),
        (ScoringRequest([-1], [2]), "request 1 holds token id -1"),
    ],
)
def test_requests_that_cannot_be_scored_are_named(scorer, request_, message):
    with pytest.raises(UserError, match=message):
        scorer.score([ScoringRequest([1], [2]), request_])


def test_nothing_asked_gives_nothing(scorer):
    assert scorer.score([]) == []


def test_answers_equal_transformers_on_the_exported_model(params, scorer, requests, answers, tmp_path):
    import torch
    import transformers

    from apertus_jax.release import save_huggingface

    save_huggingface(tmp_path / "model", MODEL, params)
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    for request, answer in zip(requests, answers, strict=True):
        whole = torch.tensor([[*request.context, *request.continuation][-97:]])
        with torch.no_grad():
            logits = peer(whole[:, :-1]).logits[0, -len(request.continuation) :]
        chosen = torch.log_softmax(logits.double(), dim=-1).gather(1, torch.tensor(request.continuation)[:, None])
        expected = float(chosen.sum())
        assert abs(answer.log_likelihood - expected) <= 1e-4 + 1e-6 * abs(expected)
        assert answer.is_greedy == bool((logits.argmax(dim=-1) == torch.tensor(request.continuation)).all())
