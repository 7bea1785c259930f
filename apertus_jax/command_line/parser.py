"""Argument parser of the command line, made from the table of commands; its help lists every parameter."""

from __future__ import annotations

import argparse
import re
import textwrap
from typing import Any, NoReturn

from apertus_jax import __version__
from apertus_jax.commands import COMMANDS, MACHINE_FLAGS, PLAIN_FLAGS, Command
from apertus_jax.errors import UserError
from apertus_jax.process.missing_packages import as_missing_package
from apertus_jax.process.surroundings import PLATFORMS, prepare_jax

DEBUG_FLAG = "--debug"
HELP_WIDTH = 100
MAX_DEVICES = 4096  # of one machine; each simulated one takes threads
SHELL_WORD = re.compile(r"""(?:[^\s"']|"[^"]*"|'[^']*')+""")


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, as those of the commands are."""

    def error(self, message: str) -> NoReturn:
        """Raises UserError in place of printing the usage."""
        raise UserError(f"{message}; see {self.prog} --help")


def build_parser(described: str = "") -> argparse.ArgumentParser:
    """Returns the parser of the whole command line; the help of the command `described` lists its parameters."""
    parser = _Parser(
        prog="apertus",
        description="Pretrain Apertus language models in JAX.",
        epilog="Start with: apertus run --gin_file=gin_configs/quickstart.gin",
    )
    parser.add_argument("--version", action="version", version=f"apertus_jax {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=command.summary,
            description=textwrap.fill(f"{name}: {command.summary}.", HELP_WIDTH),
            epilog=f"{parameters_of(command) if name == described else ''}Example:\n{wrapped_example(command.example)}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        _add_common_flags(sub)
        if command.positional:
            many: dict[str, Any] = {"nargs": "+"} if command.positional_many else {}
            sub.add_argument(command.positional, help=f"sets {command.function}.{command.positional}", **many)
        for flag in command.every_flag():
            about = PLAIN_FLAGS if flag in command.flags or flag in command.variants else MACHINE_FLAGS
            sub.add_argument(f"--{flag}", help=about[flag], **_details(command, flag))
    return parser


def _add_common_flags(parser: argparse.ArgumentParser) -> None:
    """Adds what every command takes."""
    parser.add_argument("--gin_file", action="append", default=[], metavar="FILE", help="gin file (repeatable)")
    parser.add_argument(
        "--gin.NAME=VALUE",
        dest="unused",
        action="store_true",
        help="bind one gin name, for example --gin.SEED=1 (repeatable)",
    )
    parser.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="let gin bind what a module of yours lists in __all__, for example my_lab.masks (repeatable)",
    )
    parser.add_argument("--print_config", action="store_true", help="print the configuration in effect and run nothing")
    parser.add_argument(DEBUG_FLAG, action="store_true", help="show the traceback of what goes wrong")


def _details(command: Command, flag: str) -> dict[str, Any]:
    """Returns what argparse is told of a plain flag beside its help."""
    if flag == "device" and flag not in command.flags:
        return {"choices": PLATFORMS}
    if flag in ("json", "full", "list", "init_optimizer"):
        return {"action": "store_const", "const": True}
    if flag == "devices":
        return {"type": whole_number if flag in command.flags else number_of_devices, "metavar": "N"}
    details: dict[str, dict[str, Any]] = {
        "prompt": {"action": "append"},
        "vary": {"action": "append"},
        "best_of": {"action": "append"},
        "steps": {"type": whole_number, "metavar": "N"},
        "step": {"type": whole_number, "metavar": "N"},
        "init_step": {"type": whole_number, "metavar": "N"},
        "date": {"metavar": "DAY"},
    }
    return details.get(flag, {})


def wrapped_example(example: str) -> str:
    """Returns a command in lines of about 100 characters, as a shell takes them: quoted text stays on one line."""
    lines = [""]
    for word in SHELL_WORD.findall(example):
        if lines[-1] and len(lines[-1]) + len(word) > HELP_WIDTH - 8:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return " \\\n".join(f"{'    ' if number else '  '}{line}" for number, line in enumerate(lines))


def parameters_of(command: Command) -> str:
    """Returns the part of a command's help that lists its parameters, of each variant too."""
    from apertus_jax.configuration.descriptions import describe_location

    prepare_jax()
    parts = []
    for each in (command, *command.variants.values()):
        try:
            parameters = describe_location(each.location, flags_of(each))
        except ModuleNotFoundError as error:
            missing = as_missing_package(error)
            if missing is None:
                raise
            parameters = f"  not shown: {missing}"
        parts.append(
            f"Parameters, bound as --gin.{each.function}.NAME=VALUE or in a gin file. In a flag, text needs\n"
            f"no inner quotes. `apertus help NAME` describes any name:\n{parameters}\n\n"
        )
    return "".join(parts)


def flags_of(command: Command) -> dict[str, str]:
    """Returns parameter → the plain flag that sets it; where two do, the one with the parameter's own name."""
    found = {parameter: flag for flag, parameter in command.flags.items() if flag == "input"}
    return found | {parameter: flag for flag, parameter in command.flags.items() if flag != "input"}


def whole_number(text: str) -> int:
    """Returns a number of steps; `int` would also take other digits than 0 to 9, and underscores."""
    if not re.fullmatch(r"[0-9]{1,15}", text) or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def number_of_devices(text: str) -> int:
    """Returns a number of devices of this machine."""
    if (number := whole_number(text)) > MAX_DEVICES:
        raise argparse.ArgumentTypeError(f"{text} devices are more than {MAX_DEVICES:,}")
    return number


def machine_flags(command: Command, options: argparse.Namespace) -> tuple[str, int]:
    """Returns what --device and --devices say of this machine: "" and 0 where they say nothing."""
    if not command.computes:
        return "", 0
    device, devices = (getattr(options, flag) for flag in MACHINE_FLAGS)
    return device or "", devices or 0
