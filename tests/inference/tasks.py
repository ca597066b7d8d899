"""What processes do in test_processes.py; they import it by its name."""

import time
from pathlib import Path
from typing import Any


def fail(device: str, portions: list[tuple[int, int]], tell: Any) -> None:
    """Where the second process is full, while the first would go on for long."""
    if portions[0][0] == 1:
        raise OSError(28, "No space left on device", "masks/b.png")
    time.sleep(600)


def tell_and_wait(folder: Path, device: str, portions: list[tuple[int, int]], tell: Any) -> None:
    """Its first portion and no other; the first process after the second."""
    number, value = portions[0]
    while number == 0 and not (folder / "told").exists():
        time.sleep(0.05)
    tell(None, number)
    tell(number, value)
    (folder / "told").touch()
    time.sleep(600)
