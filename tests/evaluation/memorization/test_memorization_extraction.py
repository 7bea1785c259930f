"""Extraction without sampling equals sampling, closed forms and rational arithmetic."""

import decimal
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apertus_jax.errors import UserError
from apertus_jax.evaluation.memorization import extraction
from apertus_jax.inference import Sampling
from apertus_jax.inference.sampling import filtered_logits
from apertus_jax.model import ModelConfig, Transformer, init_parameters

SCHEMES = (
    Sampling(),
    Sampling(temperature=1.0),
    Sampling(temperature=0.5),
    Sampling(temperature=1.0, top_k=5),
    Sampling(temperature=1.0, top_p=0.9),
    Sampling(temperature=2.0, top_k=7, top_p=0.6),
    Sampling(temperature=0.7, top_p=1e-50),
    Sampling(temperature=1.0, top_k=1),
)


def probabilities_by_definition(scores, scheme):
    """Probability of each token of one place, token by token."""
    if scheme.greedy:
        return np.eye(len(scores))[max(range(len(scores)), key=lambda t: (scores[t], -t))]
    weights = np.exp(scores / scheme.temperature - np.max(scores / scheme.temperature))
    order = sorted(range(len(scores)), key=lambda t: (-weights[t], t))[: scheme.top_k]
    total = sum(weights[t] for t in order)
    kept, mass = [], 0.0
    for token in order:
        kept.append(token)
        mass += weights[token] / total
        if mass >= scheme.top_p < 1.0:
            break
    result = np.zeros(len(scores))
    result[kept] = weights[kept] / weights[kept].sum()
    return result


def decisive_scores(generator, places, vocabulary):
    """Scores in eighths, with ties, whose nucleus never ends within rounding of the line."""
    rows = []
    while len(rows) < places:
        scores = generator.integers(-24, 25, vocabulary) / 8
        clear = True
        for scheme in SCHEMES:
            if scheme.truncated and scheme.top_p < 1.0:
                full = Sampling(scheme.temperature, scheme.top_k, 1.0)
                sums = np.cumsum(np.sort(probabilities_by_definition(scores, full))[::-1])
                clear &= np.abs(sums - scheme.top_p).min() > 1e-5 or scheme.top_p < 1e-5
        if clear:
            rows.append(scores)
    return np.array(rows)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_probability_of_every_token_is_that_of_the_definition(scheme):
    scores = decisive_scores(np.random.default_rng(0), 150, 11)
    expected = np.array([probabilities_by_definition(row, scheme) for row in scores])
    for token in range(11):
        found = np.exp(extraction.token_log_probabilities(scores, np.full(150, token), scheme))
        np.testing.assert_allclose(found, expected[:, token], atol=1e-14)
        normalized = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
        from_probabilities = extraction.token_log_probabilities(normalized, np.full(150, token), scheme)
        np.testing.assert_allclose(np.exp(from_probabilities), found, atol=1e-12)


def test_tiled_probabilities_equal_the_reference_and_the_decoder():
    """lm_head is the identity, so hidden states are the logits; 7 places do not divide into 4 tiles."""
    scores = decisive_scores(np.random.default_rng(1), 21, 11).reshape(3, 7, 11)
    targets = np.random.default_rng(2).integers(0, 11, (3, 7))
    run = jax.jit(extraction.scheme_log_probabilities, static_argnums=(3, 4))
    found = np.asarray(run(jnp.asarray(scores, jnp.float32), jnp.eye(11), jnp.asarray(targets), SCHEMES, 4))
    for scheme, ours in zip(SCHEMES, found, strict=True):
        expected = extraction.token_log_probabilities(scores.reshape(21, 11), targets.reshape(21), scheme)
        np.testing.assert_allclose(ours.reshape(21), expected, rtol=1e-5, atol=1e-6)
        if scheme.greedy:
            continue
        kept = filtered_logits(
            jnp.asarray(scores.reshape(21, 11), jnp.float32),
            jnp.float32(scheme.temperature),
            jnp.int32(scheme.top_k or 11),
            jnp.float32(scheme.top_p),
            scheme.truncated,
        )
        decoder = np.asarray(jax.nn.log_softmax(kept, axis=-1))[np.arange(21), targets.reshape(21)]
        np.testing.assert_allclose(ours.reshape(21), decoder, rtol=1e-5, atol=1e-6)


