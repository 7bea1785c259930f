"""`apertus prepare` on bad input: bad rows are set aside with file and row, an unusable whole stops before writing."""

import gzip
import json
import random
import subprocess
import sys
from pathlib import Path

import gin
import pyarrow
import pyarrow.parquet
import pytest

from apertus_jax import cli
from apertus_jax.corpus.documents import read_documents
from apertus_jax.corpus.ledger import parts_of
from apertus_jax.storage.artifacts import COMMIT_MARKER
from tests.corpus.prepare.prepare_inputs import SMALL_POLICY

ROOT = Path(__file__).parents[2]
GIN = SMALL_POLICY + "prepare.launcher = 'inline'\n"
MEGABYTES = 1 << 20
WORDS = [first + second for first in ("ba", "do", "ki", "mu", "se") for second in ("lan", "rin", "tos", "vek", "pum")]


def row(name: str, **changes) -> dict:
    """Returns a good row, or what becomes of it."""
    words = random.Random(name).choices(WORDS, k=30)
    return {"id": name, "url": "https://a.example/page", "text": " ".join([*words, name])} | changes


def line(name: str, **changes) -> bytes:
    return json.dumps(row(name, **changes)).encode() + b"\n"


def write_good(folder: Path) -> None:
    """Writes files of good rows alone."""
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_bytes(b"".join(line(f"good{number}") for number in range(8)))
    (folder / "cut.jsonl.gz").write_bytes(gzip.compress(b"".join(line(f"cut{number}") for number in range(4))))
    (folder / "bomb.jsonl.gz").write_bytes(gzip.compress(line("before the bomb")))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row("p0"), row("p1")]), folder / "same.parquet")


BAD_LINES = [
    ("invalid_encoding", line("bad0", text="caf@").replace(b"@", b"\xe9")),
    ("duplicate_id", line("good0", text="Another text with the same id.")),
    ("missing_text", b'{"id": "bad2"}\n'),
    ("url_without_host", line("bad3", url="https:///nowhere")),
    ("future_date", line("bad4", crawl_date="2999-01-01")),
    ("invalid_json", line("bad5")[:-9] + b"\n"),
    ("not_an_object", b"[1, 2]\n"),
    ("wrong_type", line("bad7", text=17)),
    ("text_too_large", line("bad8", text="x" * (11 * MEGABYTES))),
]


