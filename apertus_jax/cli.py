"""The table of commands, and how a command line becomes a call: gin files, bindings, plain flags."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from apertus_jax import __version__
from apertus_jax.errors import UserError
from apertus_jax.freed_memory import ARROW_ALLOCATOR

BAD_INPUT_STATUS = 2
INTERRUPTED_STATUS = 130
FAKE_DEVICES_FLAG = "--xla_force_host_platform_device_count"
PROGRAM_ORDER_FLAG = "--xla_cpu_enable_concurrency_optimized_scheduler"
COMPILATION_CACHE = os.path.join(os.path.expanduser("~"), ".cache", "apertus_jax", "compiled")


@dataclasses.dataclass(frozen=True)
class Command:
    """One command: where its function lives and which parameters the plain flags stand for."""

    location: str
    summary: str
    example: str
    flags: dict[str, str] = dataclasses.field(default_factory=dict)
    uses_jax: bool = True
    records_itself: bool = False  # it keeps the configuration of its output folder in a way of its own
    recorded_in: str = ""  # the parameter that names a folder whose recorded configuration holds
    borrows: str = ""  # the command whose bindings hold for this one too
    positional: str = ""  # the parameter that a bare argument sets
    variants: dict[str, Command] = dataclasses.field(default_factory=dict)  # flag → what runs when it is given

    @property
    def function(self) -> str:
        """The name by which gin knows it."""
        return self.location.partition(":")[2]

    def every_flag(self) -> list[str]:
        """Returns its flags and those that choose a variant."""
        return [*self.flags, *(flag for flag in self.variants if flag not in self.flags)]

    def chosen(self, options: argparse.Namespace) -> Command:
        """Returns the variant that the given flags ask for, or the command itself."""
        return next((self.variants[flag] for flag in self.variants if getattr(options, flag) is not None), self)


COMMANDS = {
    "run": Command(
        "apertus_jax.pipeline:run",
        "the whole chain of one gin file, skipping what is complete",
        "apertus run --gin_file=quickstart.gin --output=runs/quickstart",
        {"output": "output"},
        records_itself=True,
    ),
    "reproduce": Command(
        "apertus_jax.pipeline:reproduce",
        "the chain of an earlier run again, every file compared",
        "apertus reproduce --input=runs/quickstart --output=runs/quickstart_again",
        {"input": "original", "output": "output"},
        records_itself=True,
        recorded_in="original",
        borrows="run",
    ),
    "prepare": Command(
        "apertus_jax.corpus.prepare:prepare",
        "documents to permitted documents, with a ledger of why each one stayed or went",
        "apertus prepare --gin_file=policies/strict.gin --input=my.jsonl --output=runs/mine/prepared",
        {"input": "documents", "output": "output", "stage": "stage", "task": "task"},
        uses_jax=False,
        records_itself=True,
    ),
    "why": Command(
        "apertus_jax.corpus.ledger:why",
        "the story of one document: every verdict, every score, the rule that decided",
        "apertus why https://example.org/page --input=runs/mine/prepared",
        {"input": "prepared"},
        uses_jax=False,
        positional="document",
    ),
    "remove": Command(
        "apertus_jax.corpus.removal:remove",
        "removal requests to tombstones, which every later build applies",
        "apertus remove --input=requests.jsonl --output=runs/mine/tombstones",
        {"input": "input", "output": "output"},
        uses_jax=False,
    ),
    "robots-snapshot": Command(
        "apertus_jax.corpus.robots_snapshot:build_robots_snapshot",
        "robots.txt captures (WARC files or a folder) to the table of what held on a day",
        "apertus robots-snapshot --input=robots_warcs --output=runs/robots "
        "--gin.build_robots_snapshot.as_of=\"'2025-01-31'\"",
        {"input": "input", "output": "output"},
        uses_jax=False,
    ),
    "train-classifier": Command(
        "apertus_jax.corpus.classifiers:train_classifier",
        "labelled texts to a quality or toxicity head",
        "apertus train-classifier --input=labelled.jsonl --output=runs/mine/toxicity",
        {"input": "input", "output": "output"},
        uses_jax=False,
    ),
    "plant-probes": Command(
        "apertus_jax.data.plant_command:plant",
        "passages of documents to probes that a run is shown an exact number of times",
        "apertus plant-probes --input=unseen.jsonl --output=runs/mine/probes --gin.plant.per_bucket=8",
        {"input": "texts", "output": "output"},
        uses_jax=False,
    ),
    "plant-canaries": Command(
        "apertus_jax.evaluation.memorization.canaries:plant_canaries",
        "random secrets to plant in the training text, with a commitment to publish before the run",
        "apertus plant-canaries --output=runs/mine/canaries --gin.plant_canaries.plan=@CanaryPlan() "
        "--gin.CanaryPlan.kinds=\"['characters','record']\" --gin.plant_canaries.secret=\"'$SECRET'\"",
        {"output": "output"},
        uses_jax=False,
    ),
    "tokenize": Command(
        "apertus_jax.data:tokenize",
        "documents (JSONL, Parquet, or the bundled texts) to a token store",
        "apertus tokenize --input=my.jsonl --output=runs/mine/store --gin.tokenize.vocab_size=8192",
        {"input": "documents", "output": "output"},
        uses_jax=False,
    ),
    "tombstoned": Command(
        "apertus_jax.data.tombstoned_command:tombstoned",
        "the texts of an older token store that removal requests name, and where they lie (personal data)",
        "apertus tombstoned --input=runs/mine/store --output=runs/mine/tombstoned "
        "--gin.tombstoned.tombstones=\"'runs/mine/tombstones'\"",
        {"input": "store", "output": "output"},
        uses_jax=False,
    ),
    "pretrain": Command(
        "apertus_jax.training:pretrain",
        "train a model on a token store; resumes where it stopped",
        "apertus pretrain --gin_file=my.gin --input=runs/mine/store --output=runs/mine/train --steps=1000",
        {"input": "store", "output": "output", "steps": "total_steps"},
        records_itself=True,
    ),
    "plan": Command(
        "apertus_jax.training.plan_command:plan",
        "what a run takes: memory of one device, FLOPs, time and disk, without the hardware",
        "apertus plan --gin_file=apertus_8b.gin --gin.plan.devices=1024 --gin.plan.device=\"'gh200'\"",
        {"output": "output", "steps": "total_steps"},
        borrows="pretrain",
    ),
    "provenance": Command(
        "apertus_jax.data.provenance_command:provenance",
        "which documents a step was trained on, and which steps were trained on a document",
        "apertus provenance 120 --input=runs/quickstart/train --gin.provenance.show_text=True",
        {"input": "run", "output": "output", "steps": "steps"},
        uses_jax=False,
        positional="question",
    ),
    "evaluate": Command(
        "apertus_jax.evaluation:evaluate",
        "held-out loss per script, with intervals, against the unigram baseline",
        "apertus evaluate --input=runs/mine/train --output=runs/mine/evaluation "
        "--gin.evaluate.store=\"'runs/mine/store'\"",
        {"input": "run", "output": "output"},
        variants={
            "tasks": Command(
                "apertus_jax.evaluation.harness:evaluate_tasks",
                "tasks of lm-evaluation-harness",
                "apertus evaluate --tasks=apertus_demo --input=runs/mine/train --output=runs/mine/tasks",
                {"input": "run", "output": "output", "tasks": "tasks"},
            )
        },
    ),
    "languages": Command(
        "apertus_jax.evaluation.languages:languages",
        "bits per byte, fertility and parity of every language, against its share of training tokens",
        "apertus languages --input=runs/mine/train --output=runs/mine/languages "
        "--gin.languages.store=\"'runs/mine/store'\"",
        {"input": "run", "output": "output"},
    ),
    "memorization": Command(
        "apertus_jax.evaluation.memorization.audit:memorization",
        "how much of planted probes a model gives back, word for word or nearly so",
        "apertus memorization --input=runs/mine/train --output=runs/mine/audit "
        "--gin.memorization.probes=\"'runs/mine/probes'\"",
        {"input": "run", "output": "output"},
    ),
    "generate": Command(
        "apertus_jax.inference:generate",
        "continue prompts with a trained model",
        'apertus generate --input=runs/mine/train --output=runs/mine/samples --prompt="Once upon a time"',
        {"input": "model", "output": "output", "prompt": "prompts"},
    ),
    "export": Command(
        "apertus_jax.release:export",
        "write a repository that Hugging Face transformers loads",
        "apertus export --input=runs/mine/train --output=runs/mine/huggingface",
        {"input": "model", "output": "output"},
    ),
    "import": Command(
        "apertus_jax.release:import_huggingface",
        "read a Hugging Face Apertus repository into a model folder",
        "apertus import --input=Apertus-8B --output=runs/apertus_8b",
        {"input": "repository", "output": "output"},
    ),
    "data-summary": Command(
        "apertus_jax.release.data_summary:data_summary",
        "a prepared corpus to the EU public summary of training content, a datasheet and a Croissant description",
        "apertus data-summary --gin_file=release/data_summary.gin --input=runs/quickstart/prepared "
        "--output=runs/quickstart/data_summary",
        {"input": "prepared", "output": "output"},
        uses_jax=False,
    ),
    "output-filter": Command(
        "apertus_jax.release.output_filter:build_output_filter",
        "passages and names that must not be put out to a signed file of digests, for generate.output_filter",
        "apertus output-filter --input=listed.jsonl --output=runs/filter "
        "--gin.build_output_filter.signing_key=\"'filter_key.pem'\" --gin.build_output_filter.date=\"'2026-11-24'\"",
        {"input": "listed", "output": "output"},
        uses_jax=False,
    ),
    "doctor": Command("apertus_jax.doctor:doctor", "what this machine can run", "apertus doctor"),
}
PLAIN_FLAGS = {
    "input": "what the command reads",
    "output": "the folder it writes",
    "steps": "training steps in all",
    "stage": "only this stage: plan, score, aggregate, decide, select, apply or finish",
    "task": "only this share of the work, INDEX/COUNT counted from 0",
    "tasks": "names of evaluation tasks, with commas between them",
    "prompt": "text to continue (repeatable)",
}


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, as those of the commands are."""

    def error(self, message: str) -> NoReturn:
        """Raises UserError in place of printing the usage."""
        raise UserError(f"{message}; see {self.prog} --help")


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the whole command line."""
    parser = _Parser(
        prog="apertus",
        description="Pretrain Apertus language models in JAX.",
        epilog="Start with: apertus run --gin_file=gin_configs/quickstart.gin",
    )
    parser.add_argument("--version", action="version", version=f"apertus_jax {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=command.summary,
            description=f"{name}: {command.summary}.",
            epilog=f"Example:\n  {command.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        sub.add_argument("--gin_file", action="append", default=[], metavar="FILE", help="gin file (repeatable)")
        sub.add_argument(
            "--gin.NAME=VALUE",
            dest="unused",
            action="store_true",
            help="bind one gin name, for example --gin.SEED=1 (repeatable)",
        )
        if command.positional:
            sub.add_argument(command.positional, help=f"sets {command.function}.{command.positional}")
        for flag in command.every_flag():
            details = {"prompt": {"action": "append"}, "steps": {"type": int}}.get(flag, {})
            sub.add_argument(f"--{flag}", help=PLAIN_FLAGS[flag], **details)
    return parser


def split_gin_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates `--gin.NAME=VALUE` (returned as gin lines) from the other arguments.

    Raises:
      UserError: a gin flag has no `=VALUE`.
    """
    others, bindings = [], []
    for argument in arguments:
        if argument.startswith("--gin."):
            name, _, value = argument.removeprefix("--gin.").partition("=")
            if not value.strip():
                raise UserError(f"{argument} has no value; write --gin.{name}=VALUE")
            bindings.append(f"{name} = {value}")
        else:
            others.append(argument)
    return others, bindings


