"""Command-line entry point: gin files, bindings and flags become a call; every outcome becomes one line."""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import re
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from apertus_jax.command_line.closing_line import COMMANDS_THAT_TELL, closing_line
from apertus_jax.command_line.completion import complete
from apertus_jax.command_line.flags import Given, given_flags, split_gin_flags, told_in_flags
from apertus_jax.command_line.parser import DEBUG_FLAG, build_parser, flags_of, machine_flags, wrapped_example
from apertus_jax.commands import COMMANDS, PLAIN_FLAGS, Command, locations
from apertus_jax.errors import REQUEUE_STATUS, TemporaryFailure, UserError
from apertus_jax.process.failures import as_user_error
from apertus_jax.process.interruptions import exit_status, signals_interrupt, told
from apertus_jax.process.surroundings import (
    check_address_space,
    check_devices,
    choose_devices,
    prepare_arrow,
    prepare_jax,
)
from apertus_jax.terminal.progress import Heartbeat
from apertus_jax.terminal.streams import prepare_logs, prepare_streams, silence_late_storage_callbacks
from apertus_jax.terminal.terminal_text import one_line, printable, printable_text

if TYPE_CHECKING:
    from apertus_jax.configuration.statements import Binding

__all__ = ["COMMANDS", "PLAIN_FLAGS", "Command", "build_parser", "call", "locations", "main", "prepare_arrow"]
__all__ += ["given_flags", "one_line", "prepare_jax", "split_gin_flags", "wrapped_example"]
_log = logging.getLogger("configuration")

BAD_INPUT_STATUS = 2
INTERNAL_ERROR_STATUS = 70  # EX_SOFTWARE
LONGEST_REASON = 300
LONGEST_FLAG = 2**18
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def call(
    command: Command,
    gin_files: Sequence[str],
    bindings: Sequence[str],
    given: Sequence[Given],
    modules: Sequence[str] = (),
    print_only: bool = False,
    machine: tuple[str, int] = ("", 0),
) -> Any:
    """Parses the configuration and calls one command with it, or only prints what it would be called with.

    `modules` are those given by --import, `machine` is what --device and --devices say.
    """
    if command.uses_jax:
        choose_devices(*machine)
        prepare_jax()
    prepare_arrow()
    values = {each.binding.removeprefix(f"{command.function}."): each.value for each in given}
    try:
        import gin  # after the environment is set: registering imports jax
    except ModuleNotFoundError:
        if not command.standalone or gin_files or bindings or modules:
            raise
        module, _, name = command.location.partition(":")
        return getattr(importlib.import_module(module), name)(**values)
    from apertus_jax import configuration

    configuration.register(locations())
    configuration.name_flags(command.function, flags_of(command))
    check_address_space(command.uses_jax)  # once everything is imported, which takes the most of it
    configuration.import_modules(modules)
    for parameter in command.made_with_modules:
        if folder := values.get(parameter):
            configuration.check_recorded_modules(folder)
    if command.records_itself and values.get("output"):
        configuration.check_recorded_modules(values["output"], goes_on=True)
    read = configuration.parse(gin_files, bindings, _recorded(command, values))
    if command.borrows:
        configuration.borrow(command.borrows, command.function)
    configuration.refer_to_options(command.function)
    _bind_flags(command, given, read)
    if print_only:
        bindings_in_effect = configuration.resolved_bindings(command.function)
        lines = [f"# {command.location} would be called with this; nothing was run."]
        print(printable_text("\n".join([*lines, *(f"{name} = {value}" for name, value in bindings_in_effect.items())])))
        return None
    if not _joins_others(command):
        check_devices(*machine)
    result = gin.get_configurable(command.function)()
    records = not command.records_itself or (command.records_imports and configuration.imported_bindings())
    if "output" in command.flags and records:
        configuration.record_bindings(command.function)
    return result


def _recorded(command: Command, values: dict[str, Any]) -> list[str]:
    """Returns the recorded configurations that hold for a command."""
    from apertus_jax.configuration import OPERATIVE_CONFIG

    if not command.recorded_in or not values.get(command.recorded_in):
        return []
    recorded = os.path.join(values[command.recorded_in], OPERATIVE_CONFIG)
    try:
        os.lstat(recorded)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{recorded} does not exist; give a folder that `apertus run` wrote") from error
    return [recorded]


def _bind_flags(command: Command, given: Sequence[Given], read: Sequence[Binding]) -> None:
    """Binds what the plain flags say, in every scope, and says which bindings of gin files they replace.

    Raises:
      UserError: a flag binds a parameter of something that this configuration does not refer to.
    """
    from apertus_jax import configuration

    references = [each for binding in read for each in configuration.references_in(binding.value)]
    used = {each.name.rpartition("/")[2] for each in references} | {*configuration.options_of(command.function)}
    for each in given:
        for replaced in configuration.bind_in_every_scope(each.binding, each.value, read):
            if replaced.value != each.value:
                name = replaced.name
                _log.info("%s holds in place of %s = %r (%s)", each.typed, name, replaced.value, replaced.place)
        owner = each.binding.partition(".")[0]
        if owner not in used and owner not in {command.function for command in _every_command()}:
            raise UserError(
                f"{each.typed} is for @{owner}(), which this configuration does not use; give a gin file that does "
                f"(--gin_file), or leave {each.typed.partition('=')[0]} out"
            )


