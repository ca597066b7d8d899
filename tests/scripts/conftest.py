"""The scripts, carried out in this process, which has imported already what takes most of their time."""

import os
import signal
import sys
from collections.abc import Callable
from types import ModuleType

import pytest

Carried = tuple[int, str, str]
"""The exit code, and what a script and the processes that it starts have written to stdout and stderr."""


@pytest.fixture
def carry_out(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Carried]:
    """Run a script's `main` with these arguments, as `python scripts/NAME.py` does."""

    def run(script: ModuleType, *arguments: object) -> Carried:
        monkeypatch.setattr(sys, "argv", [str(script.__file__), *map(str, arguments)])
        for name in [name for name in os.environ if name.startswith("PL_")]:  # of Lightning's last training here
            monkeypatch.delenv(name)
        before = signal.getsignal(signal.SIGTERM)
        capfd.readouterr()
        try:
            code = script.main()
        except SystemExit as end:
            code = end.code
        finally:
            signal.signal(signal.SIGTERM, before)
        return (int(code or 0), *capfd.readouterr())

    return run
