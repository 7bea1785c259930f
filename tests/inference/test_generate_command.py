"""`generate`: text in, text out, without torch."""

import io
import json
import os
import subprocess
import sys

import pytest
import rich.console
import tokenizers

from apertus_jax.errors import UserError
from apertus_jax.inference import generate, generate_tokens
from apertus_jax.inference.generate_command import print_results, read_prompts
from apertus_jax.model.model_folder import load_model, save_model
from apertus_jax.storage import artifacts
from apertus_jax.terminal.terminal_text import printable_text

TEXTS = ["der Bund", "", "Zürich — 数学", "[/INST] [bold]"]
QUICK = {"max_new_tokens": 8, "temperature": 0.0}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=280,
        special_tokens=["<unk>", "<s>", "</s>", "<pad>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(["der Bund und die Kantone"] * 4, trainer)
    made.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory, config, params, tokenizer):
    folder = tmp_path_factory.mktemp("run") / "model"
    save_model(folder, config, params, tokenizer)
    return folder


def test_texts_are_documents_continued_by_the_model(model, tokenizer, capsys):
    results = generate(model, TEXTS, **QUICK)
    encoder = tokenizers.Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    config, params = load_model(model)
    prompts = [[1, *encoder.encode(text).ids] for text in TEXTS]
    expected = generate_tokens(config, params, prompts, max_new_tokens=8, stop_tokens=[2])
    assert [result["tokens"] for result in results] == expected
    assert [result["prompt"] for result in results] == TEXTS
    assert [result["stopped"] for result in results] == [tokens[-1] == 2 for tokens in expected]
    printed = capsys.readouterr().out
    for result in results:
        assert result["continuation"] == encoder.decode(result["tokens"])
        assert printable_text(f"{result['prompt']}⟶{result['continuation']}") in printed


def test_stop_strings_cut_the_texts(model):
    free = generate(model, TEXTS, **QUICK)
    stop = next(result["continuation"] for result in free if len(result["continuation"]) > 3)[2:4]
    for result, whole in zip(generate(model, TEXTS, stop_strings=[stop], **QUICK), free, strict=True):
        assert result["continuation"] == whole["continuation"].split(stop)[0]
        assert result["stopped"] == (whole["stopped"] or stop in whole["continuation"])


def test_results_with_unusual_line_separators_are_read_back(model, tmp_path):
    texts = ["der\u2028Bund", "die\x85Kantone"]
    first = generate(model, texts, output=tmp_path / "samples", **QUICK)
    assert generate(model, texts, output=tmp_path / "samples", **QUICK) == first


def test_run_folder_is_read_like_its_model(model):
    assert generate(model.parent, TEXTS[:1], **QUICK) == generate(model, TEXTS[:1], **QUICK)


def test_table_on_a_terminal_shows_texts_as_they_are():
    screen = io.StringIO()
    console = rich.console.Console(file=screen, force_terminal=True, width=80)
    print_results([{"prompt": "[/INST]", "continuation": "[bold]x"}], console)
    assert "[/INST]" in screen.getvalue() and "[bold]x" in screen.getvalue()


