"""A text ends before its first stop string, wherever the borders of tokens are and whatever shares the batch."""

import numpy as np
import pytest

from apertus_jax.errors import UserError
from apertus_jax.inference import generate_texts, generate_tokens, program
from apertus_jax.inference.stop_strings import cut_tokens

# Tokens of one to three bytes; some hold a stop string whole, some begin it, some are halves of a character.
PIECES = [b"a", b"b", b"c", b"ab", b"bc", b"ca", b"abc", b"\n", b"\n\n", b" c", "ü".encode()[:1], "ü".encode()[1:]]
STOPS = ["\n\n", "bca", "cab c", "ü", "aaa"]


def decode(tokens):
    return b"".join(PIECES[token % len(PIECES)] for token in tokens).decode("utf-8", errors="replace")


@pytest.fixture(scope="module")
def prompts(config):
    random = np.random.default_rng(5)
    return [random.integers(0, config.vocab_size, length).tolist() for length in (3, 16, 1, 9, 12)]


def by_definition(tokens, stops):
    """The text before its earliest stop string, and the tokens up to the first after which a stop string is there."""
    for count in range(len(tokens) + 1):
        text = decode(tokens[:count])
        places = [text.index(stop) for stop in stops if stop in text]
        if places:
            return text[: min(places)], tokens[:count]
    return decode(tokens), tokens


@pytest.mark.parametrize("options", [{"batch_size": 8}, {"batch_size": 2, "temperature": 1.2, "seed": 3}])
def test_texts_end_before_the_first_stop_string(config, params, prompts, options):
    options = {"max_new_tokens": 60, **options}
    whole = generate_tokens(config, params, prompts, **options)
    texts = generate_texts(config, params, prompts, decode, STOPS, **options)
    assert [(each.text, each.tokens) for each in texts] == [by_definition(tokens, STOPS) for tokens in whole]
    assert any(each.stop_string for each in texts)
    for each in texts:
        assert not any(stop in each.text for stop in STOPS)
        assert each.stop_string is None or decode(each.tokens).startswith(each.text + each.stop_string)


def test_random_token_sequences_are_cut_as_defined():
    random = np.random.default_rng(6)
    crossing = 0
    for _ in range(3000):
        tokens = random.integers(0, len(PIECES), random.integers(0, 30)).tolist()
        stops = [STOPS[place] for place in random.choice(len(STOPS), random.integers(1, 4), replace=False)]
        cut = cut_tokens(tokens, decode, stops)
        assert (cut.text, cut.tokens) == by_definition(tokens, stops)
        crossing += cut.stop_string is not None and cut.stop_string not in decode(cut.tokens[-1:])
        longer = cut_tokens(cut.tokens + [0, 7, 8], decode, stops) if cut.stop_string else cut
        assert longer == cut
    assert crossing > 500


def test_earliest_stop_string_cuts_where_a_token_completes_more():
    cut = cut_tokens([0, 6, 1], decode, ["c", "bc", "abc", "ab"])
    assert (cut.text, cut.tokens, cut.stop_string) == ("a", [0, 6], "abc")


def test_decoding_stops_soon_after_the_stop_string(config, params, prompts, monkeypatch):
    """Not at the end of the budget: the loop is left once every text has its stop string."""
    steps = []
    original = program.decode_batch

    def counted(*arguments):
        state = original(*arguments)
        steps.append(int(state.step))
        return state

    monkeypatch.setattr("apertus_jax.inference.decoding.decode_batch", counted)
    monkeypatch.setattr("apertus_jax.inference.decoding.continue_batch", None)
    first = [decode(tokens)[2:5] for tokens in generate_tokens(config, params, prompts, max_new_tokens=64)]
    steps.clear()
    texts = generate_texts(config, params, prompts, decode, first, max_new_tokens=64)
    assert steps == [16] and all(each.stop_string in first for each in texts)


def test_a_text_of_which_the_rest_is_not_needed_ends_early(config, params, prompts):
    whole = generate_texts(config, params, prompts, decode, max_new_tokens=64)
    texts = generate_texts(config, params, prompts, decode, (), lambda row, text: row == 1, max_new_tokens=64)
    for row, (each, longest) in enumerate(zip(texts, whole, strict=True)):
        assert each.tokens == (longest.tokens[:16] if row == 1 else longest.tokens)
        assert each.stop_string is None and each.text == decode(each.tokens)


def test_stop_strings_need_two_compiled_programs_for_all_budgets(config, params, prompts):
    def compiled():
        return program.decode_batch._cache_size() + program.continue_batch._cache_size()

    before = compiled()
    for budget in (40, 33, 64, 50):
        generate_texts(config, params, prompts, decode, ["never", "ever"][: budget % 3], max_new_tokens=budget)
    assert compiled() - before <= 2


def test_stop_tokens_and_stop_strings_work_together(config, params, prompts):
    whole = generate_tokens(config, params, prompts, max_new_tokens=40)
    stop = whole[0][20]
    texts = generate_texts(config, params, prompts, decode, STOPS, max_new_tokens=40, stop_tokens=[stop])
    for each, tokens in zip(texts, whole, strict=True):
        ended = tokens[: tokens.index(stop) + 1] if stop in tokens else tokens
        assert (each.text, each.tokens) == by_definition(ended, STOPS)


def test_without_stop_strings_the_whole_text_comes_back(config, params, prompts):
    texts = generate_texts(config, params, prompts, decode, max_new_tokens=64)
    assert [each.tokens for each in texts] == generate_tokens(config, params, prompts, max_new_tokens=64)
    assert all(each.text == decode(each.tokens) and each.stop_string is None for each in texts)


def test_empty_stop_string_is_refused(config, params):
    with pytest.raises(UserError, match="stop string '' is empty"):
        generate_texts(config, params, [[1]], decode, ["\n", ""])
