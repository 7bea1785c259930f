"""Protego 0.7.0 asked the way Apertus asked it, so that published figures can be reproduced (arXiv 2509.14233 §3.1.1).

Apertus kept a document wherever the parser failed; so does this. The library has no line numbers to give.
"""

from __future__ import annotations

import functools
import importlib.metadata

from protego import Protego

from apertus_jax.corpus.robots.robots_file import limited


@functools.cache
def protego_version() -> str:
    """Returns the installed version, which decides verdicts and belongs to their provenance."""
    return importlib.metadata.version("protego")


class ProtegoAnswers:
    """Protego's verdicts about one file; where it fails on a URL the answer is yes."""

    def __init__(self, body: bytes | str, truncated: bool = False):
        octets, self.truncated = limited(body, truncated)
        self._parser = Protego.parse(octets.decode("utf-8", "replace"))

    def allows(self, agent: str, url: str) -> bool:
        """Returns whether the agent may fetch the URL, or a path that starts with `/`."""
        try:
            return self._parser.can_fetch(url, agent)
        except ValueError:  # a URL that urllib cannot split
            return True
