"""The adapter's answers against plain forward passes, and what it refuses."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apertus_jax.errors import UserError
from apertus_jax.evaluation.execution import Execution
from apertus_jax.evaluation.harness.generation_settings import cut_before, read_settings
from apertus_jax.evaluation.harness.model import HarnessModel
from apertus_jax.evaluation.harness.options import HarnessOptions
from apertus_jax.evaluation.harness.tokenizer import HarnessTokenizer
from apertus_jax.model import Transformer
from apertus_jax.model.model_folder import save_model
from tests.evaluation.harness.harness_models import CONTEXT, demo_texts, random_parameters, tiny_config, write_model

CONFIG = tiny_config()
PARAMS = jax.tree.map(jnp.asarray, random_parameters(CONFIG))
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}\n{% if message['role'] == 'system' %}[{{ message['content'] }}]\n"
    "{% else %}<{{ message.role }}>{{ message['content'] | trim }}</{{ message.role }}>{% endif %}\n{% endfor %}\n"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    write_model(folder)
    (folder / "tokenizer" / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def model(root):
    return HarnessModel.open(root / "model", execution=Execution(batch_tokens=256))


def request(*arguments, document=0):
    return types.SimpleNamespace(args=arguments, task_name="mine", doc_id=document)


@jax.jit
def log_probabilities_of(tokens):
    return jax.nn.log_softmax(Transformer(CONFIG).apply({"params": PARAMS}, tokens))


def plain_score(ids, count):
    """log p of the last `count` of `ids`, and whether each is the most probable; one forward pass, fixed length."""
    padded = np.zeros((1, CONTEXT), np.int32)
    padded[0, : len(ids) - 1] = ids[:-1]
    rows = np.asarray(log_probabilities_of(jnp.asarray(padded)))[0, len(ids) - 1 - count : len(ids) - 1]
    return rows[np.arange(count), ids[-count:]].sum(dtype=np.float64), bool((rows.argmax(-1) == ids[-count:]).all())


def expected_pair(model, context, continuation):
    """docs/reference/evaluation_and_release.md §2.1, written out."""
    stripped = context.rstrip()
    continuation, context = context[len(stripped) :] + continuation, stripped
    if not context:
        return [model.prefix_token_id], model.tok_encode(continuation, add_special_tokens=False)
    whole, first = model.tok_encode(context + continuation), model.tok_encode(context)
    return first, whole[len(first) :]


def test_scores_equal_plain_forward_passes_in_request_order(model):
    texts = demo_texts()
    pairs = [(text[:cut], text[cut : cut + 9]) for text in texts[:12] for cut in (4, 11)]
    pairs += [("", "white snow"), ("Snow is  ", "white"), pairs[0], pairs[3], (" ".join(texts)[:400], " snow")]
    answers = model.loglikelihood([request(*pair) for pair in pairs], disable_tqdm=True)
    for pair, (value, greedy) in zip(pairs, answers, strict=True):
        context, continuation = expected_pair(model, *pair)
        kept = (context + continuation)[-(CONTEXT + 1) :]
        expected, expected_greedy = plain_score(kept, len(continuation))
        assert value == pytest.approx(expected, abs=1e-4) and greedy == expected_greedy
    assert answers[0] == answers[-3]  # the same request twice


def test_the_greedy_continuation_is_greedy_and_another_is_not(model):
    prompt = model.tok_encode("Snow is usually")
    ids = list(prompt)
    for _ in range(3):
        ids.append(int(log_probabilities_of(jnp.asarray([ids + [0] * (CONTEXT - len(ids))]))[0, len(ids) - 1].argmax()))
    other = [*ids[:-1], (ids[-1] + 1) % CONFIG.vocab_size]
    pairs = [(None, prompt, each[len(prompt) :]) for each in (ids, other)]
    assert [greedy for _, greedy in model._loglikelihood_tokens(pairs)] == [True, False]


def test_boundary_token_is_put_once(model):
    assert model.tok_encode("Snow")[:2].count(1) == 1 and model.tok_encode("<s>Snow") == model.tok_encode("Snow")
    assert model.tok_encode("Snow", add_special_tokens=False)[0] != 1
    (value, _), (same, _) = model.loglikelihood([request("", "<s> Snow"), request("<s>", " Snow")])
    assert value == pytest.approx(same, abs=1e-5)


@pytest.mark.parametrize("length", [0, 1, CONTEXT - 1, CONTEXT, CONTEXT + 1, 2 * CONTEXT + 5])
def test_rolling_predicts_every_token_once_with_full_context(model, length):
    ids = np.random.default_rng(length).integers(60, CONFIG.vocab_size, length).tolist()
    text = types.SimpleNamespace(encode=lambda text, add: ids)
    whole = HarnessModel(CONFIG, PARAMS, model.tokenizer, execution=Execution(batch_tokens=256))
    whole.tok_encode = lambda string: text.encode(string, None)
    (value,) = whole.loglikelihood_rolling([request("text")], disable_tqdm=True)
    stream, expected = [model.prefix_token_id, *ids], 0.0
    for end in [*range(CONTEXT, length, CONTEXT), length] if length else []:
        count = CONTEXT if end % CONTEXT == 0 else end % CONTEXT
        expected += plain_score(stream[max(0, end - CONTEXT) : end + 1], count)[0]
    assert value == pytest.approx(expected, abs=1e-3, rel=1e-6)


def plain_continuation(model, prompt, count):
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(log_probabilities_of(jnp.asarray([ids + [0] * (CONTEXT - len(ids))]))[0, len(ids) - 1].argmax()))
    return ids[len(prompt) :]


def test_generation_is_cut_before_the_first_stop_string_in_order(model):
    contexts = ["Snow is usually", "", "Auf den Montag folgt der", "A bicycle has two"]
    plain = [model.tokenizer.decode(plain_continuation(model, model.tok_encode(each), 10)) for each in contexts]
    stop = plain[0][3:5]
    kinds = [{"max_gen_toks": 10}, {"max_gen_toks": 10, "until": [stop]}, {"max_new_tokens": 10, "until": stop}, {}]
    kinds[3] = {"max_gen_toks": 4, "max_new_tokens": 10}
    requests = [request(context, kind) for kind in kinds for context in contexts]
    texts = model.generate_until(requests)
    assert texts[:4] == plain
    assert texts[4:8] == texts[8:12] == [cut_before(text, [stop]) for text in plain] and texts[4] == plain[0][:3]
    short = [model.tokenizer.decode(plain_continuation(model, model.tok_encode(each), 4)) for each in contexts]
    assert texts[12:] == short


def test_a_long_context_loses_its_beginning_with_a_warning(model, caplog):
    context = " ".join(demo_texts())[:400]
    (text,) = model.generate_until([request(context, {"max_gen_toks": 8}, document=5)])
    kept = model.tok_encode(context)[-(CONTEXT - 8) :]
    assert text == model.tokenizer.decode(plain_continuation(model, kept, 8))
    assert "lost their beginning, first task mine document 5" in caplog.text and model.truncated >= 1


def test_sampled_texts_depend_on_seed_and_place_only(root, model):
    kind = {"do_sample": True, "temperature": 1.0, "max_gen_toks": 6}
    requests = [request("Snow is", kind), request("Snow is", kind), request("Im Winter", kind)]
    texts = model.generate_until(requests)
    assert texts[0] != texts[1]
    alone = HarnessModel.open(root / "model", execution=Execution(batch_size=1))
    assert alone.generate_until(requests) == texts
    assert HarnessModel.open(root / "model", HarnessOptions(seed=1)).generate_until(requests) != texts


def test_settings_follow_the_harness():
    assert read_settings({}, "t").budget == 256 and read_settings({"max_tokens": 5, "max_gen_toks": 3}, "t").budget == 3
    assert read_settings({"do_sample": False, "temperature": 0.7, "top_p": 0.5}, "t").temperature == 0.0
    assert read_settings({"temperature": 0.7, "top_k": 0}, "t") == read_settings(
        {"do_sample": True, "temperature": 0.7}, "t"
    )
    assert read_settings({"do_sample": True}, "t").temperature == 1.0
    assert read_settings({"until": "\n"}, "t").until == ("\n",)
    assert read_settings({"until": ["", "a"], "num_beams": 1, "repetition_penalty": 1.0}, "t").until == ("a",)


def test_text_is_cut_at_whichever_stop_comes_first():
    assert cut_before("one two three", ["three", "two"]) == "one "
    assert cut_before("one", ["two", ""]) == "one"


def test_answers_are_handed_to_the_cache(model):
    seen = []
    model.set_cache_hook(types.SimpleNamespace(add_partial=lambda *entry: seen.append(entry)))
    kind = {"max_gen_toks": 2}
    answers = [
        model.loglikelihood([request("a", " b")])[0],
        model.loglikelihood_rolling([request("a b")])[0],
        model.generate_until([request("a", kind)])[0],
    ]
    names = [("loglikelihood", ("a", " b")), ("loglikelihood_rolling", ("a b",)), ("generate_until", ("a", kind))]
    assert seen == [(*name, answer) for name, answer in zip(names, answers, strict=True)]


REFUSED = {
    "empty continuation": (
        "loglikelihood",
        ("a", ""),
        "mine document 3 has the continuation '', of which no token",
    ),
    "merged": ("loglikelihood", ("a", "n"), "continuation 'n', of which no token is left .* needs a delimiter"),
    "long continuation": ("loglikelihood", ("a", " snow" * 200), "continuation of .* tokens, but the model's context"),
    "no room": ("generate_until", ("a", {"max_gen_toks": CONTEXT}), "wants 64 new tokens, but the model's context is"),
    "beams": ("generate_until", ("a", {"num_beams": 4}), "num_beams=4, which this decoder lacks"),
    "no number": ("generate_until", ("a", {"max_gen_toks": "many"}), "generation settings that are not numbers"),
    "no budget": ("generate_until", ("a", {"max_gen_toks": 0}), "asks for 0 new tokens"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_answered_is_one_clear_line(model, name):
    method, arguments, message = REFUSED[name]
    with pytest.raises(UserError, match=message) as refused:
        getattr(model, method)([request(*arguments, document=3)])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("method", ["loglikelihood", "loglikelihood_rolling", "generate_until"])
def test_damaged_parameters_are_named_not_scored(model, method):
    damaged = random_parameters(CONFIG)
    damaged["final_norm"]["scale"][0] = np.nan
    arguments = {"loglikelihood": ("a", " b"), "loglikelihood_rolling": ("a",)}.get(method, ("a", {"max_gen_toks": 2}))
    with pytest.raises(UserError, match="not finite"):
        getattr(HarnessModel(CONFIG, damaged, model.tokenizer), method)([request(*arguments)])


def test_another_tokenizer_is_refused(root, model, tmp_path):
    small = dataclasses.replace(CONFIG, vocab_size=CONFIG.vocab_size - 1)
    with pytest.raises(UserError, match=r"has 480 tokens but the model's vocab_size is 479"):
        HarnessModel(small, PARAMS, model.tokenizer)
    save_model(tmp_path / "model", CONFIG, PARAMS, root / "tokenizer", inputs={"tokenizer": "0" * 32})
    with pytest.raises(UserError, match="was trained with the tokenizer 0000"):
        HarnessModel.open(tmp_path / "model")
    save_model(tmp_path / "mute", CONFIG, PARAMS)
    with pytest.raises(UserError, match="has no tokenizer"):
        HarnessModel.open(tmp_path / "mute")
    with pytest.raises(UserError, match="HarnessOptions.max_length = 65 must be between 1"):
        HarnessModel(CONFIG, PARAMS, model.tokenizer, HarnessOptions(max_length=CONTEXT + 1))


def test_chat_format_is_that_of_transformers(root):
    import transformers

    reference = transformers.AutoTokenizer.from_pretrained(root / "tokenizer")
    ours = HarnessTokenizer(root / "tokenizer")
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Is snow white? "}]
    assert ours.render_chat(talk) == reference.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    talk.append({"role": "assistant", "content": "Answer:"})
    opened = reference.apply_chat_template(talk, tokenize=False, continue_final_message=True)
    assert ours.render_chat(talk, add_generation_prompt=False) == opened
    assert talk[-1]["content"] == "Answer:"


def test_a_hostile_chat_template_reaches_nothing(root):
    tokenizer = HarnessTokenizer(root / "tokenizer")
    talk = [{"role": "user", "content": "x"}]
    for template in ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "{{ raise_exception('no') }}", "{% if %}"):
        tokenizer.chat_template = template
        with pytest.raises(UserError, match="chat template of .* refuses"):
            tokenizer.render_chat(talk)
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        tokenizer.render_chat(talk)
