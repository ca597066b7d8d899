"""Whether anything is to be shown."""

import os
import sys


def is_silent() -> bool:
    """Whether the standard output goes nowhere, as with `--quiet`; notebooks have rich write beside it."""
    return getattr(sys.stdout, "name", None) == os.devnull
