"""A build that is killed: `abandoning_process.py FOLDER MOMENT`, where MOMENT is `writing`, `moving`, `holding` or `-`.

`writing` dies with half a file, `moving` between two moves to the final places, `holding` waits for ever after a line
on stdout, `-` ends well.
"""

import os
import sys
import time

from apertus_jax.errors import UserError
from apertus_jax.process.failures import as_user_error
from apertus_jax.storage import artifacts


def main(folder: str, moment: str) -> None:
    """Builds what `tests/test_building.py` builds."""
    rename = os.rename

    def rename_once(source, target):
        rename(source, target)
        os._exit(9)

    with artifacts.build(folder, "thing", {"a": 1}) as build:
        (build.path / "sub").mkdir()
        (build.path / "sub" / "data.bin").write_bytes(b"0123456789")
        if moment == "writing":
            os._exit(9)
        if moment == "holding":
            os.write(1, b"held\n")
            time.sleep(60)
        (build.path / "last.txt").write_text("last")
        if moment == "moving":
            os.rename = rename_once
        build.summary["count"] = 10


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (UserError, OSError) as error:
        print(as_user_error(error, "thing"), file=sys.stderr)
        sys.exit(2)
