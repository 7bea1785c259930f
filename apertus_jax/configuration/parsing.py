"""Parser of gin files and flags into bindings: every name checked, every reference registered."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import gin

from apertus_jax.configuration.registry import bindables, borrowed_from, known_names, model_parts, signature
from apertus_jax.configuration.renames import new_name
from apertus_jax.configuration.statements import (
    SECRET,
    Binding,
    Macro,
    Place,
    Reference,
    bare,
    is_literal,
    nearest,
    nothing_called,
    read_file,
    read_flag,
)
from apertus_jax.configuration.values import mismatch, takes_text
from apertus_jax.errors import UserError
from apertus_jax.storage.places import OUTPUT

# A path, an address or a name; whatever has a meaning to gin or could end a value is left to gin.
BARE_TEXT = re.compile(r"(?![@%])[\w./:+~@%-]+")
LARGEST_VALUE = 100_000  # things in a value once macros are in their place; lists of lists of macros grow fast
# What lets other code run is said by the person at the command line, never by a file.
FLAGS_ONLY = {"evaluate_tasks": ("allow_code",), "prepare": ("beam_options",)}


@dataclasses.dataclass(frozen=True)
class GivenConfiguration:
    """Configuration as a person gave it: gin files, then bindings ("NAME = VALUE" each)."""

    gin_files: tuple[str, ...]
    bindings: tuple[str, ...]


_given = GivenConfiguration((), ())  # for a command that reads it again with other values


def given_configuration() -> GivenConfiguration:
    """Returns what `parse` read last."""
    return _given


def parse(gin_files: Sequence[str], bindings: Sequence[str], recorded: Sequence[str] = ()) -> list[Binding]:
    """Reads recorded configurations, gin files, then bindings, in this order; what was read before is forgotten.

    Args:
      gin_files: paths, or names below gin_configs/.
      bindings: "NAME = VALUE" each.
      recorded: files that a command wrote into its output; they may hold what commands write and nothing else.

    Returns:
      What was read, in order; of two bindings of one name the later holds.

    Raises:
      UserError: a file is missing or is not plain bindings, or one of them names what does not exist (the nearest names
        are shown).
    """
    global _given
    gin.clear_config()
    _given = GivenConfiguration(tuple(gin_files), tuple(bindings))
    read = [binding for name in recorded for binding in read_file(name, recorded=True)]
    read += [binding for name in gin_files for binding in read_file(name)]
    pairs = (line.partition("=") for line in bindings)
    read += [read_flag(name.strip(), _with_quotes(name.strip(), value.strip(" "))) for name, _, value in pairs]
    for binding in read:
        _check_names(binding)
    try:
        _check_macros(read)
        _check_scopes(read)
        _check_values(read)
        _check_loops(read)
    except RecursionError as error:
        raise UserError("gin: values refer to each other through too many macros; write them out") from error
    for binding in read:
        gin.bind_parameter(_key(binding), _as_gin(binding.value))
    gin.finalize()
    return read


def _with_quotes(name: str, value: str) -> str:
    """Returns the value of a flag, quoted when it is a bare word and its parameter takes text.

    What gin can read stays what it is: a number, True, a quoted text, @reference, %macro.
    """
    if not BARE_TEXT.fullmatch(value) or is_literal(value):
        return value
    owner, _, parameter = name.rpartition(".")
    bindable = bindables.get(bare(owner.rpartition("/")[2]))
    if bindable is None or parameter not in bindable.hints:
        return value
    return repr(value) if takes_text(bindable.hints[parameter]) else value


def rebind(values: Mapping[str, str]) -> None:
    """Binds names to values as a run recorded them, over what was parsed before.

    Raises:
      UserError: a value is not one literal or reference, names what does not exist, or says what no record may say:
        which folders are written, or that other code runs.
    """
    # Whoever wrote the record is not the person at this command line, so what holds for files holds for it.
    recorded = Place("the record of the run", 1)
    read = [dataclasses.replace(read_flag(name, value), place=recorded) for name, value in values.items()]
    for binding in read:
        _check_names(binding)
        if binding.parameter == OUTPUT:
            raise UserError(f"{recorded.source} binds {binding.name}: a record does not say where to write; restore it")
    with gin.unlock_config():
        for binding in read:
            gin.bind_parameter(_key(binding), _as_gin(binding.value))


def bind_in_every_scope(name: str, value: Any, read: Sequence[Binding]) -> list[Binding]:
    """Binds a name, and where a file binds it in a scope, there too; returns the bindings that no longer hold."""
    replaced = {binding.name: binding for binding in read if binding.name.rpartition("/")[2] == name}
    with gin.unlock_config():
        for each in (name, *replaced):
            gin.bind_parameter(each, value)
    return list(replaced.values())


def borrow(source: str, target: str) -> None:
    """Binds the parameters of `target` to what `source` has bound under the same names, where they have no binding."""
    borrowed_from[target] = source
    with gin.unlock_config():
        for name in signature(target).parameters:
            if not _is_bound(f"{target}.{name}") and _is_bound(f"{source}.{name}"):
                gin.bind_parameter(f"{target}.{name}", gin.query_parameter(f"{source}.{name}"))


def refer_to_options(command: str) -> None:
    """Binds every options class that a command takes, so that `AuditGrid.suffix = 50` is enough.

    Otherwise such a binding would be ignored without a word, and the defaults in effect would not be recorded. One that
    the command has no default for is bound when one of its parameters is.
    """
    made = {bindable.target: bindable.name for bindable in bindables.values() if inspect.isclass(bindable.target)}
    with gin.unlock_config():
        for parameter, options in bindables[command].options.items():
            if options not in made or _is_bound(f"{command}.{parameter}"):
                continue
            name, has_default = (
                made[options],
                signature(command).parameters[parameter].default is not inspect.Parameter.empty,
            )
            if has_default or any(_is_bound(f"{name}.{field}") for field in bindables[name].parameters):
                gin.bind_parameter(f"{command}.{parameter}", gin.config.ConfigurableReference(name, True))
                _refer_to_nested_options(name, made)


def _refer_to_nested_options(outer: str, made: Mapping[Any, str]) -> None:
    """Binds the options classes that another one is made of: fields whose default is an object of such a class."""
    for parameter, options in bindables[outer].options.items():
        made_by_default = isinstance(signature(outer).parameters[parameter].default, options)
        if options in made and made_by_default and not _is_bound(f"{outer}.{parameter}"):
            gin.bind_parameter(f"{outer}.{parameter}", gin.config.ConfigurableReference(made[options], True))


def _is_bound(name: str) -> bool:
    """Returns whether a gin file or flag has given `configurable.parameter` a value."""
    try:
        gin.query_parameter(name)
    except ValueError:  # gin has no other way to ask
        return False
    return True


def _key(binding: Binding) -> tuple[str, str, str]:
    """Returns how gin calls what is bound."""
    if binding.parameter:
        return binding.scope, binding.selector, binding.parameter
    return binding.name, "gin.macro", "value"


def _as_gin(value: Any) -> Any:
    """Returns a value with gin's own references in place of ours."""
    if isinstance(value, Reference):
        return gin.config.ConfigurableReference(value.name, value.called)
    if isinstance(value, Macro):
        return gin.config.ConfigurableReference(f"{value.name}/gin.macro", True)
    if isinstance(value, dict):
        return {_as_gin(key): _as_gin(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_as_gin, value))
    return value


