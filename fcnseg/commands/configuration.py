"""Running a subcommand under Hydra, and explaining what was wrong with its overrides."""

import errno
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fcnseg.commands.config_files import config_folder
from fcnseg.commands.help import GIVEN_BY_DATA
from fcnseg.errors import InputError, causes, mistake, vanished
from fcnseg.memory import IN_TRAINING, full_memory


def run_name(*, _root_: DictConfig) -> str:
    """What a run is called unless it is given a name: its data and its model.

    A sweep is named before its runs are composed, when Hydra's own `hydra:` knows nothing yet. What it sweeps over
    differs between its runs, and is left out of the name of the whole.
    """
    node: Any = _root_.hydra if "hydra" in _root_ else HydraConfig.get()
    parsed = OverridesParser.create().parse_overrides(list(node.overrides.task))
    swept = {override.key_or_group.split(".")[0] for override in parsed if override.is_sweep_override()}
    parts = {"data": OmegaConf.select(node, "runtime.choices.data"), "model": _root_.model.name}
    return "-".join(part for key, part in parts.items() if not swept & {key, "experiment"}) or "sweep"


def launched(key: str) -> int:
    """The settings of a trainer by what torchrun or srun has started: `devices` on each machine, and `num_nodes`."""
    from fcnseg.runs.meeting import spread

    devices, machines = spread()
    if key == "num_nodes" and machines is None:
        raise InputError("trainer.num_nodes: a value is missing; NODE_RANK does not tell how many machines there are")
    return devices if key == "devices" or machines is None else machines


OmegaConf.register_new_resolver("run_name", run_name, replace=True)
OmegaConf.register_new_resolver("launched", launched, replace=True)
# Resolved once, for the sweep, and kept for its runs, so that all of them lie in one folder.
OmegaConf.register_new_resolver("sweep_name", lambda name: name, use_cache=True, replace=True)


KILLED = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)")
"""What torch says of processes that ended in the midst of their work."""

LESS_MEMORY = {
    "train": IN_TRAINING,
    "rerun": IN_TRAINING,
    "evaluate": "try precision=bf16-mixed, or device=cpu where the host has more",
    "predict": "try a smaller memory=, above which images are computed by windows, a smaller scale=, or device=cpu",
    "explain": "try a smaller scale=, or device=cpu where the host has more",
}
"""What helps a command whose memory is full."""

PLUGINS = ("submitit_slurm", "submitit_local", "joblib", "optuna")
"""Launchers and sweepers that are not part of Hydra itself."""

NO_RESULT = re.compile(r"Job (\S+) \(task: \d+\) with path (\S+)_result\.pkl")
"""What submitit says of a job that has ended without one."""

OPTIONS = (
    *("--help", "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run", "--multirun"),
    *("--shell-completion", "--config-path", "--config-name", "--config-dir", "--experimental-rerun", "--info"),
    "--json",
)
"""Hydra's own, and ours."""

PLAIN_MODEL = ("benchmark",)
"""Commands whose `model` is a plain setting, which takes several names and files, and no config group."""


def register_models(overrides: Sequence[str] = ()) -> None:
    """Offer every name of the model registry in the config group `model`, with `create_model`'s defaults.

    Names that are understood without being listed, such as those of all of timm's networks, are offered where
    an override asks for them. Hydra copies its store with the sources of configs, once for each group that `--help`
    lists: of so many models that takes seconds, and nothing changes the copies.
    """
    from fcnseg.models import create_model, list_models
    from fcnseg.models.names import is_model

    parameters = inspect.signature(create_model).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.name not in GIVEN_BY_DATA and p.name != "name"}
    asked = [name for o in overrides if o.startswith("model=") for name in o.removeprefix("model=").split(",")]
    store = ConfigStore.instance()
    vars(store)["__deepcopy__"] = lambda memo: store
    for name in [*list_models(), *filter(is_model, asked)]:
        node = {"_target_": "fcnseg.models.create_model", "name": name, **defaults}
        store.store(group="model", name=name, node=node, provider="fcnseg")


