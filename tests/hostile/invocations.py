"""A good call of every command, and the workspace of artefacts that they make for each other.

The order is that of the chain: what one call writes, later ones read. A command of the table in `apertus_jax/cli.py`
without a call here fails `test_every_command_has_a_good_call`, so a new command enters the hostile table with its day.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import gin

from apertus_jax import cli
from tests.tiny_experiment import TINY_MODEL

CHAIN = """
include 'policies/quickstart.gin'
prepare.sources = [@overlay/Source()]
prepare.as_of = '2026-11-01'
prepare.launcher = 'inline'
overlay/Source.name = 'overlay'
overlay/Source.path = 'overlay/documents'
build_robots_snapshot.as_of = '2026-11-01'
train_classifier.task = 'toxicity'
Policy.tokenizer = ''
ContaminationScoring.benchmarks = ['overlay/benchmark.jsonl']
SignalScoring.tdmrep = 'overlay/tdmrep'
RobotsScoring.snapshot = 'robots'
RemovalScoring.tombstones = 'tombstones'
ClassifierScoring.toxicity = 'toxicity'
"""
MODEL = (
    TINY_MODEL
    + """
ModelConfig.vocab_size = 384
ModelConfig.max_position_embeddings = 64
pretrain.mixture = @Mixture()
RunSchedule.batch_schedule = @BatchSchedule()
BatchSchedule.initial = 8
pretrain.objective = @Objective()
Objective.loss_masks = [@not_after_eod()]
not_after_eod.eod_id = 2
pretrain.optimizer = @adamw
RunSchedule.learning_rate = 1e-3
RunSchedule.total_steps = 2
pretrain.training = @TrainingConfig()
TrainingConfig.sequence_length = 32
"""
)
WHOLE = (
    MODEL
    + """