def references_in(value: Any) -> Iterator[Reference | Macro]:
    """Yields the references and macros of a value, however deep they stand."""
    if isinstance(value, (Reference, Macro)):
        yield value
    elif isinstance(value, dict):
        yield from references_in([*value, *value.values()])
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from references_in(each)


def _check_names(binding: Binding) -> None:
    """Raises UserError when a binding or a reference in it names something that is not registered."""
    place = binding.place
    name = bare(binding.selector)
    if not binding.parameter:
        if name in known_names():
            raise UserError(f"gin: {binding.name} is no name for a value; write {binding.name}.PARAMETER ({place})")
    elif (new := new_name(name, binding.parameter)) is not None:
        raise UserError(f"gin: {binding.name} is called {new} now; bind that ({place})")
    elif name in model_parts:
        raise UserError(f"gin: {name} takes no bindings; a model has it by {model_parts[name].choice} ({place})")
    elif name not in known_names():
        raise UserError(f"gin: {nothing_called(name, known_names(), binding.selector)} ({place})")
    elif binding.parameter not in (known := bindables[name].parameters):
        raise UserError(
            f"gin: {binding.selector} has no parameter {binding.parameter!r}; {nearest(binding.parameter, known)} "
            f"({place})"
        )
    elif binding.parameter == SECRET and binding.value != "":
        raise UserError(
            f"gin: {binding.name} is not bound, because what is bound is recorded and seen by others; put the secret "
            f"into a file of mode 600 and give {name}.secret_file, or name an environment variable in "
            f"{name}.secret_variable ({place})"
        )
    elif not place.is_flag and _needs_a_flag(binding, name):
        raise UserError(
            f"gin: {binding.name} can make other code run, so no file binds it; remove it there and give "
            f"--gin.{binding.name}=VALUE if you mean it ({place})"
        )
    for reference in references_in(binding.value):
        if isinstance(reference, Reference):
            _check_reference(reference, place)


