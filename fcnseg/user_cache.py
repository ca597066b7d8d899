"""Where what can be made again is kept between runs."""

import os
from pathlib import Path


def user_cache() -> Path:
    """`fcnseg` in the user's cache folder (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fcnseg"
