"""Gin configuration at the edge: which names are bindable, how files are read, what was in effect.

Nothing below the commands reads gin. Gin files are data: bindings of registered names to literals and references.
"""

from apertus_jax.configuration.calls import built_arguments
from apertus_jax.configuration.modules import check_recorded_modules, import_modules, recorded_modules
from apertus_jax.configuration.names import CONFIGURABLES, register
from apertus_jax.configuration.parsing import (
    GivenConfiguration,
    bind_in_every_scope,
    borrow,
    given_configuration,
    parse,
    rebind,
    refer_to_options,
    references_in,
)
from apertus_jax.configuration.recording import (
    OPERATIVE_CONFIG,
    effective_bindings,
    operative_text,
    parse_bindings,
    record_bindings,
    resolved_bindings,
)
from apertus_jax.configuration.registry import (
    imported_bindings,
    imported_names,
    known_names,
    name_flags,
    options_of,
    signature,
)
from apertus_jax.configuration.statements import GIN_CONFIGS

__all__ = [
    "CONFIGURABLES",
    "GIN_CONFIGS",
    "GivenConfiguration",
    "OPERATIVE_CONFIG",
    "bind_in_every_scope",
    "borrow",
    "built_arguments",
    "check_recorded_modules",
    "effective_bindings",
    "given_configuration",
    "import_modules",
    "imported_bindings",
    "imported_names",
    "known_names",
    "name_flags",
    "options_of",
    "operative_text",
    "parse",
    "parse_bindings",
    "rebind",
    "record_bindings",
    "recorded_modules",
    "refer_to_options",
    "references_in",
    "resolved_bindings",
    "register",
    "signature",
]
