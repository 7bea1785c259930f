"""Shell completion: commands, flags, gin files and bindable names, without importing jax.

argcomplete, which `register-python-argcomplete apertus` connects with bash, zsh or fish, does the work; here is what it
cannot know: names after `--gin.`, and gin files that are found in the package.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from apertus_jax.command_line.parser import build_parser
from apertus_jax.commands import locations

ASKED = "_ARGCOMPLETE"  # set by the shell when it asks
GIN_FLAG = "--gin."


def complete(exit_method: Callable[[int], Any] = os._exit) -> None:
    """Answers a shell that asks what may follow, and ends the process; returns where no shell asks."""
    if ASKED not in os.environ:
        return
    try:
        from argcomplete import CompletionFinder
    except ModuleNotFoundError:  # whoever registers the completion has it; a shell shows no message of ours
        exit_method(1)
        return

    class Finder(CompletionFinder):
        """Also completes names after `--gin.`."""

        def collect_completions(
            self, active_parsers: Any, parsed_args: argparse.Namespace, cword_prefix: str
        ) -> list[str]:
            """Returns what may stand in place of the word that was begun."""
            if cword_prefix.startswith(GIN_FLAG):
                return bindings_that_begin(cword_prefix.removeprefix(GIN_FLAG))
            return super().collect_completions(active_parsers, parsed_args, cword_prefix)

    Finder()(_parser_with_completers(), always_complete_options="long", exit_method=exit_method)


def _parser_with_completers() -> argparse.ArgumentParser:
    parser = build_parser()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for name, command in commands.choices.items():
        for action in command._actions:
            if action.dest == "gin_file":
                action.completer = lambda prefix, **_: list(gin_files_that_begin(prefix))
            elif name == "help" and not action.option_strings:
                action.completer = lambda prefix, **_: [
                    each for each in bindable_locations() if each.startswith(prefix)
                ]
            elif action.dest in ("date", "modules", "task", "tasks", "steps", "step", "prompt", "devices"):
                action.completer = lambda **_: []  # nothing that could be guessed; files would mislead
    return parser


def bindable_locations() -> dict[str, str]:
    """Returns bindable name → "module:name", without those of a lab's own modules."""
    from apertus_jax.configuration.names import CONFIGURABLES

    listed = [f"{module}:{name}" for module, names in CONFIGURABLES.items() for name in names]
    return {location.partition(":")[2]: location for location in (*listed, *locations())}


def bindings_that_begin(prefix: str) -> list[str]:
    """Returns the flags `--gin.NAME.` that begin so, or `--gin.NAME.PARAMETER=` where one name is left."""
    from apertus_jax.configuration.parameters_in_source import parameters_in_source

    known = bindable_locations()
    owner, dot, parameter = prefix.partition(".")
    owners = [owner] if dot else sorted(name for name in known if name.startswith(owner))
    if len(owners) != 1:
        return [f"{GIN_FLAG}{name}." for name in owners]
    if owners[0] not in known:
        return []
    parameters = parameters_in_source(known[owners[0]])
    return [f"{GIN_FLAG}{owners[0]}.{name}=" for name in parameters if name.startswith(parameter)]


def gin_files_that_begin(prefix: str) -> Iterator[str]:
    """Yields gin files and folders below this folder, then those of the package, by the names that commands take."""
    from apertus_jax.configuration.statements import GIN_CONFIGS

    for root in (Path("."), GIN_CONFIGS):
        folder = root / os.path.dirname(prefix)
        for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
            name = os.path.join(os.path.dirname(prefix), entry.name)
            if (
                not entry.name.startswith(".")
                and name.startswith(prefix)
                and (entry.is_dir() or entry.suffix == ".gin")
            ):
                yield f"{name}/" if entry.is_dir() else name
