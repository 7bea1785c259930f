"""Table of commands: function, plain flags, example."""

from __future__ import annotations

import argparse
import dataclasses


@dataclasses.dataclass(frozen=True)
class Command:
    """One command: where its function lives and which parameters the plain flags stand for."""

    location: str
    summary: str
    example: str
    flags: dict[str, str] = dataclasses.field(default_factory=dict)  # flag → a parameter of it, or NAME.PARAMETER
    uses_jax: bool = True
    computes: bool = False  # --device and --devices choose what it computes on
    standalone: bool = False  # runs where nothing but the standard library is installed
    records_itself: bool = False  # it keeps the configuration of its output folder in a way of its own
    records_imports: bool = False  # though it records itself, which modules made its output is kept beside it
    recorded_in: str = ""  # the parameter that names a folder whose recorded configuration holds
    borrows: str = ""  # the command whose bindings hold for this one too
    positional: str = ""  # the parameter that a bare argument sets
    positional_many: bool = False  # there may be several of them
    variants: dict[str, Command] = dataclasses.field(default_factory=dict)  # flag → what runs when it is given

    @property
    def made_with_modules(self) -> list[str]:
        """The parameters that name a run, whose modules have to be given again."""
        return [parameter for parameter in self.flags.values() if parameter in ("run", "model", "original")]

    @property
    def function(self) -> str:
        """The name by which gin knows it."""
        return self.location.partition(":")[2]

    def every_flag(self) -> list[str]:
        """Returns its flags and those that choose a variant."""
        chosen = [flag for flag in self.variants if flag not in self.flags]
        return [*self.flags, *chosen, *(MACHINE_FLAGS if self.computes else ())]

    def binding_of(self, flag: str) -> str:
        """Returns the gin name that a flag stands for."""
        parameter = self.flags[flag]
        return parameter if "." in parameter else f"{self.function}.{parameter}"

    def chosen(self, options: argparse.Namespace) -> Command:
        """Returns the variant that the given flags ask for, or the command itself."""
        return next((self.variants[flag] for flag in self.variants if getattr(options, flag) is not None), self)


