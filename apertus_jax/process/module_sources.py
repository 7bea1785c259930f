"""Digest of a module's source, with what it imports from its own package or folder: which code something was made with.

A package counts with every file in it; a module with its own file and, found by their import statements, the modules
beside it that it uses, as far as they go. Packages from elsewhere are not followed: their versions say what they are.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from apertus_jax.errors import UserError
from apertus_jax.process.interruptions import TimeLimitExceeded

IMPORT_COMMENT = "# imported: "  # what a record of bindings writes before the name of a module given by --import
MODULES = "modules"  # what the summary of a model folder calls them: name → what is recorded of it
DIGEST_BYTES = 32
INSTALLED = ("site-packages", "dist-packages")  # folders whose modules have nothing to do with each other
OWN_PACKAGE = "apertus_jax"


def source_digest(module: ModuleType) -> str:
    """Returns BLAKE2b of a module's source in hexadecimal: of its file where that is all, else of all files by name.

    Raises:
      UserError: the module is in no file.
    """
    origin = getattr(module, "__file__", None)
    if origin is None:
        raise UserError(f"module {module.__name__} has no file whose digest could be recorded; give a module in a file")
    path = Path(origin)
    if path.name == "__init__.py":
        return _digest_of_files({source.relative_to(path.parent): source for source in path.parent.rglob("*.py")})
    names = module.__name__.split(".")
    root = path.parents[min(len(names), len(path.parents)) - 1]
    files = {path.relative_to(root): path} | _used_files(module.__name__, path, root)
    if len(files) == 1:
        return hashlib.blake2b(path.read_bytes(), digest_size=DIGEST_BYTES).hexdigest()
    return _digest_of_files(files)


def foreign_source(thing: Any) -> dict[str, str]:
    """Returns {"source": digest} for an instance or class of a module outside of this package; {} for one of ours.

    It belongs into the identity of what was made with the thing. Code without a file, as of a notebook, has none.
    """
    kind = thing if isinstance(thing, type) else type(thing)
    module = sys.modules.get(kind.__module__)
    if not is_foreign(thing) or kind.__module__ in ("__main__", "__mp_main__", "builtins"):
        return {}
    if module is None or getattr(module, "__file__", None) is None:
        return {}
    return {"source": f"blake2b:{source_digest(module)}"}


def is_foreign(thing: Any) -> bool:
    """Returns whether an instance or class is of a module outside of this package."""
    kind = thing if isinstance(thing, type) else type(thing)
    return kind.__module__.partition(".")[0] != OWN_PACKAGE


def failure_of_foreign(thing: Any, error: Exception) -> UserError | None:
    """Returns the line for what a method of a thing from outside of this package raised; None for one of ours."""
    if not is_foreign(thing) or isinstance(error, (UserError, TimeLimitExceeded)):
        return None
    told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return UserError(f"{type(thing).__name__} of the module {type(thing).__module__} fails with {told}; correct it")


def _digest_of_files(files: dict[Path, Path]) -> str:
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for name in sorted(files):
        content = files[name].read_bytes()
        digest.update(f"{name.as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _used_files(name: str, path: Path, root: Path) -> dict[Path, Path]:
    """Returns the files below `root` that a module imports, directly or not; of a package, only files of the package.

    Files that are empty, as many an __init__.py, are left out.
    """
    top = name.partition(".")[0] if "." in name else None
    if top is None and root.name in INSTALLED:
        return {}
    files: dict[Path, Path] = {}
    pending, seen = [(name, path)], {name}
    while pending:
        importer, file = pending.pop()
        for imported in _imported_names(importer, file):
            if imported in seen or imported.partition(".")[0] == OWN_PACKAGE:
                continue
            seen.add(imported)
            found = _file_of(imported, root) if top in (None, imported.partition(".")[0]) else None
            if found is not None:
                pending.append((imported, found))
                if found.read_bytes().strip():
                    files[found.relative_to(root)] = found
    return files


def _file_of(name: str, root: Path) -> Path | None:
    place = root.joinpath(*name.split("."))
    return next((each for each in (place.with_suffix(".py"), place / "__init__.py") if each.is_file()), None)


def _imported_names(importer: str, file: Path) -> Iterator[str]:
    """Yields every module that a file may import: those it names, the packages they lie in, what it takes from them."""
    parts = importer.split(".")
    package = parts if file.name == "__init__.py" else parts[:-1]
    yield from (".".join(package[:end]) for end in range(1, len(package) + 1))
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            named = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = package[: len(package) + 1 - node.level] if node.level else []
            origin = origin + (node.module.split(".") if node.module else [])
            named = [origin, *([*origin, alias.name] for alias in node.names)]
        else:
            continue
        yield from (".".join(each[:end]) for each in named for end in range(1, len(each) + 1))
