"""What can be wrong with a path that a command is given: each situation makes one, in a folder of its own."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

LONG_NAME = "n" * 300
DEEP = "[" * 100_000
MANY_DIGITS = "9" * 5_000
FOREIGN_MARKER = '{"tool": "another", "created": "2026-01-01"}\n'
COMMITTED, BUILDING = "COMMITTED.json", "BUILDING.json"


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a situation is made.

    Attributes:
      folder: an empty folder of this cell.
      good: the artefact of the workspace that the command would get; its parent for an output.
      marker: the file in `good` whose damage has to be noticed.
    """

    folder: Path
    good: Path
    marker: str = COMMITTED

    def copy(self) -> Path:
        """Returns a copy of the good artefact, to be spoilt."""
        target = self.folder / self.good.name
        return Path(shutil.copytree(self.good, target) if self.good.is_dir() else shutil.copyfile(self.good, target))


def missing(place: Place) -> Path:
    """Nothing is there."""
    return place.folder / "absent"


def wrong_kind(place: Place) -> Path:
    """A file where a folder is read, a folder where a file is."""
    path = place.folder / f"wrong{place.good.suffix}"
    path.write_text("x") if place.good.is_dir() else path.mkdir()
    return path


def empty(place: Place) -> Path:
    """A folder or file without content."""
    path = place.folder / f"empty{place.good.suffix}"
    path.mkdir() if place.good.is_dir() else path.touch()
    return path


def dangling_link(place: Place) -> Path:
    """A link to nothing."""
    path = place.folder / f"dangling{place.good.suffix}"
    path.symlink_to(place.folder / "gone")
    return path


def link_loop(place: Place) -> Path:
    """A link to itself."""
    path = place.folder / f"loop{place.good.suffix}"
    path.symlink_to(path)
    return path


def fifo(place: Place) -> Path:
    """A named pipe that nobody writes to."""
    path = place.folder / f"pipe{place.good.suffix}"
    os.mkfifo(path)
    return path


def long_name(place: Place) -> Path:
    """A name longer than file systems take."""
    return place.folder / (LONG_NAME + place.good.suffix)


def below_a_file(place: Place) -> Path:
    """A path of which a part is a file."""
    (place.folder / "file").touch()
    return place.folder / "file" / "inside"


def _with_marker(place: Place, content: bytes) -> Path:
    """A copy whose marker has this content; of an input that is a file, the copy itself."""
    path = place.copy()
    (path / place.marker if path.is_dir() else path).write_bytes(content)
    return path


def foreign_marker(place: Place) -> Path:
    """The marker is another tool's."""
    return _with_marker(place, FOREIGN_MARKER.encode())