def test_nucleus_of_a_large_vocabulary_equals_the_reference():
    """All signs and sizes of logits, and columns of equal ones; the tail of a nucleus of nearly all."""
    generator = np.random.default_rng(6)
    scores = (generator.normal(size=(40, 700)) * generator.choice([0.01, 1, 10], (40, 1)) - 3).astype(np.float32)
    scores[::4] = np.round(scores[::4])
    scores[1, ::2] = -0.0
    schemes = tuple(Sampling(1.0, top_p=top_p) for top_p in (0.1234, 0.9, 0.999))
    targets = np.argsort(-scores, axis=-1, kind="stable")[np.arange(40), generator.integers(0, 700, 40) // 3]
    run = jax.jit(extraction.scheme_log_probabilities, static_argnums=(3,))
    found = np.asarray(run(scores[None], jnp.eye(700), targets[None], schemes))[:, 0]
    for scheme, ours in zip(schemes, found, strict=True):
        expected = extraction.token_log_probabilities(scores, targets, scheme)
        np.testing.assert_allclose(ours, expected, rtol=2e-5, atol=2e-5)
    assert 10 < np.isfinite(found).sum() < 110
    values = jnp.array([-np.inf, -3e38, -1.5, -1e-30, -0.0, 0.0, 1e-30, 2.5, 3e38, np.inf], jnp.float32)
    assert np.sign(np.diff(np.asarray(extraction._ordered_bits(values), np.int64))).tolist() == [1] * 4 + [0] + [1] * 4


def test_logits_of_the_whole_batch_never_exist():
    def shapes(jaxpr):
        for equation in jaxpr.eqns:
            yield from (variable.aval.shape for variable in equation.outvars)
            for value in equation.params.values():
                if hasattr(value, "jaxpr"):
                    yield from shapes(value.jaxpr)

    hidden, kernel = jnp.zeros((2, 32, 8)), jnp.zeros((8, 101))
    jaxpr = jax.make_jaxpr(lambda *arrays: extraction.scheme_log_probabilities(*arrays, SCHEMES, num_tiles=8))(
        hidden, kernel, jnp.zeros((2, 32), jnp.int32)
    )
    with_vocabulary = [shape for shape in shapes(jaxpr.jaxpr) if 101 in shape and len(shape) > 2]
    assert with_vocabulary
    assert max(math.prod(shape) for shape in with_vocabulary) <= 2 * 4 * 101


def test_extraction_probability_is_the_frequency_of_drawing():
    """A toy language with three tokens whose next token depends on the last: drawn 200,000 times per scheme."""
    table = np.array([[1.0, 0.2, -0.5], [0.0, 1.5, 0.4], [0.3, 0.1, 0.2]])
    suffix = np.array([1, 1, 2])
    generator = np.random.default_rng(3)
    draws, queries = 200_000, 4
    for scheme in (Sampling(1.0), Sampling(0.6), Sampling(1.0, top_k=2), Sampling(1.0, top_p=0.75)):
        probabilities = np.array([probabilities_by_definition(row, scheme) for row in table])
        state = np.zeros((draws // queries, queries), int)
        same = np.ones(state.shape, bool)
        for token in suffix:
            state = (generator.random(state.shape)[..., None] > np.cumsum(probabilities, axis=1)[state]).sum(axis=-1)
            same &= state == token
        scores = table[[0, 1, 1]]
        log_p = extraction.sequence_log_probability(extraction.token_log_probabilities(scores, suffix, scheme))
        expected = float(np.exp(log_p))
        assert same.mean() == pytest.approx(expected, abs=5 * math.sqrt(expected / draws) + 1e-12)
        any_of_four = float(extraction.extraction_probability(log_p, queries))
        assert same.any(axis=1).mean() == pytest.approx(any_of_four, abs=5 * math.sqrt(any_of_four / draws * 4) + 1e-12)


def test_least_number_of_draws_is_that_of_rational_arithmetic():
    """Also where the equation holds exactly, as for p_z = 1/2 and p = 3/4, which need 2 draws."""
    generator = np.random.default_rng(4)
    cases = [(Fraction(1), "0.9")]
    for tenths in range(1, 10):
        exact = [decimal.Decimal(1) - (1 - decimal.Decimal(tenths) / 10) ** draws for draws in range(1, 8)]
        cases += [(Fraction(tenths, 10), str(p)) for p in exact if p <= decimal.Decimal("0.9999")]
    for _ in range(2000):
        denominator = int(generator.integers(2, 400))
        cases.append(
            (Fraction(int(generator.integers(1, denominator)), denominator), str(generator.choice([0.1, 0.5, 0.9])))
        )
    for p_z, p in cases:
        found = int(extraction.minimal_queries(np.log(float(p_z)), float(p)))
        miss = 1 - p_z
        assert 1 - miss**found >= Fraction(p)
        assert found == 1 or 1 - miss ** (found - 1) < Fraction(p)
        assert bool(extraction.is_extractable(np.log(float(p_z)), found, float(p)))
        assert found == 1 or not extraction.is_extractable(np.log(float(p_z)), found - 1, float(p))


def test_tiny_and_huge_probabilities_keep_their_digits():
    decimal.getcontext().prec = 300
    exponents = np.concatenate([-np.geomspace(1e-12, 600, 100), [-0.6931471805599453, -29.999, -30.0, -30.001]])
    for log_p in exponents.tolist():
        p_z = decimal.Decimal(log_p).exp()
        for p in (0.1, 0.5, 0.9):
            needed = float((1 - decimal.Decimal(p)).ln() / (1 - p_z).ln())
            found = float(extraction.minimal_queries(log_p, p))
            assert found == pytest.approx(math.ceil(needed), rel=1e-11)
        for n in (1, 1000):
            expected = float(1 - (n * (1 - p_z).ln()).exp())
            assert float(extraction.extraction_probability(log_p, n)) == pytest.approx(expected, rel=1e-12)
    assert extraction.minimal_queries(-np.inf, 0.5) == np.inf
    assert extraction.minimal_queries(-5000.0, 0.5) == np.inf
    assert extraction.minimal_queries(0.0, 0.9) == 1
    assert extraction.extraction_probability(-np.inf, 10) == 0
    assert extraction.extraction_probability(0.0, 1) == 1


def test_curve_grows_with_draws_and_counts_what_it_says():
    log_p = np.log([0.5, 0.05, 1e-3, 1e-9])
    curve = {(point.queries, point.probability): point.extractable for point in extraction.extraction_curve(log_p)}
    assert [curve[n, 0.5].events for n in extraction.QUERIES] == [1, 1, 2, 3, 3]
    assert [curve[n, 0.9].events for n in extraction.QUERIES] == [0, 1, 2, 2, 3]
    assert curve[1, 0.9].upper_bound == pytest.approx(1 - 0.05 ** (1 / 4))


def test_buckets_are_counted_by_themselves():
    rates = extraction.discoverable_by_bucket([0, 128, 0, 128], [False, True, False, False])
    assert (rates[0].events, rates[0].trials, rates[128].events) == (0, 2, 1)
    curves = extraction.extraction_by_bucket(["a", "b", "a"], [-1e9, 0.0, -1e9], queries=(1,), probabilities=(0.5,))
    assert [curves[name][0].extractable.events for name in ("a", "b")] == [0, 1]


@pytest.fixture(scope="module")
def small_model():
    config = ModelConfig(97, 16, 24, 1, 2, 1)
    return config, jax.tree.map(lambda leaf: leaf * 5, init_parameters(config, jax.random.key(0)))


@pytest.fixture(scope="module")
def logits_of(small_model):
    """Logits after each token of one row: no batches, no tiles; what is padded on the right changes nothing before."""
    config, params = small_model
    apply = jax.jit(lambda tokens: Transformer(config).apply({"params": params}, tokens))
    return lambda row: np.asarray(apply(jnp.zeros((1, 64), jnp.int32).at[0, : len(row)].set(jnp.asarray(row))))[
        0, : len(row)
    ]


def test_suffixes_of_many_lengths_equal_each_row_by_itself(small_model, logits_of):
    config, params = small_model
    generator = np.random.default_rng(5)
    lengths = [(1, 1), (9, 4), (30, 20), (2, 4), (17, 25), (3, 14)]
    prefixes = [generator.integers(0, 97, p) for p, _ in lengths]
    suffixes = [generator.integers(0, 97, s).tolist() for _, s in lengths]
    schemes = (Sampling(1.0), Sampling(0.0), Sampling(1.3, top_k=60))
    found = extraction.suffix_log_probabilities(config, params, prefixes, suffixes, schemes, batch_tokens=64)
    for number, (prefix, suffix) in enumerate(zip(prefixes, suffixes, strict=True)):
        logits = logits_of(np.concatenate([prefix, suffix]))[len(prefix) - 1 : -1]
        for place, scheme in enumerate(schemes):
            expected = extraction.token_log_probabilities(logits, np.array(suffix), scheme).sum()
            np.testing.assert_allclose(found[place, number], expected, rtol=2e-5)


def test_greedy_suffix_is_certain_and_any_other_impossible(small_model, logits_of):
    config, params = small_model
    tokens = [5, 7, 11]
    for _ in range(6):
        tokens.append(int(logits_of(tokens)[-1].argmax()))
    other = [*tokens[3:8], (tokens[8] + 1) % 97]
    found = extraction.suffix_log_probabilities(config, params, [tokens[:3]] * 2, [tokens[3:], other], (Sampling(),))
    assert found.tolist() == [[0.0, -math.inf]]


def test_bad_input_is_one_clear_line(small_model):
    config, params = small_model
    with pytest.raises(UserError, match="row 1 has an empty prefix or suffix"):
        extraction.suffix_log_probabilities(config, params, [[1], []], [[1], [1]])
    with pytest.raises(UserError, match="2 prefixes and 1 suffixes"):
        extraction.suffix_log_probabilities(config, params, [[1], [2]], [[1]])
    broken = {**params, "lm_head": {"kernel": params["lm_head"]["kernel"].at[0, 3].set(jnp.nan)}}
    for scheme in (Sampling(), Sampling(1.0), extraction.NUCLEUS):
        with pytest.raises(UserError, match="NaN"):
            extraction.suffix_log_probabilities(config, broken, [[1]], [[1]], (scheme,))
        with pytest.raises(UserError, match="NaN"):
            extraction.token_log_probabilities(np.array([[0.0, np.nan]]), np.array([0]), scheme)
    with pytest.raises(UserError, match=r"1.0 must be above 0 and below 1"):
        extraction.minimal_queries(-1.0, 1.0)
    with pytest.raises(UserError, match="at most 0"):
        extraction.minimal_queries(0.1, 0.5)