tokenize.documents = 'text.jsonl'
tokenize.vocab_size = 384
run.stages = ['tokenize', 'pretrain']
"""
)


@dataclasses.dataclass(frozen=True)
class Invocation:
    """One good call.

    Attributes:
      command: its name on the command line.
      inputs: flag, gin name or POSITION → artefact of the workspace that it reads; each is one column of the table.
      output: name of the artefact that it writes; empty when the command writes none.
      options: everything else on the command line.
      markers: input → the file in that folder whose damage has to be noticed (COMMITTED.json when not named).
      gin_file: gin files of the workspace or of gin_configs.
    """

    command: str
    inputs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    output: str = ""
    options: tuple[str, ...] = ()
    markers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    gin_file: str = ""

    def arguments(self, paths: Mapping[str, str], output: str, gin_file: str = "") -> list[str]:
        """Returns the command line with a path for each input and the output."""
        arguments = [self.command, *(option for option in self.options if not option.startswith("-"))]
        arguments += [f"--gin_file={gin_file or self.gin_file}"] if gin_file or self.gin_file else []
        arguments += [option for option in self.options if option.startswith("-")]
        for slot, path in paths.items():
            if slot.isupper():
                arguments.append(path)
            else:
                arguments.append(f"{slot}={path}" if slot.startswith("--") else f"--gin.{slot}={path!r}")
        return arguments + ([f"--output={output}"] if self.output else [])


RUN_MARKER = {"--input": "model/COMMITTED.json"}
INVOCATIONS = (
    Invocation("robots-snapshot", {"--input": "overlay/robots"}, "robots", gin_file="chain.gin"),
    Invocation("remove", {"--input": "overlay/removal_requests.jsonl"}, "tombstones"),
    Invocation("train-classifier", {"--input": "overlay/labelled_toxicity.jsonl"}, "toxicity", gin_file="chain.gin"),
    Invocation(
        "prepare",
        {
            "overlay/Source.path": "overlay/documents",
            "RobotsScoring.snapshot": "robots",
            "RemovalScoring.tombstones": "tombstones",
            "ClassifierScoring.toxicity": "toxicity",
        },
        "prepared",
        gin_file="chain.gin",
    ),
    Invocation("why", {"--input": "prepared"}, options=("part-0.jsonl:1",)),
    Invocation("data-summary", {"--input": "prepared"}, "data_summary"),
    Invocation(
        "plant-probes",
        {"--input": "long.jsonl"},
        "probes",
        ("--gin.plant.per_bucket=1", "--gin.plant.characters=200", "--gin.plant.buckets=['0', 1]"),
    ),
    Invocation(
        "plant-canaries",
        {"plant_canaries.secret_file": "secret.txt"},
        "canaries",
        (
            "--gin.plant_canaries.plan=@CanaryPlan()",
            "--gin.CanaryPlan.kinds=['characters','record']",
        ),
    ),
    Invocation(
        "tokenize",
        {"--input": "prepared", "tokenize.planted": "probes"},
        "store",
        ("--gin.tokenize.vocab_size=384", "--gin.tokenize.held_out_fraction=0.1", "--gin.tokenize.progress=False"),
    ),
    Invocation("pretrain", {"--input": "store"}, "train", gin_file="model.gin"),
    Invocation("sweep", {"--input": "store"}, "sweep", ("--vary=TrainingConfig.seed=1,2",), gin_file="model.gin"),
    Invocation("compare", {"RUNS": "train"}, "comparison", markers={"RUNS": "run.json"}),
    Invocation("plan", {}, "plan", options=("--gin.plan.devices=4",), gin_file="model.gin"),
    Invocation("provenance", {"--input": "train"}, "provenance", options=("1",), markers={"--input": "run.json"}),
    Invocation(
        "evaluate",
        {"--input": "train", "evaluate.store": "store"},
        "evaluation",
        ("--gin.evaluate.sequence_length=32",),
        RUN_MARKER,
    ),
    Invocation("languages", {"--input": "train", "languages.store": "store"}, "languages", markers=RUN_MARKER),
    Invocation(
        "memorization",
        {"--input": "train", "memorization.probes": "probes"},
        "audit",
        (
            "--gin.AuditGrid.prefix=16",
            "--gin.AuditGrid.prefixes=[16]",
            "--gin.AuditGrid.offsets=[0]",
            "--gin.AuditGrid.suffix=16",
        ),
        RUN_MARKER,
    ),
    Invocation(
        "generate",
        {"--input": "train"},
        "samples",
        ("--prompt=sun", "--gin.generate.max_new_tokens=4"),
        RUN_MARKER,
    ),
    Invocation("export", {"--input": "train"}, "huggingface", markers=RUN_MARKER),
    Invocation("import", {"--input": "huggingface"}, "imported", markers={"--input": "config.json"}),
    Invocation("tombstoned", {"--input": "store", "tombstoned.tombstones": "tombstones"}, "tombstoned"),
    Invocation(
        "output-filter",
        {"--input": "listed.jsonl", "build_output_filter.signing_key": "key.pem"},
        "filter",
        ("--gin.build_output_filter.date='2026-11-24'", "--gin.FilterRates.scrypt_n=1024"),
    ),
    Invocation("run", {}, "chain", gin_file="whole.gin"),
    Invocation("reproduce", {"--input": "chain"}, "again", markers={"--input": "store/COMMITTED.json"}),
    Invocation("verify", {"FOLDER": "store"}),
    Invocation("doctor"),
    Invocation("help", options=("wsd_schedule",)),
)
# Files of which every content is right: any line of text is a secret.
OPAQUE = ("secret.txt",)
BY_COMMAND = {invocation.command: invocation for invocation in INVOCATIONS}


def write_materials(root: Path) -> None:
    """Writes what no command makes: gin files, texts, a list for the output filter, and a signing key."""
    (root / "chain.gin").write_text(CHAIN)
    (root / "model.gin").write_text(MODEL)
    (root / "whole.gin").write_text(WHOLE)
    words = [f"{first}{second}" for first in ("ba", "do", "ki", "mu") for second in ("lan", "rin", "tos", "vek")]
    texts = [" ".join(words[(number * k) % 16] for k in range(1, 80)) + f" {number}." for number in range(40)]
    lines = [json.dumps({"id": f"text-{number}", "text": text}) for number, text in enumerate(texts)]
    (root / "text.jsonl").write_text("\n".join(lines) + "\n")
    (root / "long.jsonl").write_text("\n".join(lines) + "\n")
    listed = [{"kind": "passage", "text": texts[0]}]
    (root / "listed.jsonl").write_text("\n".join(json.dumps(row) for row in listed) + "\n")
    (root / "secret.txt").write_text("0123456789abcdef01234567\n")
    key = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(root / "key.pem")]
    subprocess.run(key, check=True, capture_output=True)


def call(arguments: list[str], encoding: str = "utf-8") -> tuple[int, str, str]:
    """Runs one command line in this process → exit status, standard output, standard error.

    The streams are those of a terminal or pipe of that encoding, which refuses what it cannot show.
    """
    output, complaints = (io.TextIOWrapper(io.BytesIO(), encoding, write_through=True) for _ in range(2))
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(complaints):
        try:
            status = cli.main(arguments)
        finally:
            gin.clear_config()
    return status, *(stream.buffer.getvalue().decode(encoding) for stream in (output, complaints))


@dataclasses.dataclass(frozen=True)
class GoodCall:
    """What a good call of a command gave: exit status, and its three streams of lines."""

    command: str
    status: int
    shown: str
    complaints: str
    logged: str

    @property
    def last_lines(self) -> list[str]:
        """The last line of each stream; in a terminal of one's own, one of them is the last of all."""
        return [text.splitlines()[-1] for text in (self.shown, self.complaints, self.logged) if text]


def good_calls() -> Iterator[GoodCall]:
    """Makes every artefact of the workspace in the current folder, and yields each call."""
    for invocation in INVOCATIONS:
        logs = logging.StreamHandler(io.StringIO())
        logs.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        root = logging.getLogger()
        level = root.level
        root.addHandler(logs)
        root.setLevel(logging.INFO)  # as in a terminal of one's own
        try:
            given = call(invocation.arguments(dict(invocation.inputs), invocation.output))
        finally:
            root.removeHandler(logs)
            root.setLevel(level)
        yield GoodCall(invocation.command, *given, logs.stream.getvalue())
