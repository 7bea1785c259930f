"""Secrets from a file or an environment variable: a command line is seen and recorded."""

from __future__ import annotations

import os

from etils import epath

from apertus_jax.errors import UserError
from apertus_jax.storage.listing import regular_file

LARGEST_FILE = 2**16


def read_secret(command: str, secret: str = "", file: epath.PathLike = "", variable: str = "") -> str:
    """Returns the secret of a command, white space at its ends apart; "" when none is given.

    Args:
      command: its name, for errors; they never hold the secret.
      secret: the secret itself, from Python.
      file: a file that holds it.
      variable: the name of an environment variable that holds it.

    Raises:
      UserError: more than one of them is given, or what is named holds no text.
    """
    given = [each for each in (secret, os.fspath(file), variable) if each]
    if len(given) > 1:
        raise UserError(f"{command} is given more than one secret; give secret_file or secret_variable")
    if file:
        source = regular_file(file, "the secret")
        content = source.read_bytes()
        what = f"{command}.secret_file = {os.fspath(file)!r}"
        try:
            found = content.decode().strip() if len(content) <= LARGEST_FILE else ""
        except UnicodeDecodeError:
            found = ""
    elif variable:
        what = f"{command}.secret_variable = {variable!r}"
        found = os.environ.get(variable, "").strip()
    else:
        return secret
    if not found:
        raise UserError(f"{what} holds no secret; put one line of text there, such as: openssl rand -hex 32")
    return found
