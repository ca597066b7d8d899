"""The `fcnseg` command: picks the subcommand, and turns a user's mistake into one line and exit code 2."""

import os
import sys
from contextlib import redirect_stdout
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import fcnseg

# What each command does. Its module, and its config, are named like it (`zoo_list`); imported when it runs, not before.
COMMANDS = {
    "train": "train a network; writes checkpoints, scores and a report to runs/",
    "rerun": "repeat a run, and say whether its results are the same",
    "report": "show a run in one HTML file, or compare several",
    "evaluate": "score a checkpoint on a dataset",
    "predict": "segment a file, a folder or a glob of images",
    "explain": "look inside a network at an image: receptive fields, skips, activations, Grad-CAM",
    "export": "write a network for ONNX, OpenVINO, torch.export, ... and prove it",
    "geometry": "show a network layer by layer: sizes, places on the image, costs, crops",
    "benchmark": "measure networks on this machine: latency, throughput, memory, GFLOP/s",
    "data create": "describe a dataset of image and label files: pairs, classes, statistics",
    "data inspect": "check every file of a dataset, and show all that is wrong in one report",
    "data pack": "write a dataset into shards that read fast",
    "zoo list": "list the models with their size, cost and known weights",
    "zoo info": "show one model and its known weights",
    "doctor": "say what this machine and installation have, and what does not fit",
    "completion": "complete commands and settings in bash",
}

PLAIN = ("doctor", "completion")
"""Commands without a config, and without Hydra."""

EXAMPLE = """examples:
  fcnseg train experiment=demo
  fcnseg train experiment=camvid_quick data.root=PATH
  fcnseg train model=fcn8s_vgg16 data=camvid data.root=PATH trainer.max_epochs=50
  fcnseg evaluate checkpoint=PATH data=camvid data.root=PATH
  fcnseg report runs/NAME/TIME
  fcnseg predict checkpoint=demo input=FILE_OR_FOLDER output=FOLDER
  fcnseg geometry model=fcn8s_vgg16 input_size=[224,224]

fcnseg COMMAND --help shows a command's settings, all of which are Hydra overrides (key=value).
fcnseg COMMAND --quiet prints nothing but what goes wrong. NO_COLOR=1 leaves out colours."""


def main() -> None:
    """Entry point of the console script. Leaves all but `--quiet` in `sys.argv`: Lightning relaunches it per rank."""
    if quiet := {"-q", "--quiet"} & set(sys.argv[1:]):
        sys.argv[1:] = [argument for argument in sys.argv[1:] if argument not in quiet]
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            carry_out(sys.argv[1:])
    else:
        carry_out(sys.argv[1:])


def carry_out(arguments: list[str]) -> None:
    """Carry out a command with its settings; a mistake ends in one line and exit code 2."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return
    if arguments[0] in ("-V", "--version"):
        print(f"fcnseg {fcnseg.__version__}")
        return
    command = next((c for c in COMMANDS if arguments[: c.count(" ") + 1] == c.split()), None)
    if command is None:
        fail(unknown(arguments))
    if command not in PLAIN and arguments[command.count(" ") + 1 :] in (["--help"], ["-h"]):
        from fcnseg.commands.help import text

        print(text(command.replace(" ", "_")))
        return
    if command in PLAIN:
        sys.exit(plain(command, arguments[1:]))
    from fcnseg.commands import configuration

    # torch's C++ warns of a lost connection with a stack of forty lines; its exception says as much.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if command == "predict":  # OpenMP's threads leave the cores, as they wait, to those that read and write images
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # which is read when torch is imported
    module = command.replace(" ", "_")
    overrides = arguments[command.count(" ") + 1 :]
    if command == "rerun" and overrides and "=" not in overrides[0] and not overrides[0].startswith("-"):
        overrides[0] = f"run={overrides[0]}"
    if command == "report":
        overrides = with_runs(overrides)
    try:
        command_module = import_module(f"fcnseg.commands.{module}")
        run = partial(configuration.run, module, overrides, command_module.run)
        command_module.take_part(run) if command == "train" else run()
    except KeyboardInterrupt:
        fail("interrupted", code=130)
    except Exception as error:
        message = configuration.explain(error, module, overrides)
        if message is None:
            raise
        fail(message)


def plain(command: str, arguments: list[str]) -> int:
    """Carry out a command without a config; its exit code."""
    from fcnseg.errors import InputError

    try:
        return int(import_module(f"fcnseg.commands.{command}").run(arguments))
    except InputError as error:
        fail(str(error))


def with_runs(arguments: list[str]) -> list[str]:
    """The arguments of `fcnseg report`, with the folders among them as Hydra's `runs=['a','b']`."""
    from fcnseg.commands.configuration import quoted

    folders = [word for word in arguments if not word.startswith("-") and ("=" not in word or os.path.isdir(word))]
    others = [word for word in arguments if word not in folders]
    return [f"runs=[{','.join(map(quoted, folders))}]", *others] if folders else others


def unknown(arguments: list[str]) -> str:
    """The message for words that are no command."""
    family = [command for command in COMMANDS if command.startswith(f"{arguments[0]} ")]
    words = " ".join(arguments[:2]) if family else arguments[0]
    near = get_close_matches(words, COMMANDS, n=1) if words not in [c.split()[0] for c in COMMANDS] else []
    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(family or COMMANDS)}"
    return f"unknown command {words!r}; {hint}"


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {about}" for name, about in COMMANDS.items())
    return f"usage: fcnseg COMMAND [key=value ...]\n\ncommands:\n{lines}\n\n{EXAMPLE}"


def fail(message: str, code: int = 2) -> NoReturn:
    print(f"fcnseg: {message}", file=sys.stderr)
    sys.exit(code)
