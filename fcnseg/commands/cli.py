"""The `fcnseg` command: picks the subcommand, and turns a user's mistake into one line and exit code 2."""

import sys
from difflib import get_close_matches
from importlib import import_module

import fcnseg

# What each module in this package does. A module is imported when its command runs, not before.
COMMANDS = {
    "train": "train a network; writes checkpoints, scores and pictures to runs/",
    "evaluate": "score a checkpoint on a dataset",
    "predict": "segment a file, a folder or a glob of images",
}

EXAMPLE = """examples:
  fcnseg train experiment=demo
  fcnseg train experiment=camvid_quick data.root=PATH
  fcnseg train model=fcn8s_vgg16 data=camvid data.root=PATH trainer.max_epochs=50
  fcnseg evaluate checkpoint=PATH data=camvid data.root=PATH
  fcnseg predict checkpoint=PATH input=FILE_OR_FOLDER output=FOLDER

fcnseg COMMAND --help shows a command's settings, all of which are Hydra overrides (key=value)."""


def main() -> None:
    """Entry point of the console script. Leaves `sys.argv` as it was: Lightning relaunches it per rank."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return
    if arguments[0] in ("-V", "--version"):
        print(f"fcnseg {fcnseg.__version__}")
        return
    if arguments[0] not in COMMANDS:
        near = get_close_matches(arguments[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(COMMANDS)}"
        fail(f"unknown command {arguments[0]!r}; {hint}")
    from fcnseg.commands import configuration

    try:
        configuration.run(arguments[0], import_module(f"fcnseg.commands.{arguments[0]}").run)
    except KeyboardInterrupt:
        fail("interrupted", code=130)
    except Exception as error:
        message = configuration.explain(error, arguments)
        if message is None:
            raise
        fail(message)


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {about}" for name, about in COMMANDS.items())
    return f"usage: fcnseg COMMAND [key=value ...]\n\ncommands:\n{lines}\n\n{EXAMPLE}"


def fail(message: str, code: int = 2) -> None:
    print(f"fcnseg: {message}", file=sys.stderr)
    sys.exit(code)
