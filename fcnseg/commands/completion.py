"""`fcnseg completion`: Tab in bash completes commands, settings, the options of config groups, and files.

Reads the config files alone: neither Hydra nor torch is imported for a key that is pressed.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from fcnseg.commands.config_files import config_folder, groups_of, read, settings_in
from fcnseg.errors import InputError

USAGE = """fcnseg completion bash: print what makes Tab complete fcnseg's commands and settings.

examples:
  source <(fcnseg completion bash)                        # in this shell
  echo 'source <(fcnseg completion bash)' >> ~/.bashrc    # in every one"""

BASH = """_fcnseg() {
    local line=${COMP_LINE:0:COMP_POINT}
    local word=${line##* } found
    mapfile -t found < <(fcnseg completion words "$line" 2>/dev/null)
    if [[ $word == *=* && ${#found[@]} -eq 0 ]]; then
        mapfile -t COMPREPLY < <(compgen -f -- "${word#*=}")
        compopt -o filenames
        return
    fi
    [[ $word == *=* ]] && found=("${found[@]#*=}")  # bash takes what stands after = for a word of its own
    COMPREPLY=("${found[@]}")
    [[ ${#found[@]} -eq 1 && ${found[0]} != *= && ${found[0]} != *. ]] || compopt -o nospace
}
complete -F _fcnseg fcnseg"""


def run(arguments: Sequence[str]) -> int:
    """Print bash's function, or the words that complete a line; returns the exit code.

    Raises:
        InputError: for anything else.
    """
    if {"-h", "--help"} & set(arguments) or not arguments:
        print(USAGE)
    elif list(arguments) == ["bash"]:
        print(BASH)
    elif arguments[0] == "words" and len(arguments) == 2:
        for word in words(arguments[1]):
            print(word)
    else:
        raise InputError(f"completion {' '.join(arguments)}: expected bash")
    return 0


def words(line: str) -> list[str]:
    """What the last word of a line that begins with `fcnseg` may become."""
    from fcnseg.commands.cli import COMMANDS

    *before, last = line.split(" ")
    before = [word for word in before if word][1:]
    command = next((name for name in COMMANDS if before[: name.count(" ") + 1] == name.split()), None)
    if command is None:
        begun = [name.split() for name in COMMANDS if name.split()[: len(before)] == before]
        options = sorted({name[len(before)] for name in begun if len(name) > len(before)})
    else:
        options = list(settings(command.replace(" ", "_"), last))
    return [option for option in options if option.startswith(last)]


def settings(command: str, word: str) -> Iterator[str]:
    """Settings of a command: `group=option` after an equals sign, keys within a key after a dot, else all first."""
    written = read(config_folder() / f"{command}.yaml")
    groups = groups_of(written)
    group, equals, _ = word.partition("=")
    if equals:
        yield from (
            f"{group}={path.stem}" for path in sorted((config_folder() / group).glob("*.yaml")) if group in groups
        )
        return
    *outer, _ = word.split(".")
    inside: Any = written
    if not outer:
        yield from (f"{name}=" for name in groups)
    elif option := groups.get(outer[0]):
        inside = settings_in(outer[0], option)
        outer = outer[1:]
    for name in outer:
        inside = inside.get(name) if isinstance(inside, dict) else None
    before = word.rpartition(".")[0]
    for name, value in plain(inside if isinstance(inside, dict) else {}):
        yield f"{before}{'.' * bool(before)}{name}{'.' if isinstance(value, dict) else '='}"


def plain(written: dict[str, Any]) -> list[tuple[str, Any]]:
    """Keys that are settings, and no instruction to Hydra."""
    return [(name, value) for name, value in written.items() if name not in ("defaults", "hydra") and name[0] != "_"]
