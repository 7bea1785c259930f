"""The one exception that reaches people: a single line that names the thing, the value, and what to do."""


class UserError(Exception):
    """Input, configuration or environment that a person has to mend.

    The command line prints its message as one line and exits with status 2. Anything else that escapes is a bug
    of ours and keeps its traceback.
    """
