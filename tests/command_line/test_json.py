"""`--json`: one object with documented fields on standard output, and nothing else there."""

import json
import re
from pathlib import Path

import pytest

from apertus_jax import cli

PAGE = (Path(cli.__file__).parent.parent / "docs" / "command_line.md").read_text()


def documented(command):
    """Returns the fields that the page names for a command."""
    (row,) = re.findall(rf"^\| `{command}` \| (.*?) \|$", PAGE, re.MULTILINE)
    return re.findall(r"`(\w+)`", row)


@pytest.fixture
def answer(capfd):
    """Returns a function that runs a command with --json and returns its status, object and standard error."""

    def call(*arguments):
        status = cli.main([*map(str, arguments), "--json"])
        said = capfd.readouterr()
        assert said.out.count("\n") == 1, said.out
        return status, json.loads(said.out), said.err

    return call


def test_provenance_gives_every_use_with_its_documented_fields(answer, finished_run, workshop):
    status, given, _ = answer("provenance", 2, f"--input={finished_run}")
    assert status == 0 and list(given) == documented("provenance") and given["question"] == "2"
    assert {use["row"] for use in given["uses"]} == set(range(8)) and {use["step"] for use in given["uses"]} == {2}
    assert all(len(use["document_id"]) == 32 and use["length"] > 0 for use in given["uses"])


def test_plan_gives_what_plan_json_holds(answer, workshop, tmp_path):
    status, given, _ = answer(
        "plan", f"--gin_file={workshop / 'experiment.gin'}", "--devices=2", f"--output={tmp_path}/p"
    )
    assert status == 0 and set(documented("plan")) <= given.keys() and given["devices"] == 2
    assert given == json.loads((tmp_path / "p" / "plan.json").read_text())


def test_doctor_gives_what_it_found_and_advises(answer):
    status, given, _ = answer("doctor")
    assert status == 0 and list(given) == documented("doctor")
    assert {"Python", "jax", "devices"} <= {check["what"] for check in given["checks"]}
    assert given["well"] == (not any(check["advice"] for check in given["checks"]))


def test_verify_gives_the_damage_and_keeps_the_error_apart(answer, run_copy):
    status, given, said = answer("verify", run_copy / "model")
    assert status == 0 and list(given) == documented("verify") and given["whole"] and given["damage"] is None
    (run_copy / "model" / "config.json").write_text("{}")
    status, given, said = answer("verify", run_copy / "model")
    assert status == 2 and not given["whole"] and "config.json" in given["damage"]
    assert [line for line in said.splitlines() if line.startswith("apertus: ")] == said.splitlines()[-1:]


def test_error_with_json_leaves_standard_output_empty(capsys, tmp_path):
    for arguments in (["why", "x", f"--input={tmp_path}"], ["provenance", "3", f"--input={tmp_path}"], ["plan"]):
        assert cli.main([*arguments, "--json"]) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1, arguments