def _needs_a_flag(binding: Binding, name: str) -> bool:
    """Whether only the person at the command line may say this; records hold the defaults, which ask for nothing."""
    if binding.parameter not in FLAGS_ONLY.get(name, ()):
        return False
    return binding.value != signature(name).parameters[binding.parameter].default


def _check_reference(reference: Reference, place: Place) -> None:
    name = reference.bare
    if (new := new_name(name)) is not None:
        raise UserError(f"gin: {reference!r} is called @{new} now; write that ({place})")
    if name in model_parts:
        raise UserError(f"gin: {name} is no reference; a model has it by {model_parts[name].choice} ({place})")
    if name not in bindables:
        raise UserError(f"gin: {nothing_called(name, known_names(), reference.name)} ({place})")
    if bindables[name].is_command:
        raise UserError(f"gin: {reference!r} is a command; commands are run from the command line only ({place})")


def _check_macros(bindings: Iterable[Binding]) -> None:
    """Raises UserError when a macro has no value, leads back to itself, or is used nowhere."""
    bindings = list(bindings)
    values = {binding.name: binding for binding in bindings if not binding.parameter}
    used: dict[str, Place] = {}
    for binding in bindings:
        for macro in references_in(binding.value):
            if isinstance(macro, Macro):
                used.setdefault(macro.name, binding.place)
    for name, place in used.items():
        if name not in values:
            raise UserError(
                f"gin: %{name} is used and has no value; add a line {name} = VALUE, or --gin.{name}=VALUE ({place})"
            )
    sizes: dict[str, int] = {}
    for name, binding in values.items():
        if name not in used and not binding.place.from_library:
            raise UserError(
                f"gin: {name} is given a value and %{name} is used nowhere; {_macro_advice(name, used)} "
                f"({binding.place})"
            )
        if _leads_to_itself(name, values):
            raise UserError(
                f"gin: the value of {name} leads back to %{name}; give it a value of its own ({binding.place})"
            )
        if _size(binding.value, values, sizes) > LARGEST_VALUE:
            raise UserError(f"gin: {name} holds more than {LARGEST_VALUE:,} things; make it smaller ({binding.place})")


def _size(value: Any, values: dict[str, Binding], sizes: dict[str, int]) -> int:
    """Returns how many things a value holds once macros are in their place."""
    if isinstance(value, Macro):
        if value.name not in sizes:
            sizes[value.name] = 1  # a value that leads to itself is refused elsewhere
            sizes[value.name] = _size(values[value.name].value, values, sizes)
        return sizes[value.name]
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, (list, tuple)):
        return 1 + sum(_size(each, values, sizes) for each in value)
    return 1


