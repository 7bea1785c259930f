"""UserError: the one exception that users see, a single line with the thing, the value and the remedy."""


class UserError(Exception):
    """Input, configuration or environment that a person has to mend.

    The command line prints its message as one line and exits with status 2. Anything else that escapes is a bug
    of ours and keeps its traceback.
    """
