"""Tab in a real bash."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fcnseg.commands.completion import words

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not there")

LINES = {
    "fcnseg ev": "evaluate",
    "fcnseg data ": "create inspect pack",
    "fcnseg data in": "inspect",
    "fcnseg train optimizer=": "adamw sgd",
    "fcnseg train optimizer=s": "sgd",
    "fcnseg train seed=1 trainer.max_": "trainer.max_epochs= trainer.max_steps= trainer.max_time=",
    "fcnseg train data.batch": "data.batch_size=",
    "fcnseg train callbacks.early_stopping.pat": "callbacks.early_stopping.patience=",
    "fcnseg predict input=FOLDER/pho": "FOLDER/photos",
    "fcnseg nothing ": "",
}


def test_a_line_is_completed_as_far_as_it_can_be(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    command = tmp_path / "fcnseg"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m fcnseg "$@"\n')
    command.chmod(0o755)
    script = "source <(fcnseg completion bash)\ncompopt() { :; }\n"  # which bash allows under Tab alone
    for line in LINES:
        line = line.replace("FOLDER", str(tmp_path))
        script += f"COMP_LINE='{line}' COMP_POINT={len(line)}; COMPREPLY=(); _fcnseg; echo \"${{COMPREPLY[*]}}\"\n"
    done = subprocess.run(
        ["bash", "-c", f"export PATH={tmp_path}:$PATH\n{script}"], capture_output=True, text=True, check=True
    )
    shown = dict(zip(LINES, done.stdout.splitlines(), strict=True))
    assert shown == {line: found.replace("FOLDER", str(tmp_path)) for line, found in LINES.items()}
    assert done.stderr == ""


def test_every_command_begins_a_word() -> None:
    assert words("fcnseg zoo ") == ["info", "list"]
    assert words("fcnseg train experiment=camvid_q") == ["experiment=camvid_quick"]
    assert words("fcnseg train model.") == []


def test_another_shell_is_refused(fcnseg, capsys) -> None:
    assert fcnseg("completion", "fish") == 2
    assert capsys.readouterr().err == "fcnseg: completion fish: expected bash\n"
    assert fcnseg("completion") == 0
    assert "source <(fcnseg completion bash)" in capsys.readouterr().out
