"""The checksum by which a file is known to be unchanged."""

import hashlib
import os
from pathlib import Path


def sha256(path: Path) -> str:
    """SHA-256 of a whole file, as `sha256sum` shows it; empty where it cannot be read."""
    if not os.path.isfile(path):
        return ""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
