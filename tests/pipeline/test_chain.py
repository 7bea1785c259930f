"""The chain of commands: run once, then again."""

import json
import subprocess
import sys
from pathlib import Path

from apertus_jax.cli import main
from tests.tiny_experiment import write_documents

ROOT = Path(__file__).parent.parent.parent


def modification_times(folder):
    """Returns when each file was last written, the operative configuration aside."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in ("operative_config.gin",))
    return {path: path.stat().st_mtime_ns for path in files if "LEASE" not in path.name}


def test_every_stage_leaves_its_folder(gin_file):
    chain = gin_file.parent / "chain"
    assert {path.name for path in chain.iterdir() if path.is_dir()} == {
        "store",
        "train",
        "evaluation",
        "huggingface",
        "samples",
    }
    assert json.loads((chain / "evaluation" / "results.json").read_text())["pooled"]["documents"] > 0
    assert "RunSchedule.total_steps = 4" in (chain / "operative_config.gin").read_text()


def test_a_second_run_writes_nothing(gin_file):
    chain = gin_file.parent / "chain"
    before = modification_times(chain)
    assert main(["run", f"--gin_file={gin_file}"]) == 0
    assert modification_times(chain) == before


def test_an_audited_run_is_one_chain(gin_file):
    root = gin_file.parent
    write_documents(root / "unseen.jsonl", 60, seed=99)
    bindings = {
        "run.output": f"'{root / 'audited'}'",
        "run.stages": "['plant-probes', 'tokenize', 'pretrain', 'languages', 'memorization']",
        "plant.texts": f"'{root / 'unseen.jsonl'}'",
        "plant.buckets": "[0, 1, 4]",
        "plant.per_bucket": "2",
        "plant.characters": "60",
        "AuditGrid.prefix": "4",
        "AuditGrid.prefixes": "[4]",
        "AuditGrid.offsets": "[0]",
        "AuditGrid.suffix": "8",
    }
    assert main(["run", f"--gin_file={gin_file}", *(f"--gin.{name}={value}" for name, value in bindings.items())]) == 0
    results = json.loads((root / "audited" / "memorization" / "results.json").read_text())
    assert results["verdict"] and (root / "audited" / "memorization" / "report.html").exists()
    store = json.loads((root / "audited" / "store" / "COMMITTED.json").read_text())
    assert store["summary"]["sources"]["probes"]["documents"] == 2 * (1 + 4)
    # Its last step, read from the checkpoint, has the same figures.
    grid = [f"--gin.{name}={value}" for name, value in bindings.items() if name.startswith("AuditGrid")]
    train, probes = root / "audited" / "train", root / "audited" / "probes"
    arguments = [f"--input={train}", "--step=4", f"--output={root / 'step'}", f"--gin.memorization.probes='{probes}'"]
    arguments.append(f"--gin.memorization.store='{root / 'audited' / 'store'}'")
    assert main(["memorization", *arguments, *grid]) == 0
    again = json.loads((root / "step" / "results.json").read_text())
    assert again["run"] == "train, step 4" and {**again, "run": "train"} == results


def test_a_corpus_and_its_summary_are_one_chain(gin_file):
    root = gin_file.parent
    bindings = {
        "run.output": f"'{root / 'summarised'}'",
        "run.stages": "['prepare', 'data-summary', 'tokenize']",
        "prepare.documents": f"'{root / 'documents.jsonl'}'",
        "prepare.policy": "@Policy()",
        "Policy.name": "'everything'",
        "data_summary.provider": "@Provider()",
        "Provider.name": "'A Provider'",
    }
    assert main(["run", f"--gin_file={gin_file}", *(f"--gin.{name}={value}" for name, value in bindings.items())]) == 0
    summary = json.loads((root / "summarised" / "data_summary" / "COMMITTED.json").read_text())["summary"]
    prepared = json.loads((root / "summarised" / "prepared" / "COMMITTED.json").read_text())["summary"]
    assert prepared["kept"] == 150
    assert (summary["documents"], summary["fields"]) == (150, 69)
    assert "A Provider" in (root / "summarised" / "data_summary" / "public_summary.md").read_text()


def test_an_unknown_stage_is_named(gin_file, capsys):
    assert main(["run", f"--gin_file={gin_file}", "--gin.run.stages=['tokenise']"]) == 2
    assert "run.stages names 'tokenise'; known stages are overlay" in capsys.readouterr().err


def test_pretraining_imports_no_tensorflow_seqio_or_torch(gin_file):
    code = (
        "import sys\n"
        "from apertus_jax.cli import main\n"
        "status = main(sys.argv[1:])\n"
        "unwanted = ('tensorflow', 'seqio', 'torch', 'tensorflow_datasets', 'transformers')\n"
        "print(status, [name for name in unwanted if name in sys.modules])\n"
    )
    chain = gin_file.parent / "chain"
    arguments = [f"--gin_file={gin_file}", f"--input={chain / 'store'}", f"--output={gin_file.parent / 'again'}"]
    done = subprocess.run(
        [sys.executable, "-c", code, "pretrain", *arguments], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
    assert (gin_file.parent / "again" / "finished.json").exists()