def test_output_folder_is_complete_and_a_second_run_reads_it(tmp_path, model, monkeypatch):
    options = {"max_new_tokens": 6, "seed": 3}
    first = generate(model, TEXTS, tmp_path / "texts", **options)
    lines = (tmp_path / "texts" / "generations.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == first
    assert artifacts.verify(tmp_path / "texts", "generations")["inputs"]["seed"] == 3
    monkeypatch.setattr("apertus_jax.checkpoints.OpenedModel.load", None)
    assert generate(model, TEXTS, tmp_path / "texts", **options) == first
    monkeypatch.undo()
    with pytest.raises(UserError, match="made with other seed"):
        generate(model, TEXTS, tmp_path / "texts", max_new_tokens=6, seed=4)


def test_prompts_come_from_text_and_jsonl_files(tmp_path):
    (tmp_path / "prompts.txt").write_text("one\n\ntwo\n")
    (tmp_path / "prompts.jsonl").write_text('{"text": "eins\\nzwei"}\n{"text": "drei"}\n')
    assert read_prompts(tmp_path / "prompts.txt") == ["one", "two"]
    assert read_prompts(tmp_path / "prompts.jsonl") == ["eins\nzwei", "drei"]
    (tmp_path / "broken.jsonl").write_text('{"text": "x"}\n{"prompt": "y"}\n')
    with pytest.raises(UserError, match="broken.jsonl line 2"):
        read_prompts(tmp_path / "broken.jsonl")
    with pytest.raises(UserError, match="does not exist"):
        read_prompts(tmp_path / "nowhere.txt")


def test_bad_input_is_refused_in_one_line(tmp_path, model, config, params):
    with pytest.raises(UserError, match="nothing to continue"):
        generate(model)
    with pytest.raises(UserError, match="does not exist"):
        generate(tmp_path / "nowhere", TEXTS)
    with pytest.raises(UserError, match="top_p = 2"):
        generate(model, TEXTS, top_p=2)
    with pytest.raises(UserError, match="the context is 256"):
        generate(model, ["long " * 300], output=tmp_path / "texts")
    assert not (tmp_path / "texts").exists()
    save_model(tmp_path / "wordless", config, params)
    with pytest.raises(UserError, match="has no tokenizer"):
        generate(tmp_path / "wordless", TEXTS)


def test_generate_and_export_import_no_torch_or_tensorflow(tmp_path, model):
    program = (
        "import sys\n"
        "from apertus_jax.inference import generate\n"
        "from apertus_jax.release import export\n"
        f"generate({str(model)!r}, ['a'], max_new_tokens=2)\n"
        f"export({str(model)!r}, {str(tmp_path / 'repository')!r})\n"
        "assert not {'torch', 'tensorflow', 'seqio', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_prompts_that_are_no_text_are_one_line(tmp_path):
    (tmp_path / "latin.txt").write_bytes("ein\nGrüße\n".encode("latin-1"))
    (tmp_path / "half.jsonl").write_text('{"text": "ein"}\n{"text": "\\ud800"}\n')
    (tmp_path / "deep.jsonl").write_text('{"text": ' + "[" * 100_000)
    (tmp_path / "number.jsonl").write_text('\n{"text": 3}\n')
    os.mkfifo(tmp_path / "fifo")
    expected = {
        "latin.txt": "latin.txt, line 2 is not UTF-8",
        "half.jsonl": "half.jsonl, line 2",
        "deep.jsonl": "deep.jsonl, line 1",
        "number.jsonl": "number.jsonl line 2",
        "fifo": "fifo is a pipe",
        ".": "folder",
    }
    for name, part in expected.items():
        with pytest.raises(UserError, match=part) as error:
            read_prompts(tmp_path / name)
        assert "\n" not in str(error.value)
    (tmp_path / "windows.txt").write_bytes("\ufeffeins\r\nzwei\u2028drei\r\n".encode())
    assert read_prompts(tmp_path / "windows.txt") == ["eins", "zwei\u2028drei"]
    with pytest.raises(UserError, match="prompt 2 holds U\\+DCFF"):
        generate(tmp_path, ["good", "\udcff"])


def test_nothing_that_a_model_writes_is_obeyed_by_the_terminal(capsys):
    hostile = "\x1b]0;owned\x07\x1b[2J\u202e\x9b1m"
    results = [{"prompt": f"p{hostile}", "continuation": f"one\ntwo{hostile}"}]
    for terminal in (False, True):
        screen = io.StringIO()
        print_results(results, rich.console.Console(file=screen, force_terminal=terminal, color_system=None, width=80))
        assert "one" in screen.getvalue() and not set("\x07\u202e\x9b\x1b") & set(screen.getvalue())