def run(command: str, overrides: Sequence[str], task: Callable[[DictConfig], Any]) -> None:
    """Compose `configs/<command>.yaml` with the overrides of the command line and hand it to `task`.

    A sweep (`--multirun`) goes on after a run that failed; the first error is raised at its end.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come to us, not to Hydra's own printer
    if command in PLAIN_MODEL:
        ConfigStore.instance().repo.pop("model", None)  # another command of this process may have offered it
    else:
        register_models(overrides)
    overrides = [as_given(override) for override in overrides]
    full = list(sys.argv)
    carried = CarriedOut(command, task, full)
    sys.argv[:] = [full[0], *("format=json" if o == "--json" else o for o in overrides)]
    try:
        hydra.main(config_path=str(config_folder()), config_name=command, version_base="1.3")(carried)()
    except Exception:
        if not carried.errors:  # else what a sweeper makes of a run without a score
            raise
    finally:
        sys.argv[:] = full
    if carried.errors:
        raise carried.errors[0]


def as_given(override: str) -> str:
    """An argument as Hydra's grammar takes it: values that it cannot read, or for several ones, are quoted.

    Names of files may hold brackets, commas, umlauts or an equals sign, none of which stands in a plain value there.
    Lists, mappings and what is quoted already are left as they are.

    Raises:
        InputError: for a setting that is written as an option, `--key` or `--key=value`, or lacks a key.
    """
    if override.startswith("--") and override.partition("=")[0] not in OPTIONS:
        key, _, value = override.lstrip("-").partition("=")
        raise InputError(f"{override}: no such option; settings are given as {key}={value or 'VALUE'}")
    key, equals, value = override.partition("=")
    if equals and not key:
        raise InputError(f"{override}: expected KEY=VALUE")
    if not equals or value.startswith(("[", "{", "'", '"')):
        return override
    try:
        several = OverridesParser.create().parse_override(override).is_sweep_override()
    except HydraException:
        return f"{key}={quoted(value)}"
    return f"{key}={quoted(value)}" if several and Path(value).exists() else override


def quoted(value: str) -> str:
    """As Hydra's grammar quotes: backslashes count where they stand before a quote."""
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + found[2].replace("'", "\\'"), value) + "'"


@dataclass
class CarriedOut:
    """What Hydra calls with each config: in this process, or in one of its own for a run where a launcher so has it.

    Attributes:
        command: the subcommand.
        task: what carries it out.
        arguments: `sys.argv` of the whole command. Lightning starts the other ranks with it; they need the subcommand,
            which Hydra must not see.
        errors: of the runs in this process, past Hydra, which would print them in its own way.
        home: the number of this process.
    """

    command: str
    task: Callable[[DictConfig], Any]
    arguments: list[str]
    errors: list[Exception] = field(default_factory=list)
    home: int = field(default_factory=os.getpid)

    def __call__(self, config: DictConfig) -> Any:
        sys.argv[:] = self.arguments
        if os.getpid() != self.home:
            return self._elsewhere(config)
        try:
            return self.task(config)
        except Exception as error:
            self.errors.append(error)

    def _elsewhere(self, config: DictConfig) -> Any:
        """In a process that is handed a run of a sweep, alone or beside others that take part in it."""
        sys.modules["__main__"].__spec__ = find_spec("fcnseg.__main__")  # which Lightning starts other ranks by
        take_part = getattr(import_module(f"fcnseg.commands.{self.command}"), "take_part", lambda run: run())
        if (count := int(os.environ.get("SUBMITIT_LOCAL_NTASKS", 1))) > 1:
            raise InputError(f"hydra.launcher.tasks_per_node={count}: expected 1, since Lightning starts the processes")
        try:
            return take_part(partial(self.task, config))
        except SystemExit as end:
            if end.code != 2:
                raise
            return None  # beside the first, which tells why
        except Exception as error:
            if (message := explain(error, self.command, self.arguments)) is not None:
                raise InputError(message) from error  # what an error stems from is lost on the way back
            traceback.print_exc()
            raise