MACHINE_FLAGS = {
    "device": "compute on cpu, gpu or tpu; without it jax chooses",
    "devices": "compute on so many devices: CPUs are simulated, of GPUs the first are taken",
}
COMMANDS = {
    "run": Command(
        "apertus_jax.pipeline:run",
        "the whole chain of one gin file, skipping what is complete",
        "apertus run --gin_file=quickstart.gin --output=runs/quickstart",
        {"output": "output"},
        computes=True,
        records_itself=True,
    ),
    "reproduce": Command(
        "apertus_jax.pipeline:reproduce",
        "the chain of an earlier run again, every file compared",
        "apertus reproduce --input=runs/quickstart --output=runs/quickstart_again",
        {"input": "original", "output": "output"},
        computes=True,
        records_itself=True,
        recorded_in="original",
        borrows="run",
    ),
    "prepare": Command(
        "apertus_jax.corpus.prepare:prepare",
        "documents to permitted documents, with a ledger of why each one stayed or went",
        "apertus prepare --gin_file=policies/strict.gin --input=my.jsonl --output=runs/mine/prepared "
        "--gin.RobotsScoring.snapshot=runs/robots --tombstones=runs/mine/tombstones "
        "--gin.Policy.not_asked=\"['contamination']\"",
        {
            "input": "documents",
            "output": "output",
            "tombstones": "RemovalScoring.tombstones",
            "date": "as_of",
            "stage": "stage",
            "task": "task",
        },
        uses_jax=False,
        records_itself=True,
        records_imports=True,
    ),
    "why": Command(
        "apertus_jax.corpus.ledger:why",
        "the story of one document: every verdict, every score, the rule that decided",
        "apertus why https://example.org/page --input=runs/mine/prepared",
        {"input": "prepared", "full": "full", "json": "json"},
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
        "apertus robots-snapshot --input=robots_warcs --output=runs/robots --date=2025-01-31",
        {"input": "input", "output": "output", "date": "as_of"},
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
        "apertus_jax.data.probes.plant_probes_command:plant",
        "passages of documents to probes that a run is shown an exact number of times",
        "apertus plant-probes --input=unseen.jsonl --output=runs/mine/probes --gin.plant.per_bucket=8",
        {"input": "texts", "output": "output"},
        uses_jax=False,
    ),
    "plant-canaries": Command(
        "apertus_jax.evaluation.memorization.canaries.plant_canaries_command:plant_canaries",
        "random secrets to plant in the training text, with a commitment to publish before the run",
        "apertus plant-canaries --output=runs/mine/canaries --gin.plant_canaries.plan=@CanaryPlan() "
        "--gin.CanaryPlan.kinds=\"['characters','record']\" --gin.plant_canaries.secret_file=\"'$HOME/canary_secret'\"",
        {"output": "output"},
        uses_jax=False,
    ),
    "tokenize": Command(
        "apertus_jax.data:tokenize",
        "documents (JSONL, Parquet, or the bundled texts) to a token store",
        "apertus tokenize --input=my.jsonl --output=runs/mine/store --gin.tokenize.vocab_size=8192",
        {"input": "documents", "output": "output", "probes": "planted"},
        uses_jax=False,
    ),
    "tombstoned": Command(
        "apertus_jax.data.provenance.tombstoned_command:tombstoned",
        "the texts of an older token store that removal requests name, and where they lie (personal data)",
        "apertus tombstoned --store=runs/mine/store --output=runs/mine/tombstoned --tombstones=runs/mine/tombstones",
        {"input": "store", "store": "store", "output": "output", "tombstones": "tombstones", "date": "today"},
        uses_jax=False,
    ),
    "pretrain": Command(
        "apertus_jax.training:pretrain",
        "train a model on a token store; resumes where it stopped",
        "apertus pretrain --gin_file=my.gin --store=runs/mine/store --output=runs/mine/train --steps=1000",
        {
            "input": "store",
            "store": "store",
            "output": "output",
            "steps": "RunSchedule.total_steps",
            "tombstones": "RemovalOptions.tombstones",
            "date": "RemovalOptions.date",
            "name": "TrainingConfig.name",
            "init_from": "TrainingConfig.init_from",
            "init_step": "TrainingConfig.init_step",
            "init_optimizer": "TrainingConfig.init_optimizer",
        },
        computes=True,
        records_itself=True,
    ),
    "sweep": Command(
        "apertus_jax.sweeps:sweep",
        "train a run for every combination of some values; resumes where it stopped",
        "apertus sweep --gin_file=my.gin --vary=goldfish.k=10,50 --vary=TrainingConfig.seed=1,2 "
        "--store=runs/mine/store --output=runs/mine/sweep --steps=100",
        {
            "input": "store",
            "store": "store",
            "output": "output",
            "steps": "total_steps",
            "tombstones": "tombstones",
            "date": "tombstones_date",
            "vary": "vary",
            "task": "task",
            "list": "list_commands",
        },
        computes=True,
        records_itself=True,
    ),
    "compare": Command(
        "apertus_jax.sweeps:compare",
        "runs side by side: curves, differences of configuration, figures with intervals over seeds",
        "apertus compare runs/mine/sweep --output=runs/mine/comparison",
        {"output": "output", "metric": "metric", "baseline": "baseline", "best_of": "best_of"},
        uses_jax=False,
        positional="runs",
        positional_many=True,
    ),
    "plan": Command(
        "apertus_jax.training.planning.plan_command:plan",
        "what a run takes: memory of one device, FLOPs, time and disk, without the hardware",
        "apertus plan --gin_file=apertus_8b.gin --devices=1024 --device=gh200",
        {
            "output": "output",
            "steps": "RunSchedule.total_steps",
            "device": "device",
            "devices": "devices",
            "topology": "topology",
            "json": "json",
        },
        borrows="pretrain",
    ),
    "provenance": Command(
        "apertus_jax.data.provenance.provenance_command:provenance",
        "which documents a step was trained on, and which steps were trained on a document",
        "apertus provenance 120 --input=runs/quickstart/train --gin.provenance.show_text=True",
        {
            "input": "run",
            "output": "output",
            "store": "store",
            "steps": "steps",
            "tombstones": "tombstones",
            "date": "today",
            "json": "json",
        },
        uses_jax=False,
        positional="question",
    ),
    "evaluate": Command(
        "apertus_jax.evaluation:evaluate",
        "held-out loss per script, with intervals, against the unigram baseline",
        "apertus evaluate --input=runs/mine/train --store=runs/mine/store --output=runs/mine/evaluation",
        {"input": "run", "store": "store", "output": "output", "step": "step"},
        computes=True,
        variants={
            "tasks": Command(
                "apertus_jax.evaluation.harness:evaluate_tasks",
                "tasks of lm-evaluation-harness",
                "apertus evaluate --tasks=apertus_demo --input=runs/mine/train --output=runs/mine/tasks",
                {"input": "run", "output": "output", "step": "step", "tasks": "tasks"},
                computes=True,
            )
        },
    ),
    "languages": Command(
        "apertus_jax.evaluation.languages:languages",
        "bits per byte, fertility and parity of every language, against its share of training tokens",
        "apertus languages --input=runs/mine/train --store=runs/mine/store --output=runs/mine/languages",
        {"input": "run", "store": "store", "output": "output", "step": "step"},
        computes=True,
    ),
    "memorization": Command(
        "apertus_jax.evaluation.memorization.memorization_command:memorization",
        "how much of planted probes a model gives back, word for word or nearly so",
        "apertus memorization --input=runs/mine/train --probes=runs/mine/probes --output=runs/mine/audit",
        {"input": "run", "probes": "probes", "store": "store", "output": "output", "step": "step"},
        computes=True,
    ),
    "generate": Command(
        "apertus_jax.inference:generate",
        "continue prompts with a trained model",
        'apertus generate --input=runs/mine/train --output=runs/mine/samples --prompt="Once upon a time"',
        {"input": "model", "output": "output", "step": "step", "prompt": "prompts"},
        computes=True,
    ),
    "export": Command(
        "apertus_jax.release:export",
        "write a repository that Hugging Face transformers loads",
        "apertus export --input=runs/mine/train --output=runs/mine/huggingface",
        {"input": "model", "output": "output", "step": "step"},
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
        variants={
            "template": Command(
                "apertus_jax.release.data_summary:data_summary_template",
                "a gin file to fill in, with every source of a prepared corpus",
                "apertus data-summary --template=runs/mine/data_summary.gin --input=runs/mine/prepared",
                {"input": "prepared", "template": "template"},
                uses_jax=False,
            )
        },
    ),
    "output-filter": Command(
        "apertus_jax.release.output_filter:build_output_filter",
        "passages and names that must not be put out to a signed file of digests, for generate.output_filter",
        "apertus output-filter --input=listed.jsonl --output=runs/filter "
        "--gin.build_output_filter.signing_key=filter_key.pem --date=2026-11-24",
        {"input": "listed", "output": "output", "date": "date"},
        uses_jax=False,
    ),
    "verify": Command(
        "apertus_jax.pipeline.verify_command:verify",
        "every byte of a folder against its digest, every value against what its readers assume",
        "apertus verify runs/quickstart",
        {"json": "json"},
        positional="folder",
    ),
    "help": Command(
        "apertus_jax.help_command:help_of_name",
        "any name that gin files may bind: what it is, its parameters, types and defaults",
        "apertus help wsd_schedule",
        positional="name",
    ),
    "doctor": Command(
        "apertus_jax.doctor_command:doctor",
        "what this machine can run",
        "apertus doctor",
        {"json": "json"},
        computes=True,
        standalone=True,
    ),
}
PLAIN_FLAGS = {
    "input": "what the command reads",
    "output": "the folder it writes",
    "store": "token store, the folder that `tokenize` wrote",
    "probes": "folder that `plant-probes` or `plant-canaries` wrote",
    "tombstones": "folder that `remove` wrote",
    "date": "the day that counts, YYYY-MM-DD",
    "device": "the accelerator to plan for, such as h100 or tpu_v5p",
    "devices": "how many of them to plan for",
    "topology": "the TPUs to plan and compile for, such as v5p:8x8x8 or v6e:16x16:2 (two slices); takes libtpu, no TPU",
    "steps": "training steps in all",
    "step": "this committed step of the run, which may still be training; else the model of a finished run",
    "stage": "only this stage: plan, score, aggregate, decide, select, apply or finish",
    "task": "only this share of the work, INDEX/COUNT counted from 0",
    "name": "what the run is called in reports and comparisons; else the name of its folder",
    "init_from": "weights to start from: a model folder, a Hugging Face Apertus folder, or a run (its last step)",
    "init_step": "this committed step of the run in --init_from",
    "init_optimizer": "go on with its optimizer, step count and order of samples; else its weights alone are taken",
    "vary": "what varies, NAME=VALUE,VALUE (repeatable; NAME=V1,V2; OTHER=W1,W2 vary together)",
    "list": "print the command of each run that is not finished, and run nothing",
    "metric": "what arms are ranked by, such as held_out/loss; less is better",
    "baseline": "the arm that the others are measured against; else the first",
    "best_of": "a binding that was tuned: only its best value is compared (repeatable)",
    "tasks": "names of evaluation tasks, with commas between them",
    "template": "a gin file to write instead, with a place for all that only the provider of the corpus knows",
    "prompt": "text to continue (repeatable)",
    "full": "show everything, not only what decided",
    "json": "print one JSON object for scripts, and nothing else",
}


def locations() -> list[str]:
    """Returns where the functions of all commands and their variants live."""
    commands = [each for command in COMMANDS.values() for each in (command, *command.variants.values())]
    return [command.location for command in commands]
