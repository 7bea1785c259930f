"""Where commands write: a place that cannot be, or that is part of what is read, is one line and stays untouched."""

import dataclasses
import os

import pytest

from apertus_jax.errors import UserError
from apertus_jax.storage import places


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to be in, with a file, a corpus, and links of every kind."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.jsonl").write_text("{}")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "to_corpus").symlink_to("corpus")
    (tmp_path / "to_file").symlink_to("file")
    return tmp_path


def state(folder):
    return sorted(str(path) for path in folder.rglob("*"))


BAD_PLACES = {
    "a file": ("file", "is a file, not a folder"),
    "a link to a file": ("to_file", "is a file, not a folder"),
    "below a file": ("file/out", "below a file"),
    "deep below a file": ("file/a/b/c", "below a file"),
    "a dangling link": ("dangling", "is a link to nowhere, which does not exist"),
    "below a dangling link": ("dangling/out", "is a link to nothing"),
    "a loop": ("loop", "round in circles"),
    "below a loop": ("loop/a/b", "round in circles"),
    "a long name": ("n" * 300, "longer than the file system allows"),
    "a long name above": (f"{'n' * 300}/out", "longer than the file system allows"),
    "a long name below a new folder": (f"new/{'ü' * 200}/out", "longer than the file system allows"),
    "a long path": ("/".join(["x" * 200] * 30), "longer than the file system allows"),
    "home": ("~/out", "~ is not replaced here; write /"),
    "a user's home": ("~root/out", "~ is not replaced here"),
    "a null character": ("a\0b", "null character"),
    "the web": ("https://example.org/out", "cannot be written to"),
    "another scheme": ("foo://out", "cannot be written to"),
    "a file address": ("file:///tmp/out", "cannot be written to"),
}


@pytest.mark.parametrize("case", BAD_PLACES)
def test_a_place_that_cannot_be_written_is_one_line(here, case):
    output, said = BAD_PLACES[case]
    before = state(here)
    with pytest.raises(UserError, match=said) as raised:
        places.check_arguments("tokenize", {"output": output, "documents": "corpus"})
    assert "\n" not in str(raised.value) and str(raised.value).startswith("tokenize.output = ")
    assert len(str(raised.value)) < 400
    assert state(here) == before


INPUTS = {
    "the same": ("corpus", "corpus", "is also what is read"),
    "the same by a link": ("to_corpus", "corpus", "is also what is read"),
    "the same with a slash": ("corpus/", "./corpus", "is also what is read"),
    "inside": ("corpus/out", "corpus", "lies inside corpus"),
    "inside by a link": ("to_corpus/a/out", "corpus/", "lies inside"),
    "inside what is here": ("out", ".", "lies inside"),
    "around": (".", "corpus", "is around corpus"),
    "around a file": ("corpus", "corpus/a.jsonl", "is around"),
}


@pytest.mark.parametrize("case", INPUTS)
def test_output_inside_or_around_an_input_is_one_line(here, case):
    output, read, said = INPUTS[case]
    with pytest.raises(UserError, match=said):
        places.check_arguments("tokenize", {"output": output, "documents": read})
    with pytest.raises(UserError, match=said):
        places.check_arguments("tokenize", {"documents": [read], "output": os.path.abspath(output)})


@dataclasses.dataclass(frozen=True)
class Source:
    """Stands for a configuration object that names what is read."""

    path: str
    name: str = "web"


def test_inputs_in_configuration_objects_count_too(here):
    with pytest.raises(UserError, match="lies inside corpus"):
        places.check_arguments("prepare", {"output": "corpus/out", "sources": [Source("corpus")]})


@pytest.mark.parametrize("output", ["new", "new/deep/er", "new/", "corpus_2", "corpus.work", None, ""])
def test_places_beside_what_is_read_are_taken(here, output):
    (here / "empty").mkdir()
    places.check_arguments("tokenize", {"output": output, "documents": "corpus", "sources": [Source("gone")]})
    places.check_arguments("tokenize", {"output": "empty", "documents": "corpus", "work": "."})
    assert not (here / "new").exists()


@pytest.mark.parametrize("answers", [True, False])
def test_an_object_store_is_asked_before_anything_is_done(here, monkeypatch, answers):
    def exists(path):
        if not answers:
            raise OSError("no route to the store")
        return False

    monkeypatch.setattr(places.epath.gpath.PosixGPath, "exists", exists)
    if answers:
        places.check_output("gs://bucket/out", ["corpus"])
    else:
        with pytest.raises(
            UserError, match="output = gs://bucket/out cannot be reached .no route to the store.; check"
        ):
            places.check_output("gs://bucket/out", ["corpus"])


def test_what_may_not_be_read_is_said_before_it_seems_missing(here, monkeypatch):
    monkeypatch.setattr(places.os, "access", lambda *_, **__: False)
    with pytest.raises(UserError, match="tokenize: .*corpus.* cannot be read: no permission; change"):
        places.check_arguments("tokenize", {"documents": "corpus"})


def test_a_link_to_a_folder_is_a_folder(here):
    places.check_output("to_corpus")