def truncated_json(place: Place) -> Path:
    """The marker ends in the middle."""
    source = place.good / place.marker if place.good.is_dir() else place.good
    content = source.read_bytes()
    return _with_marker(place, content[: len(content) // 2 - 1])


def deep_json(place: Place) -> Path:
    """The marker nests a hundred thousand lists."""
    return _with_marker(place, DEEP.encode())


def many_digits(place: Place) -> Path:
    """The marker holds a number of five thousand digits."""
    return _with_marker(place, f'{{"kind": {MANY_DIGITS}, "text": {MANY_DIGITS}}}\n'.encode())


def lone_surrogates(place: Place) -> Path:
    """The marker holds half of a surrogate pair, which is no text."""
    return _with_marker(place, b'{"kind": "\\ud800", "digest": "\\udfff", "id": "\\ud800", "text": "\\ud800"}\n')


def not_utf8(place: Place) -> Path:
    """The marker is in Latin-1."""
    return _with_marker(place, '{"kind": "é", "text": "é"}\n'.encode("latin-1"))


def list_for_object(place: Place) -> Path:
    """The marker is JSON, but a list."""
    return _with_marker(place, b"[1, 2, 3]\n")


def marker_is_a_folder(place: Place) -> Path:
    """Where the marker should be is a folder."""
    path = place.copy()
    (path / place.marker).unlink()
    (path / place.marker).mkdir()
    return path


def marker_is_a_fifo(place: Place) -> Path:
    """Where the marker should be is a named pipe."""
    path = place.copy()
    (path / place.marker).unlink()
    os.mkfifo(path / place.marker)
    return path


def half_a_table(place: Place) -> Path:
    """Every Parquet, NumPy, safetensors and token file of the artefact is cut in half."""
    path = place.copy()
    for file in path.rglob("*"):
        if file.suffix in (".parquet", ".npy", ".npz", ".bin", ".idx", ".safetensors"):
            os.truncate(file, file.stat().st_size // 2)
    return path


def loop_inside(place: Place) -> Path:
    """A link in the folder leads back to it."""
    path = place.copy()
    (path / "again").symlink_to(path)
    (path / "zz_loop").symlink_to(path / "zz_loop")
    return path


# Whether the situation is of a folder, a file, or either kind of input.
INPUTS: dict[str, tuple[Callable[[Place], Path], str]] = {
    "missing": (missing, "any"),
    "wrong kind": (wrong_kind, "any"),
    "empty": (empty, "any"),
    "dangling link": (dangling_link, "any"),
    "link loop": (link_loop, "any"),
    "fifo": (fifo, "any"),
    "long name": (long_name, "any"),
    "below a file": (below_a_file, "any"),
    "foreign marker": (foreign_marker, "any"),
    "truncated json": (truncated_json, "any"),
    "deep json": (deep_json, "any"),
    "many digits": (many_digits, "any"),
    "lone surrogates": (lone_surrogates, "any"),
    "not utf-8": (not_utf8, "any"),
    "list for object": (list_for_object, "any"),
    "marker is a folder": (marker_is_a_folder, "marked"),
    "marker is a fifo": (marker_is_a_fifo, "marked"),
    "half a table": (half_a_table, "tables"),
}


def file_as_output(place: Place) -> Path:
    """The output is a file with content."""
    path = place.folder / "thesis.txt"
    path.write_text("years of work")
    return path


def strangers_folder(place: Place) -> Path:
    """The output holds a stranger's file."""
    (place.folder / "theirs").mkdir()
    (place.folder / "theirs" / "thesis.txt").write_text("years of work")
    return place.folder / "theirs"


def foreign_building(place: Place) -> Path:
    """The output holds a stranger's file and a marker of another tool."""
    path = strangers_folder(place)
    (path / BUILDING).write_text(FOREIGN_MARKER)
    return path


def foreign_committed(place: Place) -> Path:
    """The output holds a stranger's file and another tool's commit marker."""
    path = strangers_folder(place)
    (path / COMMITTED).write_text(FOREIGN_MARKER)
    return path


def inside_an_input(place: Place) -> Path:
    """The output lies in what is read."""
    return place.good / "below"


def tilde(place: Place) -> Path:
    """The shell did not expand the home folder."""
    return Path("~nobody_of_this_name/out")


OUTPUTS: dict[str, Callable[[Place], Path]] = {
    "file as output": file_as_output,
    "output below a file": below_a_file,
    "output is a dangling link": dangling_link,
    "output is a link loop": link_loop,
    "output is a fifo": fifo,
    "output with a long name": long_name,
    "output is a stranger's folder": strangers_folder,
    "output with a foreign building mark": foreign_building,
    "output with a foreign commit mark": foreign_committed,
    "output inside an input": inside_an_input,
    "output below a tilde": tilde,
}
ADDRESSES = ("gs://bucket-of-nobody-9f1c/out", "s3://bucket-of-nobody-9f1c/out", "https://host.invalid/out")


def no_permission(place: Place) -> Path:
    """An input that nobody may read."""
    path = place.copy()
    path.chmod(0)
    return path


def no_permission_to_write(place: Place) -> Path:
    """An output in a folder that nobody may write to."""
    (place.folder / "closed").mkdir(mode=0o555)
    return place.folder / "closed" / "out"


def latin1_gin(place: Place) -> Path:
    """A gin file in Latin-1."""
    path = place.folder / "latin1.gin"
    path.write_bytes("SEED = 'é'\n".encode("latin-1"))
    return path


def deep_gin(place: Place) -> Path:
    """A gin file that nests a hundred thousand brackets."""
    path = place.folder / "deep.gin"
    path.write_text(f"SEED = {DEEP}\n")
    return path


def importing_gin(place: Place) -> Path:
    """A gin file that wants to import."""
    path = place.folder / "importing.gin"
    path.write_text("import os\n")
    return path


def dynamic_gin(place: Place) -> Path:
    """A gin file that wants to name anything by attribute."""
    path = place.folder / "dynamic.gin"
    path.write_text("from __gin__ import dynamic_registration\nimport apertus_jax.cli\n")
    return path


def including_gin(place: Place) -> Path:
    """A gin file that includes a file of the machine."""
    path = place.folder / "including.gin"
    path.write_text("include '/etc/passwd'\n")
    return path


def own_include_gin(place: Place) -> Path:
    """A gin file that includes itself."""
    path = place.folder / "own.gin"
    path.write_text("include 'own.gin'\n")
    return path


GIN_FILES: dict[str, Callable[[Place], Path]] = {
    "gin file missing": missing,
    "gin file is a folder": lambda place: place.folder,
    "gin file is a fifo": fifo,
    "gin file is a link loop": link_loop,
    "gin file is a dangling link": dangling_link,
    "gin file with a long name": long_name,
    "gin file not utf-8": latin1_gin,
    "gin file too deep": deep_gin,
    "gin file imports": importing_gin,
    "gin file registers": dynamic_gin,
    "gin file includes a foreign file": including_gin,
    "gin file includes itself": own_include_gin,
}
