"""Canaries: secret, committed to, planted as often as they say; exposure against its definition and scipy."""

import collections
import dataclasses
import json
import math
import random

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from apertus_jax.data import TokenStore, tokenize
from apertus_jax.data.tokenizer.bpe import train_bpe
from apertus_jax.errors import UserError
from apertus_jax.evaluation.memorization.canaries import plant_canaries_command as canary_room
from apertus_jax.evaluation.memorization.canaries.exposure import SkewNormal, exposure, extrapolated_exposure
from apertus_jax.evaluation.memorization.canaries.plant_canaries_command import (
    CanaryPlan,
    check_commitment,
    make_canaries,
    plant_canaries,
    read_canaries,
    split_tokens,
)
from apertus_jax.evaluation.memorization.canaries.secret_stream import SecretStream
from apertus_jax.evaluation.memorization.canaries.templates import word_pieces
from apertus_jax.objectives import goldfish_mask
from apertus_jax.storage import artifacts

SECRET = "a secret of more than sixteen characters"
PLAN = CanaryPlan(lengths=(6, 12), repetitions=(0, 1, 3), references=20, prefix_words=60)


@pytest.fixture(scope="module")
def tokenizer():
    source = random.Random(0)
    words = ["".join(source.choices("abcdefghij", k=source.randint(3, 7))) for _ in range(300)]
    return train_bpe([" ".join(source.choices(words, k=400)) + ".\nRegister 0123456789" for _ in range(20)], 900)