def write_bad(folder: Path) -> set[tuple[str, int, str]]:
    """Writes the same rows among bad ones and beside bad files; returns what must be set aside: file, row, reason."""
    write_good(folder)
    good = (folder / "rows.jsonl").read_bytes().splitlines(keepends=True)
    lines, expected = [good.pop(0)], set()
    for reason, bad in BAD_LINES:
        lines.append(bad)
        expected.add(("rows.jsonl", len(lines), reason))
        lines += good[:1]
        del good[:1]
    (folder / "rows.jsonl").write_bytes(b"".join(lines))

    # The end is missing, but not one of the four good rows.
    longer = gzip.compress(b"".join(line(f"cut{number}") for number in range(4)), mtime=0)
    rest = gzip.compress(bytes(str([hash_free(number) for number in range(20_000)]), "ascii"), mtime=0)
    (folder / "cut.jsonl.gz").write_bytes(longer + rest[: len(rest) // 2])
    expected.add(("cut.jsonl.gz", 5, "truncated_file"))
    with gzip.open(folder / "bomb.jsonl.gz", "wb", compresslevel=9) as file:
        file.write(line("before the bomb"))
        for _ in range(100):
            file.write(b"x" * MEGABYTES)
    expected.add(("bomb.jsonl.gz", 2, "decompression_bomb"))
    tables = {
        "changed.parquet": pyarrow.table({"id": ["p2"], "text": pyarrow.array([17])}),
        "without.parquet": pyarrow.table({"id": ["p3"], "body": ["no text"]}),
    }
    for name, table in tables.items():
        pyarrow.parquet.write_table(table, folder / name)
    (folder / "broken.parquet").write_bytes((folder / "same.parquet").read_bytes()[:-20])
    expected |= {("changed.parquet", 0, "column_type"), ("without.parquet", 0, "missing_column")}
    expected.add(("broken.parquet", 0, "damaged_file"))
    return expected


def hash_free(number: int) -> int:
    """Returns digits that do not compress away."""
    return number * 2_654_435_761 % (1 << 32)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    path = tmp_path_factory.mktemp("policy") / "small.gin"
    path.write_text(GIN)
    return path


def prepare(policy: Path, documents: Path, output: Path, *extra: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line as a person does."""
    flags = [f"--gin_file={policy}", f"--input={documents}", f"--output={output}", *extra]
    return subprocess.run(
        [sys.executable, "-m", "apertus_jax", "prepare", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def rows_of(prepared: Path, name: str) -> list[dict]:
    return [each for part in parts_of(prepared) for each in pyarrow.parquet.read_table(str(part / name)).to_pylist()]


def test_bad_rows_are_set_aside_by_place_and_others_untouched(policy, tmp_path):
    write_good(tmp_path / "clean" / "documents")
    expected = write_bad(tmp_path / "mixed" / "documents")
    ended = prepare(policy, tmp_path / "mixed" / "documents", tmp_path / "mixed" / "out")
    assert ended.returncode == 0 and "Traceback" not in ended.stderr, ended.stderr
    clean = ["prepare", f"--gin_file={policy}", f"--input={tmp_path / 'clean' / 'documents'}"]
    assert cli.main([*clean, f"--output={tmp_path / 'clean' / 'out'}"]) == 0
    gin.clear_config()

    found = rows_of(tmp_path / "mixed" / "out", "quarantine.parquet")
    assert {(each["file"], each["row"], each["reason"]) for each in found} == expected
    assert all("\n" not in each["detail"] and len(each["detail"]) <= 160 for each in found)
    kept = [list(read_documents(tmp_path / name / "out")) for name in ("mixed", "clean")]
    assert len(kept[1]) == 15
    assert sorted(kept[0], key=str) == sorted(kept[1], key=str)
    rows = [rows_of(tmp_path / name / "out", "ledger.parquet") for name in ("mixed", "clean")]
    assert len(rows[0]) == len(rows[1]) == 15
    without_place = [
        sorted((each | {"row": 0} for each in every), key=lambda each: each["document_id"]) for every in rows
    ]
    assert without_place[0] == without_place[1]
    assert cli.main(["why", "rows.jsonl:2", f"--input={tmp_path / 'mixed' / 'out'}"]) == 0


@pytest.mark.slow
def test_a_document_of_100_megabytes_is_set_aside(policy, tmp_path):
    write_good(tmp_path / "documents")
    with (tmp_path / "documents" / "large.jsonl").open("wb") as file:
        file.write(line("first"))
        file.write(b'{"id": "large", "text": "' + b"x" * (100 * MEGABYTES) + b'"}\n')
        file.write(line("last"))
    ended = prepare(policy, tmp_path / "documents", tmp_path / "out")
    assert ended.returncode == 0, ended.stderr
    found = rows_of(tmp_path / "out", "quarantine.parquet")
    assert [(each["file"], each["row"], each["reason"]) for each in found] == [("large.jsonl", 2, "record_too_large")]
    assert len(list(read_documents(tmp_path / "out"))) == 17


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Inputs that are unusable as a whole, and folders that a policy may name wrongly."""
    root = tmp_path_factory.mktemp("folders")
    write_good(root / "documents")
    (root / "empty").mkdir()
    (root / "unknown").mkdir()
    (root / "unknown" / "thesis.docx").write_text("x")
    (root / "no_text.jsonl").write_text('{"body": "a"}\n')
    (root / "nothing.jsonl").write_text("")
    (root / "cut.jsonl.gz").write_bytes(gzip.compress(line("a"))[:12])
    (root / "bad.jsonl").write_bytes(line("a", text="  ") + line("b", text=5))
    (root / "broken.parquet").write_bytes(b"PAR1 and no more")
    pyarrow.parquet.write_table(pyarrow.table({"body": ["a"]}), root / "no_text.parquet")
    (root / "unfinished").mkdir()
    (root / "unfinished" / "BUILDING.json").write_text("{}")
    (root / "unfinished" / "rows.jsonl").write_bytes(line("a"))
    (root / "robots").mkdir()
    (root / "robots" / "a.example").write_text("User-agent: *\nDisallow: /private\n")
    flags = [f"--input={root / 'robots'}", "--gin.build_robots_snapshot.as_of='2026-11-24'"]
    assert cli.main(["robots-snapshot", *flags, f"--output={root / 'damaged'}"]) == 0
    gin.clear_config()
    victim = max((path for path in (root / "damaged").rglob("*") if path.name != COMMIT_MARKER), key=size)
    victim.write_bytes(victim.read_bytes()[:-4])
    return root


def size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


ROBOTS = ["--gin.Policy.consent_scoring=[@RobotsScoring()]", "--gin.Policy.consent_rules=[@RobotsRule()]"]
REMOVAL = ["--gin.Policy.not_asked=[]"]
CLASSIFIER = ["--gin.Policy.content_scoring=[@ClassifierScoring(), @DuplicateScoring()]"]


@pytest.mark.parametrize(
    ("documents", "extra", "parts"),
    [
        ("missing", [], ["missing does not exist"]),
        ("empty", [], ["empty holds no documents", ".jsonl"]),
        ("unknown", [], ["unknown holds no documents", ".jsonl"]),
        ("no_text.jsonl", [], ["no_text.jsonl", "missing_column", "text"]),
        ("nothing.jsonl", [], ["nothing.jsonl are empty"]),
        ("broken.parquet", [], ["broken.parquet", "damaged_file"]),
        ("no_text.parquet", [], ["no_text.parquet", "missing_column"]),
        ("unfinished", [], ["unfinished", "was not finished", "run that command again"]),
        ("", [], ["prepare.sources is empty", "--input"]),
        ("documents", ["--gin.Policy.nam='x'"], ["no parameter 'nam'", "did you mean name"]),
        ("documents", ["--gin.Polcy.name='x'"], ["'Polcy'", "did you mean Policy"]),
        ("documents", ["--gin.Policy.content_rules=[@LanguageRul()]"], ["'LanguageRul", "LanguageRule"]),
        ("documents", ["--gin.Policy.content_rules=[@LanguageScoring()]"], ["content_rules[0]", "must be a Rule"]),
        ("documents", ["--gin.prepare.as_of='yesterday'"], ["as_of = 'yesterday'", "YYYY-MM-DD"]),
        ("documents", ["--task=4/4"], ["task 4/4", "go from 0"]),
        ("documents", ["--stage=scores"], ["--stage=scores", "score"]),
        ("documents", ["--gin.prepare.unit_bytes=-1"], ["target_bytes = -1"]),
        ("documents", ["--gin.prepare.sort_bytes=1000"], ["prepare.sort_bytes = 1000", "at least 1048576"]),
        ("documents", [*ROBOTS, "--gin.RobotsScoring.snapshot='ROOT/none'"], ["none does not exist", "robots"]),
        ("documents", [*ROBOTS, "--gin.RobotsScoring.snapshot='ROOT/empty'"], ["empty is not a complete", "robots"]),
        ("documents", ROBOTS, ["RobotsScoring.snapshot is empty", "robots-snapshot"]),
        ("documents", [*CLASSIFIER, "--gin.ClassifierScoring.toxicity='ROOT/none'"], ["none does not exist"]),
        ("documents", [*CLASSIFIER, "--gin.ClassifierScoring.toxicity='ROOT/damaged'"], ["damaged", "not a"]),
        ("documents", [*REMOVAL, "--gin.RemovalScoring.tombstones='ROOT/none'"], ["none does not exist", "tombstones"]),
        (
            "documents",
            [*REMOVAL, "--gin.RemovalScoring.tombstones='ROOT/robots'"],
            ["robots is not a complete", "tombstones"],
        ),
        ("documents", ["--gin.RemovalScoring.tombstones='ROOT/robots'"], ["switches removal off", "remove one"]),
        ("documents", ["--gin.Policy.not_asked=['removals']"], ["'removals'", "did you mean 'removal'"]),
        ("documents", ["--gin.Policy.not_asked='removal'"], ["must be a list of texts", "write ['removal']"]),
        ("documents", REMOVAL, ["--tombstones is empty", "apertus remove", "not_asked=\"['removal']\""]),
        ("documents", ["--gin.Policy.tokenizer='ROOT/none'"], ["none", "does not exist"]),
    ],
    ids=lambda value: " ".join(value[-1:]) if isinstance(value, list) else value,
)
def test_unusable_input_is_one_line_and_nothing_is_written(apertus, policy, folders, tmp_path, documents, extra, parts):
    given = [f"--input={folders / documents}"] if documents else []
    flags = [flag.replace("ROOT", str(folders)) for flag in extra]
    ended = apertus("prepare", f"--gin_file={policy}", *given, *flags, f"--output={tmp_path / 'out'}")
    assert all(part in ended.complaint for part in parts), ended.stderr
    assert ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_folder_of_something_else_is_one_line_and_stays(policy, folders, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    ended = prepare(policy, folders / "documents", tmp_path / "out")
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1, ended.stderr
    assert ended.stderr.startswith("apertus: ") and "thesis.tex" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("documents", "extra", "parts"),
    [
        ("cut.jsonl.gz", [], ["no document", "cut.jsonl.gz:1", "truncated_file", "correct prepare.sources or --input"]),
        ("bad.jsonl", [], ["no document", "bad.jsonl:1", "empty_text", "correct prepare.sources or --input"]),
        (
            "documents",
            [*ROBOTS, "--gin.RobotsScoring.snapshot='ROOT/damaged'"],
            ["damaged", "restore it or rebuild"],
        ),
    ],
)
def test_fault_found_while_reading_is_one_line_without_a_result(
    apertus, policy, folders, tmp_path, documents, extra, parts
):
    flags = [flag.replace("ROOT", str(folders)) for flag in extra]
    ended = apertus(
        "prepare", f"--gin_file={policy}", f"--input={folders / documents}", *flags, f"--output={tmp_path / 'out'}"
    )
    assert all(part in ended.complaint for part in parts), ended.stderr
    assert not (tmp_path / "out").exists()


def test_a_policy_that_is_not_given_is_one_line(apertus, folders, tmp_path):
    ended = apertus("prepare", f"--input={folders / 'documents'}", f"--output={tmp_path / 'out'}")
    assert "prepare has no value for policy" in ended.complaint
    assert list(tmp_path.iterdir()) == []