def plain_values(command: Command, options: argparse.Namespace) -> dict[str, Any]:
    """Returns the parameters that the plain flags set."""
    values = {}
    for flag, parameter in command.flags.items():
        value = getattr(options, flag)
        if value is not None:
            values[parameter] = value
    if command.positional:
        values[command.positional] = getattr(options, command.positional)
    return values


def prepare_jax() -> None:
    """Keeps compiled programs between runs, unless the environment chose a place already.

    Fake CPU devices also get the scheduler that runs collectives in program order: with XLA:CPU's default one, meshes
    of several axes can wait for each other for ever.
    """
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", COMPILATION_CACHE)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    flags = os.environ.get("XLA_FLAGS", "")
    if FAKE_DEVICES_FLAG in flags and PROGRAM_ORDER_FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {PROGRAM_ORDER_FLAG}=false"


def prepare_arrow() -> None:
    """Lets Arrow take memory from the C library, which gives it back, unless the environment chose otherwise."""
    for name, value in ARROW_ALLOCATOR.items():
        os.environ.setdefault(name, value)


def call(command: Command, gin_files: Sequence[str], bindings: Sequence[str], values: dict[str, Any]) -> Any:
    """Parses the configuration and calls one command with it."""
    if command.uses_jax:
        prepare_jax()
    prepare_arrow()
    import gin  # after the environment is set: registering imports jax

    from apertus_jax import configuration

    configuration.register(locations())
    if command.recorded_in and values.get(command.recorded_in):
        gin_files = [os.path.join(values[command.recorded_in], configuration.OPERATIVE_CONFIG), *gin_files]
    configuration.parse(gin_files, bindings)
    if command.borrows:
        configuration.borrow(command.borrows, command.function)
    with gin.unlock_config():
        for parameter, value in values.items():
            gin.bind_parameter(f"{command.function}.{parameter}", value)
    result = gin.get_configurable(command.function)()
    if "output" in command.flags and not command.records_itself:
        configuration.record_bindings(command.function)
    return result


