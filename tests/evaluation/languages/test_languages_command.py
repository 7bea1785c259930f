"""The `languages` command on tiny models: known bits per byte, marked text, files of any kind, bad input."""

import csv
import dataclasses
import json
import math

import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from apertus_jax.data import TokenStore, tokenize
from apertus_jax.errors import UserError
from apertus_jax.evaluation.languages import languages
from apertus_jax.evaluation.languages.options import LanguageOptions
from apertus_jax.evaluation.scoring import LikelihoodScorer
from apertus_jax.model import ModelConfig
from apertus_jax.model.model_folder import save_model
from apertus_jax.model.parameters import parameter_shapes

VOCAB = 400
MODEL = ModelConfig(VOCAB, 32, 48, 2, 4, 2, max_position_embeddings=64)
LANGUAGES = ("eng_Latn", "deu_Latn", "ell_Grek", "tha_Thai")
WORDS = {
    "Latn": ("sun", "Mond", "river", "Stein", "bread"),
    "Grek": ("ήλιος", "πέτρα", "ψωμί", "άνεμος", "φως"),
    "Thai": ("แดด", "ขนมปัง", "น้ำ", "สวน", "เวลา"),
}


def some_text(language, generator, most=60):
    between = "" if language == "tha_Thai" else " "
    return between.join(generator.choice(WORDS[language[-4:]], generator.integers(3, most)))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Texts, their store, and a folder of translations."""
    root = tmp_path_factory.mktemp("languages")
    generator = np.random.default_rng(0)
    with (root / "texts.jsonl").open("w") as file:
        for number in range(100):
            language = LANGUAGES[number % 4]
            text = f"{some_text(language, generator)} {number}"
            file.write(json.dumps({"id": str(number), "text": text, "language": language}) + "\n")
    tokenize(str(root / "texts.jsonl"), root / "store", vocab_size=VOCAB, held_out_fraction=0.3, progress=False)
    (root / "flores").mkdir()
    for language in LANGUAGES:
        lines = [some_text(language, generator, 9) for _ in range(9)]
        (root / "flores" / f"{language}.devtest").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def unigram(root):
    """A model whose answer is the same everywhere, with its distribution float64[V]."""
    probabilities = np.random.default_rng(1).dirichlet(np.ones(VOCAB))
    ones = ("embedding", "scale")
    flat = {path: np.full(shape, path.endswith(ones), np.float32) for path, shape in parameter_shapes(MODEL).items()}
    size = MODEL.hidden_size
    flat["lm_head/kernel"][:] = np.log(probabilities) / size * math.sqrt(1 + MODEL.norm_epsilon)
    save_model(root / "unigram", MODEL, unflatten_dict(flat, sep="/"), root / "store" / "tokenizer")
    return root / "unigram", probabilities


def parameters(seed=0):
    generator = np.random.default_rng(seed)
    shapes = parameter_shapes(MODEL).items()
    flat = {path: 0.3 * generator.standard_normal(shape).astype(np.float32) for path, shape in shapes}
    return unflatten_dict(flat, sep="/")


@pytest.fixture(scope="module")
def report(root, unigram):
    out = root / "report"
    return languages(str(unigram[0]), str(out), str(root / "store"), parallel=str(root / "flores")), out


def documents_of(store, names):
    """(language, ids without boundaries, text) of every document of some sources."""
    for name in names:
        source = store.source(name)
        for number, language in enumerate(source.documents["language"].to_pylist()):
            ids = source.document(number)[1:-1]
            yield language, ids, store.tokenizer.decode(ids)


def test_bits_per_byte_of_a_unigram_model_equal_a_count_by_hand(root, unigram, report):
    store, probabilities = TokenStore.open(root / "store"), unigram[1]
    results, _ = report
    assert [row["language"] for row in results["languages"]] == sorted(LANGUAGES)
    for row in results["languages"]:
        for origin, names in (("held out", ["held_out"]), ("training", store.training_sources)):
            documents = [each for each in documents_of(store, names) if each[0] == row["language"]]
            if not documents:  # no text of this language has a 13-gram, so none was held out
                assert origin not in row["bits_per_byte_by_text"]
                continue
            bits = -sum(np.log2(probabilities[ids]).sum() for _, ids, _ in documents)
            expected = bits / sum(len(text.encode()) for _, _, text in documents)
            assert row["bits_per_byte_by_text"][origin] == pytest.approx(expected, rel=2e-5)
        assert row["text"] == ("held out" if "held out" in row["bits_per_byte_by_text"] else "training")
        assert row["bits_per_byte"]["value"] == pytest.approx(row["bits_per_byte_by_text"][row["text"]])
    mean = np.mean([row["bits_per_byte"]["value"] for row in results["languages"]])
    assert results["summary"]["bits_per_byte"]["value"] == pytest.approx(mean)
    assert any("MAY HAVE SEEN" in note for note in results["notes"])


def test_tokenizer_figures_and_shares_are_those_of_the_store(root, report):
    store = TokenStore.open(root / "store")
    trained = sum(len(ids) + 2 for _, ids, _ in documents_of(store, store.training_sources))
    for row in report[0]["languages"]:
        documents = [each for each in documents_of(store, store.source_names) if each[0] == row["language"]]
        tokens = sum(len(ids) for _, ids, _ in documents)
        assert row["fertility"]["value"] == pytest.approx(tokens / sum(len(text.split()) for *_, text in documents))
        characters = sum(len(text) for *_, text in documents)
        assert row["tokens_per_character"]["value"] == pytest.approx(tokens / characters)
        of_language = [each for each in documents_of(store, store.training_sources) if each[0] == row["language"]]
        assert row["share"] == pytest.approx(sum(len(ids) + 2 for _, ids, _ in of_language) / trained)


def test_parity_is_of_translations_information_parity_of_models(root, unigram, report):
    tokenizer = TokenStore.open(root / "store").tokenizer
    ids = {
        language: tokenizer.encode_batch((root / "flores" / f"{language}.devtest").read_text().split("\n")[:-1])
        for language in LANGUAGES
    }
    nats = {language: -sum(np.log(unigram[1][line]).sum() for line in lines) for language, lines in ids.items()}
    tokens = {language: sum(map(len, lines)) for language, lines in ids.items()}
    parallel = report[0]["parallel"]
    for row in parallel["languages"]:
        language = row["language"]
        assert row["premium"]["value"] == pytest.approx(tokens[language] / tokens["eng_Latn"])
        assert row["information_parity"]["value"] == pytest.approx(nats["eng_Latn"] / nats[language], rel=2e-5)
    costs = np.array([tokens[language] for language in LANGUAGES]) / 9
    double_sum = np.abs(costs[:, None] - costs).sum()
    assert parallel["fairness"]["gini"]["value"] == pytest.approx(double_sum / (2 * 16 * costs.mean()))


def test_files_hold_the_results_and_a_second_call_returns_them(root, unigram, report):
    results, out = report
    assert json.loads((out / "results.json").read_text()) == results
    rows = list(csv.DictReader((out / "languages.csv").open()))
    assert [float(row["bits_per_byte"]) for row in rows] == [r["bits_per_byte"]["value"] for r in results["languages"]]
    assert {row["grouped_by"] for row in csv.DictReader((out / "groups.csv").open())} == {"scripts", "resource_classes"}
    page = (out / "report.html").read_text()
    assert page.count("<figure") >= 5 and "<details>" in page and "MAY HAVE SEEN" in page
    bytes_before = (out / "COMMITTED.json").read_bytes()
    again = languages(str(unigram[0]), str(out), str(root / "store"), parallel=str(root / "flores"))
    assert again == results and (out / "COMMITTED.json").read_bytes() == bytes_before
    others = {"units": "byte", "baseline": "deu_Latn", "aligned": False, "max_lines": 3, "tokens_per_language": 9}
    others |= {"tokens_per_document": 9, "sequence_length": 9, "seed": 9}
    assert others.keys() == {field.name for field in dataclasses.fields(LanguageOptions)}, "a field without a value"
    for name, value in others.items():
        options = LanguageOptions(**{name: value})
        with pytest.raises(UserError, match=f"made with other LanguageOptions.{name}"):
            languages(str(unigram[0]), str(out), str(root / "store"), parallel=str(root / "flores"), options=options)


def test_random_model_scores_flores_lines_as_the_engine_each(root, tmp_path):
    params = parameters(3)
    save_model(tmp_path / "model", MODEL, params, root / "store" / "tokenizer")
    results = languages(str(tmp_path / "model"), str(tmp_path / "out"), texts=str(root / "flores"))
    tokenizer = TokenStore.open(root / "store").tokenizer
    scorer = LikelihoodScorer(MODEL, params)
    for row in results["languages"]:
        assert row["text"] == "unknown" and row["share"] is None and row["resource_class"] == "unknown"
        lines = (root / "flores" / f"{row['language']}.devtest").read_text().split("\n")[:-1]
        nats = -sum(scorer.score_rolling(tokenizer.encode(line), tokenizer.bod_id).log_likelihood for line in lines)
        expected = nats / math.log(2) / sum(len(line.encode()) for line in lines)
        assert row["bits_per_byte"]["value"] == pytest.approx(expected, rel=1e-5)
    assert results["parallel"]["texts"] == str(root / "flores")
    assert any("not known" in note for note in results["notes"])


def test_without_a_model_there_are_the_figures_of_the_tokenizer(root, tmp_path):
    results = languages("", str(tmp_path / "out"), str(root / "store"), options=LanguageOptions(tokens_per_language=50))
    assert results["summary"]["bits_per_byte"] is None and results["summary"]["fertility"]["value"] > 1
    assert len(results["parallel"]["languages"]) >= 30
    assert results["parallel"]["languages"][0]["information_parity"] is None
    assert all(row["tokens"] <= 100 for row in results["languages"])
    assert (tmp_path / "out" / "report.html").exists()


def test_a_run_on_another_store_leaves_texts_unmarked(root, unigram, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "model").symlink_to(unigram[0])
    source = {"name": "a", "source": "a", "store_digest": "another"}
    blend = {"kind": "greedy", "sources": ["a"], "length": 10, "rates": {"a": 1.0}}
    (run / "mixture.json").write_text(json.dumps({"sources": [source], "blend": blend}))
    (run / "finished.json").write_text('{"samples": 10}')
    results = languages(str(run), str(tmp_path / "out"), str(root / "store"), parallel="")
    assert {row["text"] for row in results["languages"]} == {"unknown"}
    assert results["parallel"] is None
    assert any("another token store" in note for note in results["notes"])


def test_documents_and_json_lines_are_read_by_language(root, tmp_path):
    documents = languages("", str(tmp_path / "a"), str(root / "store"), texts=str(root / "texts.jsonl"), parallel="")
    assert sum(row["passages"] for row in documents["languages"]) == 100
    folder = tmp_path / "rows"
    folder.mkdir()
    for language, start in (("eng_Latn", 0), ("deu_Latn", 0), ("ell_Grek", 1)):
        rows = [{"id": start + number, "text": "x" * (number + 1)} for number in range(9)]
        (folder / f"{language}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = languages("", str(tmp_path / "b"), str(root / "store"), texts=str(folder), parallel="")
    assert found["parallel"] is None and any("not those of" in note for note in found["notes"])
    (folder / "ell_Grek.jsonl").unlink()
    found = languages(
        "", str(tmp_path / "c"), str(root / "store"), texts=str(folder), options=LanguageOptions(max_lines=4)
    )
    assert found["parallel"]["fairness"]["lines"] == 4 and found["parallel"]["fairness"]["gini"]["value"] == 0


BAD_FILES = {
    "is empty": {},
    r"notes\.md does not tell its language": {"deu_Latn.txt": b"ja\n", "notes.md": b"x"},
    r"keep one file": {"deu_Latn.txt": b"ja\n", "deu_Latn.dev": b"ja\n"},
    r"deu_Latn\.txt is not UTF-8": {"deu_Latn.txt": b"j\xff\n"},
    r"deu_Latn\.txt has no text": {"deu_Latn.txt": b"\n \n"},
    r"deu_Latn\.jsonl:2: not valid JSON": {"deu_Latn.jsonl": b'{"text": "ja"}\n{"text"'},
    r"deu_Latn\.jsonl:1 has the text 3": {"deu_Latn.jsonl": b'{"text": 3}'},
    r"the id '1' of an earlier line": {"deu_Latn.jsonl": b'{"id": 1, "text": "a"}\n{"id": 1, "text": "b"}'},
    r"has the language 'und'": {"some.jsonl": b'{"text": "ja"}'},
    r"no eng_Latn to set parity": {"deu_Latn.txt": b"ja\n", "fra_Latn.txt": b"oui\n"},
}


@pytest.mark.parametrize("message", BAD_FILES)
def test_bad_folders_are_one_clear_line(root, tmp_path, message):
    folder = tmp_path / "texts"
    folder.mkdir()
    for name, content in BAD_FILES[message].items():
        (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        languages("", str(tmp_path / "out"), str(root / "store"), texts=str(folder))
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_bad_settings_and_other_tokenizers_are_one_clear_line(root, unigram, tmp_path):
    out, store = str(tmp_path / "out"), str(root / "store")
    tokenize(str(root / "texts.jsonl"), tmp_path / "other", vocab_size=380, progress=False)
    save_model(tmp_path / "bare", MODEL, parameters())
    folder = tmp_path / "uneven"
    folder.mkdir()
    (folder / "eng_Latn.txt").write_text("a\nb\n")
    (folder / "deu_Latn.txt").write_text("a\n")
    for message, arguments in {
        "LanguageOptions.units = 'verse'": {"store": store, "units": "verse"},
        "nothing to measure": {},
        "LanguageOptions.tokens_per_language = 0": {"store": store, "tokens_per_language": 0},
        "LanguageOptions.max_lines = 0": {"texts": str(folder), "max_lines": 0},
        "made by tokenizer": {"store": str(tmp_path / "other")},
        "has vocabulary 400": {"run": str(tmp_path / "bare"), "store": str(tmp_path / "other")},
        "carries no tokenizer": {"run": str(tmp_path / "bare"), "texts": str(folder)},
        "cannot be taken as translations": {"texts": str(folder), "aligned": True},
        "does not exist": {"texts": str(tmp_path / "nowhere")},
    }.items():
        with pytest.raises(UserError, match=message):
            names = [field.name for field in dataclasses.fields(LanguageOptions) if field.name in arguments]
            options = LanguageOptions(**{name: arguments.pop(name) for name in names})
            languages(**{"run": str(unigram[0]), "output": out} | arguments, options=options)
        assert not (tmp_path / "out").exists()
