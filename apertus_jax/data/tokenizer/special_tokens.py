"""Special tokens: the reserved block of the vocabulary and its ids.

Ids follow the released Apertus vocabulary, at every vocabulary size. A full block has 1,000 ids (BPE entries start at
1000, as in Apertus); a vocabulary smaller than 32,768 uses the compact block, which ends after the last named token, so
that even a toy model has its role tokens and PII markers at the ids of the real one.
"""

from __future__ import annotations

UNK_ID, BOD_ID, EOD_ID, PAD_ID = 0, 1, 2, 3
UNK_TOKEN, BOD_TOKEN, EOD_TOKEN, PAD_TOKEN = "<unk>", "<s>", "</s>", "<pad>"
PII_MARKERS = ("<iban-pii>", "<email-pii>", "<ip-pii>")
# Frequent LaTeX openings are ordinary text: Apertus does not mark them as special.
LATEX_TOKENS = ("\\begin{", "\\end{", "\\text{", "\\boxed{")

_GENERAL = (UNK_TOKEN, BOD_TOKEN, EOD_TOKEN, PAD_TOKEN)
_INSTRUCTION = (
    *("[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]"),
)
_INFILLING = ("[PREFIX]", "[MIDDLE]", "[SUFFIX]")
_CODE = (
    "filename gh_stars issue_start issue_comment issue_closed jupyter_start jupyter_text jupyter_code jupyter_output "
    "empty_output commit_before commit_msg commit_after reponame"
)
_TRANSLATION = "file_sep code_to_intermediate intermediate_to_code"
_PULL_REQUEST = (
    "pr pr_status pr_is_merged pr_base pr_file pr_base_code pr_diff pr_diff_hunk pr_comment pr_event_id pr_review "
    "pr_review_state pr_review_comment pr_in_reply_to_review_id pr_in_reply_to_comment_id pr_diff_hunk_comment_line"
)
_ROLES = (
    "fim_begin fim_hole fim_end system_start system_end developer_start developer_end user_start user_end "
    "assistant_start assistant_end inner_prefix inner_suffix tools_prefix tools_suffix"
)

FULL_BLOCK = 1000
FULL_BLOCK_FROM_VOCAB = 32_768


def placeholder(token_id: int) -> str:
    """Returns the name of an id that has no meaning yet."""
    return f"<SPECIAL_{token_id}>"


def _angled(names: str) -> tuple[str, ...]:
    return tuple(f"<{name}>" for name in names.split())


def _piped(names: str) -> tuple[str, ...]:
    return tuple(f"<|{name}|>" for name in names.split())


NAMED_TOKENS: tuple[str, ...] = (
    *_GENERAL,
    *_INSTRUCTION,
    placeholder(10),
    *_INFILLING,
    *LATEX_TOKENS,
    *_angled(_CODE),
    *("<think>", "</think>", "<answer>", "</answer>"),
    *PII_MARKERS,
    *_angled(_TRANSLATION),
    *_angled(_PULL_REQUEST),
    *_piped(_ROLES),
)
COMPACT_BLOCK = len(NAMED_TOKENS)


def reserved_block_size(vocab_size: int) -> int:
    """Returns how many ids come before the BPE entries of a vocabulary of `vocab_size`."""
    return FULL_BLOCK if vocab_size >= FULL_BLOCK_FROM_VOCAB else COMPACT_BLOCK


def reserved_tokens(block_size: int) -> list[str]:
    """Returns the tokens of ids 0 … block_size−1: named ones first, placeholders after them."""
    return [*NAMED_TOKENS, *(placeholder(token_id) for token_id in range(COMPACT_BLOCK, block_size))]
