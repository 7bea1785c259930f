"""Normal form of licence names: what is left when spelling is taken away; nothing else is compared."""

from __future__ import annotations

import re
import unicodedata

_JOINERS = re.compile(r"[\u00ad\u200b-\u200d\u2060\ufeff]")  # nothing to be seen
_FILLERS = re.compile(
    r"\b(?:the|a|an|of|this|work|text|content|document|page|website|site|article|book|dataset|file|is|are|"
    r"licen[cs]e|licen[cs]es|licen[cs]ed|version|ver|under|released|published|distributed|available|terms|"
    r"and conditions|agreement|at your option|see|for|details|spdx|identifier|osi approved|"
    r"unter|lizenziert|lizenz|licence|licencia|licenza|licentie|sous|bajo|v(?=[0-9]))\b"
)


def reduced(name: str) -> str:
    """Returns letters, digits and plus signs of a name in lower case, without accents and words that say nothing.

    `the GNU General Public License, version 3`, `GNU general public licence v3` are one.
    """
    folded = unicodedata.normalize(
        "NFKD", _JOINERS.sub("", unicodedata.normalize("NFKC", name)).casefold().replace("_", " ")
    )
    plain = "".join(character for character in folded if not unicodedata.combining(character))
    return "".join(character for character in _FILLERS.sub(" ", plain) if character.isalnum() or character == "+")