def explain(error: BaseException, command: str, overrides: list[str]) -> str | None:
    """One line for a mistake of the user; None for a fault of the program."""
    if (message := mistake(error)) is not None:
        return message
    chain = list(causes(error))
    for cause in chain:
        if isinstance(cause, MissingConfigException):
            return _missing_option(cause)
        if isinstance(cause, OmegaConfBaseException) and "issing mandatory value" in str(cause):
            key = re.search(r"issing mandatory value: ([\w.]+)", str(cause))
            name = key.group(1) if key else getattr(cause, "full_key", None) or "a key"
            return f"{name}: a value is missing; give it as {name}=VALUE"
        if isinstance(cause, OverrideParseException):
            example = "key=VALUE, key=[1,2] or 'key={a: 1}' with no bracket open, quoted for the shell"
            return f"{cause.override}: cannot be read ({_first_line(str(cause))}); expected {example}"
        if isinstance(cause, ValueError) and str(cause).startswith("Config group override"):
            return _no_name(overrides)
        if isinstance(cause, ConfigCompositionException):
            return _unknown_key(str(cause), command, overrides)
        if type(cause).__name__ == "MisconfigurationException":  # Lightning's; by name, to import nothing here
            return _first_line(str(cause))
        if isinstance(cause, RuntimeError) and (killed := KILLED.search(str(cause))):
            return (
                f"process {killed.group(1)}, which prepared samples, was killed, perhaps for want of memory (or of "
                "shared memory, /dev/shm); a smaller data.num_workers may help, and resume=auto goes on"
            )
        if type(cause).__name__ == "UncompletedJobError" and (job := NO_RESULT.match(str(cause))):  # submitit's
            return f"job {job.group(1)} has ended without a result, see {job.group(2)}_log.err; resume=auto goes on"
        if whose := full_memory(cause):
            return f"{whose} is full; {LESS_MEMORY.get(command, 'try smaller images, or fewer at once')}"
        if isinstance(cause, OSError) and (line := vanished(cause)):
            return line
        if isinstance(cause, OSError) and cause.errno in (
            errno.ENOSPC,
            errno.EACCES,
            errno.EROFS,
            errno.EDQUOT,
            errno.EFBIG,
            errno.EPERM,
            errno.ENOTDIR,
            errno.EEXIST,
        ):
            return f"{cause.filename or 'output'}: {cause.strerror}"
    if isinstance(chain[-1], TypeError | ValueError) and any(isinstance(c, InstantiationException) for c in chain):
        return _first_line(str(chain[-1]))
    return _first_line(str(error)) if isinstance(error, HydraException | OmegaConfBaseException) else None


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0]


def _near(name: str, options: list[str]) -> str:
    near = get_close_matches(name, options, n=3, cutoff=0.5)
    return f"did you mean {', '.join(near)}?" if near else f"expected one of {', '.join(options)}"


def _missing_option(error: MissingConfigException) -> str:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    if group in ("hydra/launcher", "hydra/sweeper") and name in PLUGINS:
        return f"{group}={name}: a plugin of Hydra's that is not installed; pip install 'fcnseg[sweep]'"
    if not error.options:
        return _first_line(str(error))
    return f"{group or 'config'}={name}: no such option; {_near(name, list(error.options))}"


def _no_name(overrides: list[str]) -> str:
    """A number or mapping for a config group, which Hydra says without naming it."""
    groups = {"model", *(path.name for path in config_folder().iterdir() if path.is_dir())}
    read = [OverridesParser.create().parse_override(as_given(override)) for override in overrides]
    wrong = [each.input_line for each in read if each.key_or_group in groups and not isinstance(each.value(), str)]
    return f"{', '.join(map(str, wrong)) or 'a config group'}: expected the name of an option"


def _unknown_key(message: str, command: str, overrides: list[str]) -> str:
    found = re.search(r"Could not override '([^']+)'", message)
    if found is None:
        return _first_line(message)
    key = found.group(1)
    others = [a for a in overrides if "=" in a and a.lstrip("+~").split("=")[0].split("@")[0] != key]
    try:
        keys = _keys(command, others)
    except HydraException:  # others are mistaken too
        keys = _keys(command, [])
    return f"{key}: no such key; {_near(key, keys)}"


def _keys(command: str, overrides: list[str]) -> list[str]:
    """Every key that the command accepts with these overrides, and the config groups."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = hydra.compose(command, overrides)
    groups = [path.name for path in config_folder().iterdir() if path.is_dir()]
    return list(dict.fromkeys([*groups, *_flatten(OmegaConf.to_container(config))]))


def _flatten(value: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, child in value.items():
            if not str(key).startswith("_"):
                yield f"{prefix}{key}"
                yield from _flatten(child, f"{prefix}{key}.")