def _macro_advice(name: str, used: Iterable[str]) -> str:
    return nearest(name, sorted(used)) if used else "remove it, or write NAME.PARAMETER = VALUE"


def _leads_to_itself(name: str, values: dict[str, Binding]) -> bool:
    pending, seen = [name], set()
    while pending:
        for macro in references_in(values[pending.pop()].value):
            if isinstance(macro, Macro) and macro.name == name:
                return True
            if isinstance(macro, Macro) and macro.name not in seen:
                seen.add(macro.name)
                pending.append(macro.name)
    return False


def _check_scopes(bindings: Iterable[Binding]) -> None:
    """Raises UserError when a binding holds in a scope that no reference opens, as after a typing error.

    References that a later binding replaced count too: who chooses among named things need not delete the others.
    """
    bindings = list(bindings)
    opened: set[str] = set()
    for binding in bindings:
        for reference in references_in(binding.value):
            scopes = reference.name.split("/")  # what a macro refers to is built in a scope of the macro's name
            scopes = scopes[:-1] if isinstance(reference, Reference) else scopes
            opened.update("/".join(scopes[:end]) for end in range(1, len(scopes) + 1))
    for binding in bindings:
        scope = binding.scope
        if binding.parameter and scope and scope not in opened and not binding.place.from_library:
            advice = nearest(scope, sorted(opened)) if opened else f"nothing refers to @{scope}/{binding.selector}"
            raise UserError(
                f"gin: {binding.name} holds in the scope {scope!r}, which nothing uses; {advice} ({binding.place})"
            )


def _check_values(bindings: Sequence[Binding]) -> None:
    """Raises UserError when a value cannot be what the parameter is annotated with; nothing is built for it."""
    macros = {binding.name: binding.value for binding in bindings if not binding.parameter}
    for binding in bindings:
        hints = bindables[bare(binding.selector)].hints if binding.parameter else {}
        if binding.parameter not in hints:
            continue
        if found := mismatch(_spelled_out(binding.value, macros), hints[binding.parameter]):
            raise UserError(found.told(binding.name, f" ({binding.place})"))


def _spelled_out(value: Any, macros: dict[str, Any]) -> Any:
    """Returns a value with the values of macros in their place."""
    if isinstance(value, Macro):
        return _spelled_out(macros[value.name], macros)
    if isinstance(value, dict):
        return {_spelled_out(key, macros): _spelled_out(item, macros) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_spelled_out(each, macros) for each in value)
    return value


def _check_loops(bindings: Sequence[Binding]) -> None:
    """Raises UserError when building something would need the thing itself, as gin resolves scopes."""
    values: dict[tuple[str, str], dict[str, Any]] = {}
    macros = {binding.name: binding.value for binding in bindings if not binding.parameter}
    for binding in bindings:
        if binding.parameter:
            values.setdefault((binding.scope, bare(binding.selector)), {})[binding.parameter] = binding.value
    done: set[tuple[str, ...]] = set()

    def build(scope: tuple[str, ...], name: str, above: tuple[tuple[str, ...], ...]) -> None:
        node = (*scope, name)
        if node in above:
            raise UserError(f"gin: building @{'/'.join(node)}() needs @{'/'.join(node)}() itself; break the circle")
        if node in done:
            return
        bound: dict[str, Any] = {}
        for end in range(len(scope) + 1):
            bound |= values.get(("/".join(scope[:end]), name), {})
        follow(list(bound.values()), scope, (*above, node))
        done.add(node)

    def follow(value: Any, scope: tuple[str, ...], above: tuple[tuple[str, ...], ...]) -> None:
        for reference in references_in(value):
            if isinstance(reference, Macro):
                follow(macros[reference.name], tuple(reference.name.split("/")), above)
            elif reference.called:
                build(tuple(reference.name.split("/")[:-1]) or scope, reference.bare, above)

    for scope, name in list(values):
        build(tuple(filter(None, scope.split("/"))), name, ())