@pytest.fixture(scope="module")
def planted(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("canaries") / "planted"
    plant_canaries(folder, SECRET, PLAN, tokenizer)
    return folder


def test_every_canary_is_planted_exactly_as_often_as_it_says(planted):
    canaries, references = read_canaries(planted)
    documents = [json.loads(line) for line in (planted / "documents.jsonl").read_text().splitlines()]
    texts = collections.Counter()
    for document in documents:
        for canary in canaries:
            texts[canary.canary] += canary.secret in document["text"]
    assert {canary.canary: canary.repetitions for canary in canaries} == dict(texts)
    assert len({document["document_id"] for document in documents}) == len(documents)
    # 3 kinds × 2 lengths × (0, 1, 3 behind one prefix, 3 behind three).
    assert collections.Counter((c.repetitions, c.prefix) for c in canaries) == {
        (0, "same"): 6,
        (1, "same"): 6,
        (3, "same"): 6,
        (3, "varied"): 6,
    }
    everything = "".join(document["text"] for document in documents)
    for template, secrets in references.items():
        own = [canary.secret for canary in canaries if canary.template == template]
        assert len(set(secrets) | set(own)) == 20 + 4
        if not template.startswith("record"):
            assert not any(secret in everything for secret in secrets)


def test_every_field_of_a_plan_is_part_of_the_identity(planted, tokenizer):
    others = {"kinds": ("tokens",), "lengths": (6,), "repetitions": (0, 1), "prefixes": ("same",), "per_cell": 2}
    others |= {"references": 21, "prefix_words": 61}
    assert others.keys() == {field.name for field in dataclasses.fields(CanaryPlan)}, "a field without another value"
    for name, value in others.items():
        with pytest.raises(UserError, match=f"made with other .*CanaryPlan.{name}"):
            plant_canaries(planted, SECRET, dataclasses.replace(PLAN, **{name: value}), tokenizer)


def test_copies_share_their_prefix_and_cluster_or_neither(planted):
    canaries, _ = read_canaries(planted)
    documents = [json.loads(line) for line in (planted / "documents.jsonl").read_text().splitlines()]
    for canary in canaries:
        copies = [canary.text(copy) for copy in range(canary.repetitions)]
        rows = [document for document in documents if document["text"] in copies]
        assert sorted(copies) == sorted(row["text"] for row in rows)
        varied = canary.prefix == "varied"
        assert len(set(copies)) == (3 if varied else min(1, canary.repetitions))
        assert {row["cluster"] for row in rows} == (({""} if varied else {canary.canary}) if rows else set())


def test_varied_prefixes_differ_within_what_the_hash_sees(planted, tokenizer):
    canaries, _ = read_canaries(planted)
    for canary in (each for each in canaries if each.prefix == "varied"):
        windows = {tuple(split_tokens(tokenizer, canary.context(c), canary.secret)[0][-50:].tolist()) for c in range(3)}
        assert len(windows) == 3
        assert {len(window) for window in windows} == {50}


def test_mask_holes_change_with_varied_prefixes_alone(planted, tokenizer):
    """From the place on where the last h = 13 tokens are the secret's own, holes are the same behind any prefix."""
    canaries, _ = read_canaries(planted)
    changed = 0
    for canary in (each for each in canaries if each.repetitions == 3 and each.kind != "record"):
        masks = []
        for copy in range(3):
            context, secret = split_tokens(tokenizer, canary.context(copy), canary.secret)
            labels = np.zeros((1, 512), np.int32)
            labels[0, : len(context) + len(secret)] = np.concatenate([context, secret])
            keep = np.asarray(goldfish_mask(labels, k=4, h=13, strategy="megatron"))[0]
            masks.append(keep[len(context) : len(context) + len(secret)])
        same_holes = (masks[0] == masks[1]) & (masks[0] == masks[2])
        assert same_holes[13:].all()
        if canary.prefix == "same":
            assert same_holes.all()
        else:
            changed += (~same_holes).sum()
    assert changed > 5


def test_planted_store_holds_every_secret_as_tokens(planted, tokenizer, tmp_path):
    """The documents go through `tokenize`; random tokens arrive as the tokens that were drawn."""
    tokenizer.save(tmp_path / "tokenizer")
    tokenize(
        str(planted / "documents.jsonl"),
        tmp_path / "store",
        tokenizer=str(tmp_path / "tokenizer"),
        held_out_fraction=0.0,
        progress=False,
    )
    store = TokenStore.open(tmp_path / "store")
    source = store.source("canaries")
    stored = " ".join(map(str, source.tokens(0, source.num_tokens).tolist()))
    canaries, _ = read_canaries(planted)
    for canary in canaries:
        _, secret = split_tokens(tokenizer, canary.context(), canary.secret)
        text = " " + " ".join(map(str, secret.tolist())) + " "
        assert stored.count(text) == canary.repetitions
        if canary.kind == "tokens":
            assert len(secret) == canary.length


def test_tokens_are_drawn_from_whole_words_that_read_back(tokenizer):
    pieces = word_pieces(tokenizer)
    assert len(pieces) > 100
    for piece in pieces:
        assert tokenizer.decode(tokenizer.encode(piece)) == piece and len(tokenizer.encode(piece)) == 1
    canaries, _ = make_canaries(SECRET, CanaryPlan(kinds=("tokens",), lengths=(8,), repetitions=(1,)), tokenizer)
    assert canaries[0].space_bits == pytest.approx(8 * math.log2(len(pieces)))


def test_seam_token_belongs_to_the_secret(tokenizer):
    word = next(piece for piece in word_pieces(tokenizer) if len(piece) > 4)
    context, secret = split_tokens(tokenizer, "." + word[:3], word[3:])
    assert tokenizer.decode(np.concatenate([context, secret])) == "." + word
    assert tokenizer.decode(secret) == word


def test_secret_decides_all_bytes_and_another_shares_none(planted, tokenizer, tmp_path):
    plant_canaries(tmp_path / "again", SECRET, PLAN, tokenizer)
    plant_canaries(tmp_path / "other", SECRET + "!", PLAN, tokenizer)
    for name in artifacts.list_files(planted):
        assert (planted / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    ours, theirs = ({canary.secret for canary in read_canaries(f)[0]} for f in (planted, tmp_path / "other"))
    assert not ours & theirs
    before = (tmp_path / "again" / "COMMITTED.json").stat().st_mtime_ns
    assert plant_canaries(tmp_path / "again", SECRET, PLAN, tokenizer)["canaries"] == 24
    assert (tmp_path / "again" / "COMMITTED.json").stat().st_mtime_ns == before


def test_commitment_opens_to_these_canaries_only(planted, tokenizer, tmp_path):
    published = tmp_path / "commitment.json"
    published.write_text((planted / "commitment.json").read_text())
    check_commitment(planted, published)
    plant_canaries(tmp_path / "other", SECRET + "!", PLAN, tokenizer)
    with pytest.raises(UserError, match=r"canaries.jsonl is not what .* committed to"):
        check_commitment(tmp_path / "other", published)
    opened = tmp_path / "opened"
    opened.mkdir()
    for name in ("canaries.jsonl", "references.json", "opening.json"):
        (opened / name).write_bytes((planted / name).read_bytes())
    references = json.loads((opened / "references.json").read_text())
    references["record-6"][0] = "000000"
    (opened / "references.json").write_text(json.dumps(references, indent=1) + "\n")
    with pytest.raises(UserError, match="references.json is not what"):
        check_commitment(opened, published)


def test_commitment_tells_nothing_without_the_salt(planted):
    text = (planted / "commitment.json").read_text()
    content = (planted / "canaries.jsonl").read_bytes()
    salt = bytes.fromhex(json.loads((planted / "opening.json").read_text())["salt"])
    assert len(salt) == 32
    assert canary_room.salted_digest(content, salt) in text
    assert artifacts.digest_bytes(content) not in text
    assert canary_room.salted_digest(content, b"\0" * 32) not in text
    assert SECRET not in "".join((planted / name).read_text() for name in artifacts.list_files(planted))


def test_stream_is_uniform_and_labels_are_unrelated():
    stream = SecretStream(SECRET, "dice")
    counts = np.bincount([stream.below(6) for _ in range(6000)], minlength=6)
    assert scipy.stats.chisquare(counts).pvalue > 1e-4
    orders = collections.Counter(tuple(stream.shuffled("abc")) for _ in range(6000))
    assert len(orders) == 6 and scipy.stats.chisquare(list(orders.values())).pvalue > 1e-4
    assert SecretStream(SECRET, "a").take(40) != SecretStream(SECRET, "b").take(40)
    pieces = SecretStream(SECRET, "a")
    assert pieces.take(1) + pieces.take(70) == SecretStream(SECRET, "a").take(71)
    assert len(SecretStream(SECRET, "text").sentences(25).split()) == 25
    assert SecretStream(SECRET, "text").sentences(0) == ""


def test_exact_exposure_equals_its_definition_in_thousands():
    generator = np.random.default_rng(0)
    for _ in range(3000):
        references = -generator.integers(0, generator.choice([1, 5, 1000]), int(generator.integers(1, 40))) / 4
        score = -float(generator.integers(0, 8)) / 4
        order = sorted([*((-value, 0) for value in references.tolist()), (-score, 1)])
        rank = order.index((-score, 1)) + 1
        found = exposure(score, references)
        assert (found.rank, found.candidates) == (rank, len(references) + 1)
        assert found.bits == pytest.approx(math.log2(len(references) + 1) - math.log2(rank))


def test_unknown_secret_has_a_uniform_rank_a_known_one_all_bits():
    generator = np.random.default_rng(1)
    found = []
    for _ in range(4000):
        scores = generator.normal(size=64)
        found.append(exposure(float(scores[0]), scores[1:]))
    ranks = np.bincount([each.rank for each in found], minlength=65)[1:]
    assert scipy.stats.chisquare(ranks).pvalue > 1e-4
    assert np.mean([each.p_value <= 0.125 for each in found]) == pytest.approx(0.125, abs=0.02)
    assert exposure(5.0, scores).bits == pytest.approx(math.log2(65))
    assert exposure(0.0, np.zeros(10)).bits == 0


@pytest.mark.parametrize("shape", [-20.0, -3.0, 0.0, 0.7, 5.0, 40.0])
def test_log_cumulative_equals_scipy_and_quadrature_in_the_tail(shape):
    fitted = SkewNormal(3.0, 2.0, shape)
    for z in np.linspace(-1.5, 4, 23):
        expected = scipy.stats.skewnorm.cdf(z, shape)
        if expected > 1e-8:
            assert fitted.log_cumulative(3 + 2 * z) == pytest.approx(math.log(expected), abs=1e-6, rel=1e-6)
    for z in (-3.0, -8.0, -30.0):
        # 2φ(z)Φ(αz) taken out of the integral, so that what remains is of ordinary size.
        peak = float(fitted.log_density(np.array(z)))
        steepness = abs(z) * (1 + max(0.0, shape) ** 2)
        integral, _ = scipy.integrate.quad(
            lambda u, z=z, peak=peak, s=steepness: float(np.exp(fitted.log_density(np.array(z - u / s)) - peak)), 0, 60
        )
        assert fitted.log_cumulative(3 + 2 * z) == pytest.approx(peak + math.log(integral / steepness), abs=1e-6)
        if shape == 0:
            assert fitted.log_cumulative(3 + 2 * z) == pytest.approx(scipy.special.log_ndtr(z), abs=1e-6)
    assert fitted.log_cumulative(1e6) == pytest.approx(0, abs=1e-6)


def test_fit_of_moments_finds_the_distribution_it_was_drawn_from():
    for shape in (-4.0, 0.0, 1.5, 6.0):
        mean, variance, skewness = (float(v) for v in scipy.stats.skewnorm.stats(shape, 10, 3, moments="mvs"))
        values = scipy.stats.skewnorm.rvs(shape, 10, 3, size=40_000, random_state=2)
        fitted = SkewNormal.of_moments(values)
        found = scipy.stats.skewnorm.stats(fitted.shape, fitted.location, fitted.scale, moments="mvs")
        expected = (values.mean(), values.var(), scipy.stats.skew(values))
        np.testing.assert_allclose([float(v) for v in found], expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose([mean, math.sqrt(variance), skewness], np.array(expected) ** [1, 0.5, 1], atol=0.06)


def test_extrapolated_exposure_agrees_with_the_exact_one():
    generator = np.random.default_rng(3)
    references = -scipy.stats.skewnorm.rvs(2.0, 50, 4, size=4000, random_state=generator)
    for quantile in (0.5, 0.9, 0.99):
        score = float(np.quantile(references, quantile))
        found = extrapolated_exposure(score, references)
        assert found.bits == pytest.approx(exposure(score, references).bits, abs=0.25)
        assert found.fit_distance < 0.03
    assert extrapolated_exposure(-1.0, references).bits > 40
    assert extrapolated_exposure(-1.0, references, space_bits=30.0).bits == 30.0
    two_modes = np.concatenate([references, references - 200])
    assert extrapolated_exposure(-50.0, two_modes[::20]).fit_distance > 0.1


def test_bad_input_is_one_clear_line(planted, tmp_path):
    with pytest.raises(UserError, match="secret has 5 characters, at least 16"):
        make_canaries("short", PLAN)
    with pytest.raises(UserError, match="kind tokens need a tokenizer"):
        make_canaries(SECRET, PLAN)
    with pytest.raises(UserError, match=r"record-1 has fewer than .* candidates"):
        make_canaries(SECRET, dataclasses.replace(PLAN, kinds=("record",), lengths=(1,)))
    for wrong in ({"kinds": ("word",)}, {"lengths": (0,)}, {"repetitions": (0,)}, {"prefixes": ()}, {"per_cell": 0}):
        with pytest.raises(UserError, match=f"canary {next(iter(wrong))}"):
            CanaryPlan(**wrong)
    with pytest.raises(UserError, match="at least 1 references"):
        exposure(0.0, np.zeros(0))
    with pytest.raises(UserError, match="NaN"):
        exposure(math.nan, np.zeros(3))
    with pytest.raises(UserError, match="one log-probability"):
        extrapolated_exposure(0.0, np.zeros(30))
    with pytest.raises(UserError, match="holds a canaries"):
        artifacts.read_manifest(planted, "probes")
    with pytest.raises(UserError, match="text"):
        tokenize(str(planted), tmp_path / "store", progress=False)


def test_plan_without_tokens_needs_no_tokenizer():
    canaries, references = make_canaries(SECRET, dataclasses.replace(PLAN, kinds=("characters", "record")))
    assert {canary.kind for canary in canaries} == {"characters", "record"}
    assert all(
        len(c.before.encode()) <= 37 and c.before.startswith("\nKeeper ") for c in canaries if c.kind == "record"
    )
    assert all(secret.isdigit() and len(secret) == 12 for secret in references["record-12"])
