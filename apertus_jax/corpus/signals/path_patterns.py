"""Path patterns of TDMRep and Content-Usage, with the wildcards and percent-encoding of robots.txt."""

from __future__ import annotations

from apertus_jax.corpus.robots.robots_file import RuleLine
from apertus_jax.corpus.robots.rule_matcher import RuleMatcher


class PathPattern:
    """A pattern for many paths; `octets` is its length, by which the most specific of several is chosen.

    `understood` is False for one that starts with neither `/` nor `*`: it is no path of this host.
    """

    def __init__(self, pattern: str):
        line = RuleLine(line=0, allow=False, value=pattern.encode("utf-8", "surrogatepass"))
        self._matcher = RuleMatcher([line])
        self.understood = bool(self._matcher.rules)
        self.octets = max((rule.rank // 2 for rule in self._matcher.rules), default=0)

    def matches(self, path: str) -> bool:
        """Returns whether the pattern matches a path in the spelling of `canonical_path`, in linear time.

        A pattern that starts with neither `/` nor `*` matches nothing.
        """
        return self._matcher.decide(path) is not None
