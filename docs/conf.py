"""Sphinx configuration of the site: `make docs` builds it from docs/ into build/docs, every warning an error."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

from pygments.lexers.python import PythonLexer  # noqa: E402

from apertus_jax import __version__  # noqa: E402

project = "apertus_jax"
version = release = __version__
html_title = f"apertus_jax {__version__}"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "command_reference"]
html_theme = "furo"
html_copy_source = False
html_show_sphinx = False
# Docstrings are plain text with `names` and Google's sections.
default_role = "code"
# An attribute is described once, in its class, also where its default has a docstring of its own.
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
add_module_names = False
myst_heading_anchors = 4
# A reference to a function of ours that does not exist is an error. Classes stand in annotations too, of other projects
# and of modules that have no page.
nitpicky = True
nitpick_ignore_regex = [("py:class", ".*"), ("py:.*", r"(?!apertus_jax\.).*")]


def setup(app):
    """Gin's bindings are coloured as Python, from which they take their literals."""
    app.add_lexer("gin", PythonLexer)
