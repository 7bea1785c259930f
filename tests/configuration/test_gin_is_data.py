"""A gin file is data: what it says is bound, and nothing that it says is carried out."""

import os
import subprocess
import sys

import gin
import pytest

from apertus_jax import cli, configuration
from apertus_jax.errors import UserError

SECRET = "root:$6$canary$never:19000"


@pytest.fixture(autouse=True, scope="module")
def registered():
    configuration.register(cli.locations())
    yield
    gin.clear_config()


@pytest.fixture
def complaint(tmp_path, monkeypatch):
    """Returns a function that parses files and flags, and the one line that refuses them."""
    monkeypatch.chdir(tmp_path)

    def refused(text=None, flags=(), recorded=False):
        files = []
        if text is not None:
            (tmp_path / "mine.gin").write_bytes(text if isinstance(text, bytes) else text.encode())
            files = ["mine.gin"]
        with pytest.raises(UserError) as error:
            cli_like(files, flags, recorded)
        line = cli.one_line(error.value)
        assert "\n" not in line and len(line) < 12_000
        return line

    return refused


def cli_like(files, flags, recorded=False):
    """Parses as the command line does."""
    _, bindings = cli.split_gin_flags(flags)
    configuration.parse([] if recorded else files, bindings, files if recorded else [])


ATTACKS = [
    "from __gin__ import dynamic_registration\nimport subprocess\nTrainingConfig.seed = @subprocess.getoutput()",
    "from __gin__ import dynamic_registration\nimport apertus_jax.corpus.prepare.launching.unit_process as u\n"
    "pretrain.optimizer = @u.subprocess.getoutput()\nu.subprocess.getoutput.cmd = 'touch ran'",
    "import os",
    "from os import path",
    "import apertus_jax.data",
    "import os as TrainingConfig",
    "TrainingConfig.seed = @subprocess.getoutput()",
    "TrainingConfig.seed = @os.system",
    "TrainingConfig.seed = @gin.singleton()\ngin.singleton.constructor = @doctor",
    "TrainingConfig.seed = @gin.constant()",
    "TrainingConfig.seed = @gin.macro()",
    "TrainingConfig.seed = @macro()",
    "gin.macro.value = 3",
    "macro.value = 3",
    "X/macro.value = 3\nTrainingConfig.seed = %X",
    "singleton.constructor = @doctor",
    "TrainingConfig.seed = %gin.REQUIRED",
    "TrainingConfig.seed = %REQUIRED",
    "TrainingConfig.seed = __import__('os')",
    "TrainingConfig.seed = __import__('os').system('touch ran')",
    "TrainingConfig.seed = eval('1')",
    "TrainingConfig.seed = 'a'.join",
    "TrainingConfig.seed = f'{1}'",
    "TrainingConfig.seed = (lambda: 1)()",
    "TrainingConfig.seed = [x for x in ()]",
    "TrainingConfig.seed = @tokenize()\ntokenize.documents = 'x'\ntokenize.output = 'ran'",
    "TrainingConfig.seed = @doctor",
    "pretrain.caller = @ModelConfig()",
    "ｉmport os",
    "im\\\nport os",
    "TrainingConfig.seed = @ModelConfig.__init__()",
    "TrainingConfig.__init__ = 3",
    "TrainingConfig.self = 3",
    "TrainingConfig.seed.__class__ = 3",
    "apertus_jax.training.TrainingConfig.seed = 3",
    "TrainingConfig.seed = 3; import os",
    "include 'a.gin'; import os",
    "include",
    "include %NAME\nNAME = 'x'",
    "include '%s' % 'x'",
    "include '/etc/passwd'",
    "include '../secret.gin'",
    "include '/dev/stdin'",
    "include 'out.gin'",
    "include 'a\\0b'",
    "include ''",
    "include '.'",
    "include 'folder'",
    "include 'fifo'",
    "include 'loop.gin'",
    "include 'mine.gin'",
    "include './mine.gin'",
    "include 'one.gin'",
    "A = %A\nTrainingConfig.seed = %A",
    "A = [%B]\nB = {'x': %A}\nTrainingConfig.seed = %A",
    "TrainingConfig.seed = " + "[" * 100_000,
    "TrainingConfig.seed = " + "[" * 500 + "]" * 500,
    "TrainingConfig.seed = " + "-" * 100_000 + "1",
    "TrainingConfig.seed = " + "'a' " * 100_000,
    "TrainingConfig.seed = " + "9" * 5_000,
    "TrainingConfig.seed = 1e999",
    "TrainingConfig.seed = -1e999",
    "TrainingConfig.seed = [{'a': (1e999,)}]",
    "TrainingConfig.seed = nan",
    "TrainingConfig.seed = float('nan')",
    "TrainingConfig.seed = '\\ud800'",
    "TrainingConfig.seed = b'x'",
    "TrainingConfig.seed = 3j",
    "TrainingConfig.seed = {[1]: 2}",
    "TrainingConfig.seed = ...",
    "TrainingConfig.seed",
    "TrainingConfig.seed =",
    "TrainingConfig.seed = 3\n  oops = 4",
    "TrainingConfig = 3",
    "scope/TrainingConfig = 3",
    "TrainingConfig/seed = 3",
    "scope/TrainingConfg.seed = 3",
    "a/b/Modelconfig.x = 3",
    "scope/TrainingConfig.seed = 3",
    "SEDE = 3",
    "evaluate_tasks.allow_code = True",
    "evaluate_tasks.allow_code = %YES\nYES = True",
    "prepare.beam_options = ['--environment_type=PROCESS']",
    "TrainingConfig.seed = %SEDE",
    "TrainingConfig.seed = @first/second/Nothing()",
    "TrainingConfig.seed = 3\x00",
    "TrainingConfig.seed = '\x1b[2J'",
    "x" * 1_100_000,
    "TrainingConfig.seed = '" + "x" * 2**20 + "'",
    "'''" * 99_999,
]


