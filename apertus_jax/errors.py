"""UserError: the one exception that users see, a single line with the thing, the value and the remedy."""

REQUEUE_STATUS = 75  # EX_TEMPFAIL of sysexits.h: nothing is to be mended, start the same command again


class UserError(Exception):
    """Input, configuration or environment that a person has to mend.

    The command line prints its message as one line and exits with status 2. Anything else that escapes is a bug
    of ours and keeps its traceback.
    """


class TemporaryFailure(UserError):
    """A failure of a machine or a neighbour: the same command, started again, goes on from where it can.

    The command line prints its message as one line and exits with `REQUEUE_STATUS`, which launch scripts look for.
    """
