"""Every kind of report, made by the commands from a tiny corpus and model."""

import json
import random
import sys
from pathlib import Path

import gin

from apertus_jax.cli import main
from apertus_jax.model import ModelConfig
from tests.tiny_experiment import TINY_CHAIN, TINY_MODEL, WORDS

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))
LANGUAGES = ("eng_Latn", "deu_Latn", "rus_Cyrl", "ell_Grek", "kor_Hang", "amh_Ethi")
LETTERS = {"Cyrl": "абвгдежз", "Grek": "αβγδεζηθ", "Hang": "가나다라마바사아", "Ethi": "ሀለሐመሠረሰሸ", "Latn": "abcdefgh"}
TINY = """
run.stages = [
    'prepare', 'data-summary', 'plant-probes', 'tokenize', 'pretrain', 'evaluate', 'languages', 'memorization',
]
prepare.documents = '{root}/documents.jsonl'
prepare.launcher = 'inline'
prepare.policy = @Policy()
Policy.name = 'tiny'
Policy.content_scoring = [@LanguageScoring(), @QualityScoring(), @DuplicateScoring()]
Policy.content_rules = [@LanguageRule(), @QualityRule(), @DuplicateRule()]
LanguageRule.trust_declared = True
QualityRule.trust_declared = True
data_summary.provider = @Provider()
Provider.name = 'A Provider'
plant.texts = '{root}/unseen.jsonl'
plant.buckets = [0, 1, 4]
plant.per_bucket = 3
plant.characters = 60
AuditGrid.prefix = 4
AuditGrid.prefixes = [4, 8]
AuditGrid.offsets = [0, 4]
AuditGrid.suffix = 8
RunSchedule.total_steps = 80
TrainingConfig.log_every = 1
"""


def write_corpus(path: Path, count: int, seed: int) -> None:
    """Writes invented documents in six scripts, some of them short, some twice."""
    generator = random.Random(seed)
    with path.open("w") as file:
        for number in range(count):
            language = LANGUAGES[number % len(LANGUAGES)]
            letters = LETTERS[language.partition("_")[2]]
            words = WORDS if language == "eng_Latn" else ["".join(generator.choices(letters, k=4)) for _ in range(40)]
            text = " ".join(generator.choices(words, k=generator.choice((3, 20, 60, 150)))) + "."
            for copy in range(2 if number % 10 == 0 else 1):
                row = {"id": f"{seed}-{number}-{copy}", "text": text, "language": language}
                row["url"] = f"https://site{number % 7}.example/{number}/{copy}"
                file.write(json.dumps(row) + "\n")


def make_reports(root: Path) -> dict[str, Path]:
    """Returns name → page, of every command that writes one."""
    if not (root / "goldfish" / "report.html").exists():
        run_commands(root)
    found = {path.parent.name: path for path in sorted(root.rglob("*.html"))}
    assert found.keys() >= {"prepared", "data_summary", "train", "evaluation", "languages", "memorization"}
    return found


def run_commands(root: Path) -> None:
    """Runs them, in this process."""
    write_corpus(root / "documents.jsonl", 240, 5)
    write_corpus(root / "unseen.jsonl", 60, 99)
    (root / "tiny.gin").write_text((TINY_MODEL + TINY_CHAIN + TINY).format(root=root))
    chain = root / "chain"
    assert main(["run", f"--gin_file={root / 'tiny.gin'}"]) == 0
    assert main(["plan", f"--gin_file={root / 'tiny.gin'}", f"--output={root / 'plan'}"]) == 0
    tasks = ["--tasks=apertus_demo", f"--input={chain / 'train'}", f"--output={root / 'tasks'}"]
    assert main(["evaluate", *tasks, "--gin.HarnessOptions.limit=3"]) == 0
    store, sweep = f"--store={chain / 'store'}", root / "sweep"
    varied = ["--vary=RunSchedule.learning_rate=1e-3,1e-2", "--vary=TrainingConfig.seed=1,2"]
    assert main(["sweep", f"--gin_file={root / 'tiny.gin'}", store, *varied, "--steps=70", f"--output={sweep}"]) == 0
    assert main(["compare", str(sweep), f"--output={root / 'compare'}"]) == 0
    gin.clear_config()
    goldfish_report(root / "goldfish")


def goldfish_report(folder: Path) -> None:
    """Writes the report of a Goldfish ablation of three small twins."""
    import goldfish_ablation
    from goldfish_ablation_settings import GoldfishAblation

    settings = GoldfishAblation(
        ModelConfig(512, 16, 32, num_layers=1, num_heads=2, num_kv_heads=1, max_position_embeddings=128),
        arms=("none", "none:restarted", "document:4:13", "cluster:4:13"),
        seeds=(3, 4),
        exposures=(0, 1, 5),
        probes=3,
        prefix=16,
        suffix=48,
        clusters=1,
        copy_exposures=2,
        background_rows=12,
        held_out=3,
    )
    goldfish_ablation.run(settings, str(folder), progress=False)