@pytest.mark.parametrize("text", ATTACKS, ids=lambda text: text[:50])
def test_what_is_not_a_plain_binding_is_refused(complaint, tmp_path, text):
    (tmp_path.parent / "secret.gin").write_text(SECRET)
    (tmp_path / "out.gin").symlink_to(tmp_path.parent / "secret.gin")
    (tmp_path / "folder").mkdir()
    (tmp_path / "one.gin").write_text("include 'two.gin'\n")
    (tmp_path / "two.gin").write_text("include 'one.gin'\n")
    (tmp_path / "loop.gin").symlink_to("loop.gin")
    os.mkfifo(tmp_path / "fifo")
    before = sorted(tmp_path.iterdir())
    line = complaint(text)
    assert "canary" not in line and "root:" not in line
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "mine.gin"])


@pytest.mark.parametrize(
    "value",
    [
        "3\nimport os",
        "3\rimport os",
        "3\x0cimport os",
        "3\u2028import os",
        "3\x85import os",
        "3\x00",
        "3\\\nimport os",
        "3;import os",
        "3; TrainingConfig.log_every = 2",
        "3 # and more",
        "3 TrainingConfig.log_every = 2",
        "3, import os",
        "3\n",
        "'''\nimport os\n'''",
        "\\",
        "3\\",
        "[1,",
        "'open",
        "@",
        "%",
        "@tokenize()",
        "\udcff",
        "'\udcff'",
        "" + "[" * 100_000,
        "9" * 5_000,
    ],
)
def test_a_flag_is_one_binding_of_one_value(complaint, value):
    line = complaint(flags=[f"--gin.TrainingConfig.seed={value}"])
    assert "seed" in line


@pytest.mark.parametrize(
    "name",
    ["include 'x' #", "import os #", "A\nimport os\nB", "A:", "A B", "", ".x", "A.", "A..b", "a//B.c", "Ａ.b", "A.b "],
)
def test_a_flag_names_one_parameter(complaint, name):
    complaint(flags=[f"--gin.{name}=3"])


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"\xef\xbb\xbfTrainingConfig.seed = 3\n", ["mine.gin, line 1", "byte order mark", "UTF-8"]),
        ("TrainingConfig.seed = 3\n".encode("utf-16"), ["mine.gin, line 1", "byte order mark", "UTF-16"]),
        ("# one\n# Größe\n".encode("latin-1"), ["mine.gin, line 2", "not UTF-8", "Latin-1"]),
        (b"# one\n\n\x1b[2J\n", ["mine.gin, line 3", "U+001B"]),
        (b"\n\nTrainingConfig.seed = [\n", ["mine.gin, line", "never closed"]),
        (b"\n\ntokenize.tokenizer = tekken\n", ["mine.gin, line 3", "text needs quotes"]),
        (b"\ninclude 'absent.gin'\n", ["mine.gin, line 2", "absent.gin", "not beside it"]),
        (b"\n\n\nimport os\n", ["mine.gin, line 4", "imports os", "--import"]),
        (b"\n\nscope/TrainingConfg.seed = 3\n", ["mine.gin, line 3", "TrainingConfg", "TrainingConfig"]),
        (
            b"prepare.sources = [@bundled/Source()]\nbundeld/Source.name = 'x'\n",
            ["mine.gin, line 2", "bundeld", "did you mean bundled"],
        ),
        (b"SIZE = 3\nTrainingConfig.seed = %SIZE\nSIEZ = 4\n", ["mine.gin, line 3", "SIEZ", "did you mean SIZE"]),
    ],
)
def test_a_refusal_names_the_file_and_the_line(complaint, content, parts):
    line = complaint(content)
    assert all(part in line for part in parts), line


