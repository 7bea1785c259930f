"""Sphinx directives of the reference: the help of every command, and of every name that gin files bind."""

import os

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

os.environ["COLUMNS"] = "100"  # argparse and rich ask for the width of the terminal


def section(title, text):
    """Returns a section with a title and a block of text as it is printed."""
    block = nodes.literal_block(text, text, language="text")
    return nodes.section("", nodes.title(title, title), block, ids=[nodes.make_id(title)], names=[title])


class Commands(SphinxDirective):
    """`{commands}`: a section for each command, with what `apertus COMMAND --help` prints."""

    def run(self):
        from apertus_jax.command_line.parser import build_parser
        from apertus_jax.commands import COMMANDS

        found = []
        for name in COMMANDS:
            parser = build_parser(described=name)
            (commands,) = (action for action in parser._actions if action.dest == "command")
            found.append(section(f"apertus {name}", commands.choices[name].format_help()))
        return found


class BindableNames(SphinxDirective):
    """`{bindable-names}`: a section for each name, with what `apertus help NAME` prints."""

    def run(self):
        from apertus_jax import configuration
        from apertus_jax.commands import locations
        from apertus_jax.configuration.descriptions import describe
        from apertus_jax.configuration.registry import bindables

        configuration.register(locations())
        return [section(name, describe(bindables[name])) for name in sorted(bindables, key=str.lower)]


def setup(app):
    app.add_directive("commands", Commands)
    app.add_directive("bindable-names", BindableNames)
    return {"parallel_read_safe": True}
