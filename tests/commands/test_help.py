"""`--help`: at once, without torch or Hydra, and with every setting that a command has."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from fcnseg.commands.cli import COMMANDS, PLAIN
from fcnseg.commands.config_files import config_folder
from fcnseg.commands.configuration import register_models
from fcnseg.commands.help import text

WITH_CONFIG = [command for command in COMMANDS if command not in PLAIN]


def keys(value: Any, prefix: str = "") -> Iterator[str]:
    for key, inner in value.items() if isinstance(value, dict) else ():
        if not key.startswith("_"):
            yield f"{prefix}{key}"
            yield from keys(inner, f"{prefix}{key}.")


@pytest.mark.parametrize("command", WITH_CONFIG)
def test_every_setting_is_shown_with_its_default(command):
    name = command.replace(" ", "_")
    shown = yaml.safe_load(text(name).partition("settings and their defaults (key=value):")[2])
    register_models()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        composed = OmegaConf.to_container(compose(name))
    assert sorted(keys(shown)) == sorted(set(keys(composed)) - {"model.name"})


@pytest.mark.parametrize("command", WITH_CONFIG)
def test_help_begins_with_what_the_command_does(fcnseg, capsys, command):
    assert fcnseg(*command.split(), "--help") == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"fcnseg {command}: ")
    assert f"  fcnseg {command} " in shown.partition("example")[2]
    assert "$" not in shown.partition("settings and their")[0]


def test_help_imports_neither_torch_nor_hydra():
    script = "import sys; sys.argv = ['fcnseg', 'train', '--help']\nfrom fcnseg.commands.cli import main\nmain()\n"
    script += "heavy = {'torch', 'hydra', 'numpy', 'pytorch_lightning'} & set(sys.modules)\nassert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "regime: bgc, bgc_dacs" in done.stdout
    assert "max_epochs: 50" in done.stdout
    assert "batch_size: 10 # of all processes together" in done.stdout, "with what the files say of a setting"