def test_a_refusal_shows_nothing_of_a_file_that_is_no_gin(complaint, tmp_path):
    (tmp_path / "passwords.txt").write_text(f"{SECRET}\nPASSWORD={SECRET}\nTOKEN = {SECRET}\n'{SECRET}\n")
    line = complaint("include 'passwords.txt'\n")
    assert "passwords.txt, line 1" in line and "canary" not in line and "root" not in line
    for start in range(4):
        rest = "\n".join((tmp_path / "passwords.txt").read_text().splitlines()[start:])
        assert "canary" not in complaint(rest)


def test_includes_are_read_beside_the_file_and_in_search_paths(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "base.gin").write_text("include 'models/test_1m.gin'\nTrainingConfig.seed = 1\n")
    (tmp_path / "mine.gin").write_text("include 'below/base.gin'\nTrainingConfig.log_every = 7\n")
    configuration.parse([str(tmp_path / "mine.gin")], ["TrainingConfig.seed = 9"])
    assert gin.query_parameter("TrainingConfig.log_every") == 7
    assert gin.query_parameter("TrainingConfig.seed") == 9
    assert gin.query_parameter("ModelConfig.hidden_size") == 128


def test_what_lets_other_code_run_is_bound_by_flags_only(tmp_path):
    configuration.parse([], ["evaluate_tasks.allow_code = True"])
    assert gin.query_parameter("evaluate_tasks.allow_code") is True
    (tmp_path / "recorded.gin").write_text("evaluate_tasks.allow_code = False\nprepare.beam_options = ()\n")
    configuration.parse([], [], [str(tmp_path / "recorded.gin")])


def test_a_file_of_the_folder_we_are_in_is_not_included(complaint, tmp_path):
    (tmp_path / "lab").mkdir()
    (tmp_path / "here.gin").write_text("TrainingConfig.seed = 3\n")
    (tmp_path / "lab" / "mine.gin").write_text("include 'here.gin'\n")
    with pytest.raises(UserError, match="lab/mine.gin, line 1 includes here.gin, which is not beside it"):
        configuration.parse(["lab/mine.gin"], [])


@pytest.mark.parametrize(
    "name", ["folder", "fifo", "loop.gin", "nothing", "x" * 300, "a\nb.gin", "a\0b", "/dev/stdin", ""]
)
def test_a_gin_file_that_is_no_file_is_one_line_at_once(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop.gin").symlink_to("loop.gin")
    assert cli.main(["plan", f"--gin_file={name}"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("apertus: gin file") and err.count("\n") == 1


@pytest.mark.parametrize("line", ["include 'models/8b.gin'", "import os", "TrainingConfig:\n  seed = 3"])
def test_a_recorded_configuration_holds_what_recording_writes(complaint, line):
    assert "mine.gin, line 2" in complaint(f"# recorded\n{line}\n", recorded=True)
    gin.clear_config()


def test_a_configuration_that_was_recorded_is_read_back(tmp_path):
    configuration.parse(
        ["models/test_1m.gin"],
        [
            "pretrain.mixture = @Mixture()",
            "Mixture.stages = [@first/MixtureStage(), %SECOND]",
            "SECOND = @MixtureStage()",
            "first/MixtureStage.start = 0",
            "MixtureStage.start = %START",
            "START = 7",
            "TrainingConfig.seed = 1234567890",
            "run.stages = ['tokenize', 'pretrain', 'evaluate', 'export', 'generate', 'tokenize', 'pretrain']",
        ],
    )
    for name in ("Mixture", "ModelConfig", "TrainingConfig"):
        gin.get_configurable(name)()
    text = f"# apertus_jax 1.0\n{gin.operative_config_str()}"
    (tmp_path / "operative_config.gin").write_text(text)
    configuration.parse([], [], [str(tmp_path / "operative_config.gin")])
    for name in ("Mixture", "ModelConfig", "TrainingConfig"):
        gin.get_configurable(name)()
    assert f"# apertus_jax 1.0\n{gin.operative_config_str()}" == text


def test_reproduce_of_a_strangers_run_carries_nothing_out(tmp_path):
    run = tmp_path / "theirs"
    (run / "store").mkdir(parents=True)
    (run / "operative_config.gin").write_text(
        "from __gin__ import dynamic_registration\n"
        "import apertus_jax.corpus.prepare.launching.unit_process as u\n"
        "run.output = @u.subprocess.getoutput()\n"
        f"u.subprocess.getoutput.cmd = 'touch {tmp_path / 'ran'}'\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "apertus_jax", "reproduce", f"--input={run}", f"--output={tmp_path / 'again'}"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(configuration.GIN_CONFIGS.parent)},
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "operative_config.gin, line 1 imports" in done.stderr
    assert not (tmp_path / "ran").exists() and not (tmp_path / "again").exists()