def _every_command() -> list[Command]:
    return [each for command in COMMANDS.values() for each in (command, *command.variants.values())]


def _joins_others(command: Command) -> bool:
    """Whether the command connects with other processes before it may ask for devices."""
    import gin

    try:
        return bool(gin.query_parameter(f"{command.function}.distributed"))
    except ValueError:  # not bound, or no such parameter
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status.

    0 when it is done, 2 with one line on bad input, 70 with one line on a bug of ours, 75 with one line when the same
    command is to be started again (`TemporaryFailure`), 128 and the number of the signal when it was interrupted. With
    --debug the traceback stands before the line.
    """
    complete()
    prepare_streams()
    prepare_logs()
    silence_late_storage_callbacks()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = DEBUG_FLAG in arguments
    arguments = [argument for argument in arguments if argument != DEBUG_FLAG]
    try:
        with signals_interrupt():
            _run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt as interruption:
        # An interruption within `exec` of a text (dataclasses are made by one) leaves a mark in CPython by which
        # `python -m` dies of SIGINT although it was caught; the next `exec` takes the mark away.
        exec("")
        return _complain(told(interruption), interruption, debug, exit_status(interruption))
    except Exception as error:
        failure = as_user_error(error, arguments[0] if arguments else "apertus")
        if failure is not None:
            status = REQUEUE_STATUS if isinstance(failure, TemporaryFailure) else BAD_INPUT_STATUS
            return _complain(one_line(failure), error, debug, status)
        if line := _failure_of_module(error):
            return _complain(
                f"{line}; {'see above' if debug else '--debug shows where'}", error, debug, BAD_INPUT_STATUS
            )
        reason = f"internal error: {type(error).__name__}: {one_line(error)[:LONGEST_REASON]}"
        advice = "report it with the traceback above" if debug else "run again with --debug and report the traceback"
        return _complain(f"{reason}; {advice}", error, debug, INTERNAL_ERROR_STATUS)
    return 0


def _run(arguments: Sequence[str]) -> None:
    for number, argument in enumerate(arguments, 1):
        if LONE_SURROGATE.search(argument):
            shown = argument.encode("utf-8", "backslashreplace").decode()
            raise UserError(f"argument {number} is not UTF-8: {shown[:LONGEST_REASON]}; give it in UTF-8")
        if argument.startswith("--gin.") and len(argument) > LONGEST_FLAG:
            raise UserError(f"{argument[:LONGEST_REASON]}… is longer than {LONGEST_FLAG:,} characters; use a gin file")
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        close = difflib.get_close_matches(arguments[0], COMMANDS, n=3) or list(COMMANDS)
        raise UserError(f"there is no command {arguments[0]!r}; did you mean {', '.join(close)}?")
    others, bindings = split_gin_flags(arguments)
    described = others[0] if {"-h", "--help"} & set(others) else ""
    options = build_parser(described).parse_args(others)
    command = COMMANDS[options.command].chosen(options)
    given = given_flags(command, options, bindings)
    machine = machine_flags(command, options)
    try:
        with Heartbeat(options.command):
            call(command, options.gin_file, bindings, given, options.modules, options.print_config, machine)
        if "output" in command.flags and not options.print_config:
            _tell_what_was_done(options.command, command)
    except Exception as error:
        failure = as_user_error(error, options.command)
        if failure is None:
            raise
        kind = TemporaryFailure if isinstance(failure, TemporaryFailure) else UserError
        raise kind(told_in_flags(str(failure), command, given)).with_traceback(error.__traceback__) from error


def _failure_of_module(error: BaseException) -> str:
    """Returns the line for what the code of a module of the user's own raised, "" for ours."""
    modules = sys.modules.get("apertus_jax.configuration.modules")  # else none was imported
    return modules.failure_of_module(error) if modules else ""


def _tell_what_was_done(name: str, command: Command) -> None:
    """Prints the closing line of a command that writes a folder."""
    if name in COMMANDS_THAT_TELL:
        return
    import gin

    try:
        output = gin.query_parameter(f"{command.function}.output")
    except ValueError:  # not bound
        output = ""
    line = closing_line(name, output) if output else f"{name}: nothing was written; --output=FOLDER keeps it"
    if line:
        print(printable(line), file=sys.stderr, flush=True)


def _complain(line: str, error: BaseException, debug: bool, status: int) -> int:
    """Prints the one line for people, after the traceback if that was asked for, and returns the status."""
    if debug:
        print(printable_text("".join(traceback.format_exception(error))), file=sys.stderr)
    print(f"apertus: {line}", file=sys.stderr)
    return status