def locations() -> list[str]:
    """Returns where the functions of all commands and their variants live."""
    commands = [each for command in COMMANDS.values() for each in (command, *command.variants.values())]
    return [command.location for command in commands]


def one_line(error: UserError) -> str:
    """Returns the message on one line, without the trail of calls that gin appends to it and what a terminal obeys."""
    from apertus_jax.printable import printable

    return printable(" ".join(str(error).partition("\n  In call to configurable")[0].split()))


def _silence_late_storage_callbacks() -> None:
    """After a save that failed, storage threads still report to Orbax's closed event loop, each with a traceback.

    The failure itself is told in one line. Every other error that cannot be raised is reported as before.
    """
    previous = sys.unraisablehook
    if getattr(previous, "drops_late_storage_callbacks", False):
        return

    def report(unraisable: Any) -> None:
        if not (isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == "Event loop is closed"):
            previous(unraisable)

    report.drops_late_storage_callbacks = True
    sys.unraisablehook = report


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status: 0, or 2 with one line on bad input."""
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    logging.getLogger("absl").setLevel(logging.WARNING)
    logging.getLogger("jax").setLevel(logging.WARNING)
    _silence_late_storage_callbacks()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        close = difflib.get_close_matches(arguments[0], COMMANDS, n=3) or list(COMMANDS)
        print(f"apertus: there is no command {arguments[0]!r}; did you mean {', '.join(close)}?", file=sys.stderr)
        return BAD_INPUT_STATUS
    try:
        others, bindings = split_gin_flags(arguments)
        options = build_parser().parse_args(others)
        command = COMMANDS[options.command].chosen(options)
        call(command, options.gin_file, bindings, plain_values(command, options))
    except UserError as error:
        print(f"apertus: {one_line(error)}", file=sys.stderr)
        return BAD_INPUT_STATUS
    except KeyboardInterrupt:
        print("apertus: interrupted", file=sys.stderr)
        return INTERRUPTED_STATUS
    return 0
