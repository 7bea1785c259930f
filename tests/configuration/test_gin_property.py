# ruff: noqa: E501 (lists of samples)
"""Thousands of generated gin files and flags through the real parser: nothing is imported, run, written or shown.

An audit hook of the interpreter watches while the parser works; what is outside the folder of the gin file holds a
word that must not turn up anywhere.
"""

import collections
import os
import sys

import gin
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apertus_jax import cli, configuration
from apertus_jax.configuration.registry import bindables
from apertus_jax.errors import UserError

CANARY = "kanarienvogel"
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
HARMLESS = ("compile", "object.", "sys._getframe", "code.", "sys.settrace", "sys.monitoring", "gc.", "builtins.id")
LOOKING = ("os.listdir", "os.scandir", "os.walk", "glob.glob", "pathlib.Path.rglob", "pathlib.Path.glob")
seen: list[str] = []
watching = False
allowed_roots: tuple[str, ...] = ()
counted: collections.Counter = collections.Counter()


def watch(event, arguments):
    """Notes every event of the interpreter that reading data has no need of."""
    if not watching or event.startswith(HARMLESS) or event in LOOKING:
        return
    if event == "open":
        path, _, flags = (*arguments, 0, 0)[:3]
        if isinstance(path, int):  # a file that is open already
            return
        inside = isinstance(path, (str, bytes)) and os.path.realpath(os.fsdecode(path)).startswith(allowed_roots)
        if inside and not (flags or 0) & WRITES:
            return
    seen.append(f"{event} {arguments!r}"[:300])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with gin files, things that are none, and links that lead out to the word."""
    global allowed_roots
    root = tmp_path_factory.mktemp("gin")
    inside, outside = root / "inside", root / "outside"
    (inside / "below").mkdir(parents=True)
    outside.mkdir()
    for place in (outside / "secret.gin", root / "secret.gin"):
        place.write_text(f"TrainingConfig.seed = '{CANARY}'\n{CANARY}:x:0\nimport {CANARY}\n")
    (root / f"{CANARY}.py").write_text("raise SystemExit('imported')\n")
    (inside / f"{CANARY}.py").write_text("raise SystemExit('imported')\n")
    (inside / "good.gin").write_text("evaluate.seed = 3\n")
    (inside / "below" / "good.gin").write_text("include '../good.gin'\ninclude 'other.gin'\n")
    (inside / "below" / "other.gin").write_text("evaluate.seed = 4\n")
    (inside / "out.gin").symlink_to(outside / "secret.gin")
    (inside / "outside").symlink_to(outside)
    (inside / "loop.gin").symlink_to("loop.gin")
    (inside / "round.gin").write_text("include 'round.gin'\n")
    os.mkfifo(inside / "fifo.gin")
    configuration.register(cli.locations())
    for bindable in bindables.values():  # annotations are read once
        _ = bindable.hints
    configuration.parse(["quickstart.gin"], [])  # those of protocols, too
    for lines in (["evaluate.seed = 1"], ["evaluate.sed = 1"], ["pretrain.model = 3"], ["pretrain.model = "]):
        try:
            configuration.parse(["models/test_1m.gin"], lines)
            gin.config_str()
        except UserError as error:
            cli.one_line(error)
    allowed_roots = (str(inside.resolve()) + os.sep, str(configuration.GIN_CONFIGS) + os.sep)
    sys.addaudithook(watch)
    yield inside
    gin.clear_config()


NAMES = ["TrainingConfig", "pretrain", "evaluate", "Mixture", "MixtureStage", "goldfish", "run", "prepare", "Source"]
OWN = [f"{name}.{parameter}" for name in NAMES for parameter in ("seed", "stages", "name", "output", "model", "k")]
FOREIGN = ["os.system", "subprocess.getoutput", "gin.macro", "gin.singleton", "gin.constant", "macro", "singleton"]
FOREIGN += [
    "builtins.eval",
    "apertus_jax.cli.main",
    "configuration.register",
    "__import__",
    CANARY,
    "os",
    "TrainingConfg",
]
FOREIGN += [
    "ModelConfig.__init__",
    "ModelConfig.__class__",
    "u.subprocess.run",
    "ｇoldfish",
    "gin.REQUIRED",
    "REQUIRED",
]
SCOPES = st.sampled_from(["", "", "", "a/", "a/b/", "gin/", "../", "a.b/", "macro/"])
PATHS = ["good.gin", "below/good.gin", "models/8b.gin", "quickstart.gin", "../secret.gin", "../outside/secret.gin"]
PATHS += [
    "out.gin",
    "outside/secret.gin",
    "loop.gin",
    "round.gin",
    "fifo.gin",
    "below",
    ".",
    "",
    "/etc/passwd",
    "%s",
    "a\\0b",
]
PATHS += [
    "/dev/stdin",
    "/dev/zero",
    "/proc/self/environ",
    "file:///etc/passwd",
    "gs://x/y.gin",
    "x" * 300,
    f"{CANARY}.py",
]
NOISE = st.text(
    st.sampled_from("=@%/.:()[]{}'\"\\#;,-+ \t\n\r\x0c\x00\x1b\x85\u2028\u2029\ufeff\u202eaé²٣０_0９nT\ud800"),
    max_size=12,
)
names = st.one_of(st.sampled_from(OWN), st.sampled_from(NAMES + FOREIGN), NOISE)
references = st.builds(
    "{}{}{}{}".format,
    st.sampled_from("@@@%"),
    SCOPES,
    st.sampled_from(NAMES + FOREIGN + ["A", "B"]),
    st.sampled_from(["", "()", "()", "().x", "('x')", "(", "[0]"]),
)
literals = st.one_of(
    st.integers(-(10**20), 10**20).map(str),
    st.sampled_from(
        ["True", "None", "1e999", "nan", "0x1f", "1_000", "3j", "...", "b'x'", "9" * 5000, "²", "٣", "-'a'"]
    ),
    st.text(max_size=8).map(repr),
    st.sampled_from(
        ["f'{1}'", "__import__('os').system('x')", "(lambda: 1)()", "eval('1')", "1 if 1 else 2", "'a' 'b'"]
    ),
    st.sampled_from(
        [f"'{CANARY}'.join", "[x for x in ()]", "{**{}}", "*a", "'''\nimport os\n'''", "'\\ud800'", "rb''"]
    ),
)
values = st.recursive(
    st.one_of(literals, references, NOISE),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.lists(inner, max_size=3).map(lambda items: f"({', '.join(items)},)"),
        st.lists(st.tuples(inner, inner), max_size=2).map(
            lambda items: "{" + ", ".join(f"{key}: {value}" for key, value in items) + "}"
        ),
    ),
    max_leaves=6,
)
modules = st.sampled_from(
    ["os", CANARY, "subprocess", "apertus_jax.data", "__gin__", "os.path", ".x", "tests", "ctypes"]
)
imports = st.one_of(
    st.builds("import {}".format, modules),
    st.builds("import {} as {}".format, modules, st.sampled_from(NAMES + ["u"])),
    st.builds("from {} import {}".format, modules, st.sampled_from(["dynamic_registration", "system", "*", "x"])),
    st.builds("ｉmport {}".format, modules),
    st.builds("import\\\n {}".format, modules),
)
includes = st.one_of(
    st.sampled_from(PATHS).map(lambda path: f"include '{path}'"),
    st.sampled_from(PATHS).map(lambda path: f'include "{path}"'),
    st.sampled_from(
        ["include %A", "include @A()", "include '%s' % 'x'", "include f'{1}'", "include ['good.gin']", "include"]
    ),
)
bindings = st.builds(
    "{}{}{}{}".format, SCOPES, names, st.sampled_from([" = ", "=", " == ", ":\n  seed = ", " "]), values
)
macros = st.builds("{} = {}".format, st.sampled_from(["A", "B", "a/A"]), values)
statements = st.one_of(bindings, bindings, macros, imports, includes, NOISE)
breaks = st.sampled_from(
    ["\n", "\n", "\n", "\n\n", "\r\n", "\r", ";", "; ", " # x\n", "\\\n", "\x0c", "\u2028", " ", "\n  "]
)
files = st.lists(st.tuples(statements, breaks), max_size=5).map(lambda parts: "".join(a + b for a, b in parts))
SOUND = ["evaluate.seed = 3", "pretrain.mixture = @Mixture()", "include 'good.gin'", "run.stages = ['tokenize']"]
SOUND += ["Mixture.stages = [@a/MixtureStage(), @MixtureStage()]\na/MixtureStage.start = 3", "# a comment", ""]
SOUND += [
    "A = 3\nTrainingConfig.seed = %A",
    "goldfish:\n  k = 4\n  h = 3",
    "pretrain.optimizer = @adamw",
    "TrainingConfig.log_every = \\\n  3",
]
sound = st.lists(st.sampled_from(SOUND), max_size=6).map("\n".join)
odd_flags = st.lists(
    st.one_of(
        st.builds("--gin.{}{}={}".format, SCOPES, names, values),
        st.builds("--gin.{}={}{}{}".format, names, values, breaks, statements),
        st.sampled_from(["--gin.evaluate.seed=3", "--gin.A=3"]),
    ),
    max_size=2,
)


flags = st.one_of(st.just([]), st.just(["--gin.evaluate.seed=7"]), odd_flags)


def check(folder, text, arguments, recorded):
    """Parses one file and some flags, and holds the outcome against the promise."""
    global watching
    (folder / "mine.gin").write_bytes(text.encode("utf-8", "surrogatepass"))
    modules_before = set(sys.modules)
    seen.clear()
    watching = True
    try:
        _, lines = cli.split_gin_flags(arguments)
        path = str(folder / "mine.gin")
        configuration.parse([] if recorded else [path], lines, [path] if recorded else [])
        outcome, message = "parsed", ""
    except UserError as error:
        outcome, message = "refused", cli.one_line(error)
    finally:
        watching = False
    counted[outcome] += 1
    assert not seen, seen
    assert set(sys.modules) == modules_before
    if CANARY not in text + "".join(arguments):
        assert CANARY not in message
    assert "\n" not in message and "<ast" not in message
    bound = gin.config_str() if outcome == "parsed" else ""
    assert "import" not in bound.replace("important", "") or "import" in text + "".join(arguments)
    assert f"seed = '{CANARY}'" not in bound


given_gin = given(text=st.one_of(files, sound), arguments=flags, recorded=st.booleans())
common = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck), "derandomize": True}


@given_gin
@settings(max_examples=2_000, **common)
def test_generated_gin_is_read_as_data(folder, text, arguments, recorded):
    check(folder, text, arguments, recorded)


@pytest.mark.slow
@given_gin
@settings(max_examples=10_000, **common)
def test_ten_thousand_generated_gin_files_are_data(folder, text, arguments, recorded):
    check(folder, text, arguments, recorded)


def test_the_watch_sees_an_import_and_a_file(folder, tmp_path):
    """The hook that the tests above rely on works."""
    global watching
    (tmp_path / "x").touch()
    seen.clear()
    watching = True
    try:
        import this_is_no_module  # noqa: F401
    except ModuleNotFoundError:
        (tmp_path / "x").read_text()
        exec("1")  # noqa: S102
    finally:
        watching = False
    events = {each.partition(" ")[0] for each in seen}
    assert {"import", "open", "exec"} <= events


def test_both_outcomes_were_seen(folder):
    assert counted["refused"] > 100 and counted["parsed"] > 50, counted
