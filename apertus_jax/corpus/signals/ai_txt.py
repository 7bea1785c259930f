"""ai.txt (Spawning): a file beside robots.txt that refuses training by kind of file.

No published grammar was found, so this one is assumed: the groups and rules of robots.txt (RFC 9309), with patterns
that are mostly file endings (`Disallow: *.txt`). A page whose path has no ending is text all the same, and is asked for
under the endings `.html` and `.txt` too. A file that says something, but no rule in this grammar, is not understood.
"""

from __future__ import annotations

import re

from apertus_jax.corpus.robots import RobotsPolicy
from apertus_jax.corpus.robots_snapshot.lookup import BoundedCache
from apertus_jax.corpus.signals.host_files import HostFiles
from apertus_jax.corpus.signals.signal import ALLOW, DENY, NOT_ASKED, NOT_UNDERSTOOD, Page, Signal, evidence

TEXT_ENDINGS = (".html", ".txt")
_CACHED_BYTES = 8 << 20
_ENDING = re.compile(r"\.[A-Za-z0-9]{1,8}$")


class AiTxt:
    """Refuses where any agent of the set is refused the address of a page in ai.txt."""

    kind = "ai_txt"

    def __init__(self, files: HostFiles | None):
        self._files = files
        self._policies = BoundedCache(_CACHED_BYTES)

    def read(self, page: Page) -> Signal:
        """Returns deny, allow where a file exists and does not refuse, unknown without a file.

        Without a folder of collected files the verdict is not_asked; nothing else carries this signal.
        """
        if self._files is None:
            return Signal(self.kind, NOT_ASKED)
        address = page.address
        file = self._files.file(address.authority) if address is not None else None
        if address is None or file is None:
            return Signal(self.kind)
        policy = self._policies.get(address.authority)
        if policy is None:
            policy = RobotsPolicy.parse(file.body, mode="rfc9309", truncated=not file.is_sound)
            self._policies.put(address.authority, policy, len(file.body) + 256)
        origin = f"{address.scheme}://{address.authority}"
        for path in _spellings(address.path_and_query):
            verdict = policy.verdict(page.agents, origin + path)
            if not verdict.allowed:
                return Signal(self.kind, DENY, "ai.txt", evidence("disallow", file.stored), verdict.line)
        if not (file.is_sound and policy.is_understood):
            return Signal(self.kind, NOT_UNDERSTOOD, "ai.txt", evidence("not understood", file.stored))
        return Signal(self.kind, ALLOW, "ai.txt", evidence("no disallow", file.stored))


def _spellings(path_and_query: str) -> list[str]:
    """Returns the paths to ask for: the path itself, and with the endings of text when it has none."""
    path, question, query = path_and_query.partition("?")
    if _ENDING.search(path):
        return [path_and_query]
    stem = path + "index" if path.endswith("/") else path
    return [path_and_query, *(stem + ending + question + query for ending in TEXT_ENDINGS)]
