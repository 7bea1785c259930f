"""UserError: the one exception that users see, a single line with the thing, the value and the remedy."""

REQUEUE_STATUS = 75  # EX_TEMPFAIL of sysexits.h: nothing is to be mended, start the same command again
# A name in a path that is shown whole, and what is left of one that is longer; of a path all in all.
LONGEST_NAME, NAME_SHOWN, LONGEST_PATH_SHOWN = 64, 32, 200


class UserError(Exception):
    """Input, configuration or environment that a person has to mend.

    The command line prints its message as one line and exits with status 2. Anything else that escapes is a bug
    of ours and keeps its traceback.
    """


class TemporaryFailure(UserError):
    """A failure of a machine or a neighbour: the same command, started again, goes on from where it can.

    The command line prints its message as one line and exits with `REQUEUE_STATUS`, which launch scripts look for.
    """


def shown_path(path: str | bytes) -> str:
    """Returns a path as an error line shows it: far too long names are cut behind their start, then the middle."""
    names = (path.decode(errors="replace") if isinstance(path, bytes) else path).split("/")
    shown = "/".join(name if len(name) <= LONGEST_NAME else f"{name[:NAME_SHOWN]}…" for name in names)
    if len(shown) <= LONGEST_PATH_SHOWN:
        return shown
    return f"{shown[: LONGEST_PATH_SHOWN // 2]}…{shown[-LONGEST_PATH_SHOWN // 2 :]}"
