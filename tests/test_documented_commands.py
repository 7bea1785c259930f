"""Every block tagged `<!-- run -->` in README and docs/ runs as it is printed; nothing of a command is changed.

The folder in which they run: documented_workspace.py.
"""

from pathlib import Path

import pytest

from tests.documented_blocks import blocks_of, pages
from tests.documented_workspace import Documented, copy_of_the_workspace, run_all

ROOT = Path(__file__).resolve().parent.parent
# The pages that print commands, in the order in which a reader runs them; all other pages come after these.
FIRST_PAGES = ("README.md", "docs/start.md", "docs/corpus.md")


def documented():
    """What the pages print to be run, in their order."""
    found = []
    for page in dict.fromkeys((*FIRST_PAGES, *pages())):
        for block in blocks_of(page):
            if block.is_run:
                parts = block.lines() if block.language == "bash" else [block.text]
                found += [Documented(part, block.where, block.language) for part in parts]
    return found


RUN = documented()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder like that of a reader of README and docs/."""
    return copy_of_the_workspace(tmp_path_factory)


@pytest.fixture(scope="module")
def outcomes(workspace):
    """{what is run: (exit code, output)}."""
    return run_all(RUN, workspace)


@pytest.mark.parametrize("command", RUN, ids=str)
def test_command_runs_as_it_is_printed(outcomes, command):
    code, said = outcomes[command]
    assert code == 0, f"{command.text}\n{said[-3000:]}"


def test_pages_print_commands_to_be_run():
    assert len(RUN) > 30 and {each.language for each in RUN} >= {"bash", "python"}


def test_no_key_lies_where_git_would_add_it(outcomes):
    assert all("-out ~/" in each.text for each in RUN if "genpkey" in each.text)
    ignored = (ROOT / ".gitignore").read_text().split()
    assert "*.pem" in ignored and "/runs/" in ignored


def test_private_keys_are_for_their_owner_alone(outcomes, workspace):
    for key in ("filter_key.pem", "home/filter_key.pem"):
        assert (workspace / key).stat().st_mode & 0o077 == 0
