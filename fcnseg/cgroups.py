"""The control groups that this process is in (Linux), a container's, a service's or a batch job's."""

from collections.abc import Iterator
from pathlib import Path

FOLDER, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def groups(controller: str) -> Iterator[Path]:
    """The folders of this process's groups that have a controller, of both versions, and of those around each.

    Args:
        controller: such as "cpu" or "memory".
    """
    for controllers, place in _own() or (("", "/"), (controller, "/")):
        if controllers and controller not in controllers.split(","):
            continue
        mounts = (controllers, controller) if controllers else (".", "unified")
        # A container may see its own group as the root, whatever its place is called outside.
        inner = "" if ".." in place else place.strip("/")
        for mount in {FOLDER / name for name in mounts}:
            group = mount / inner
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(mount))


def _own() -> list[tuple[str, str]]:
    """Controllers, none in version 2, and place of each group."""
    try:
        lines = OWN.read_text().splitlines()
    except OSError:
        return []
    return [
        (controllers, place) for _, controllers, place in (line.split(":", 2) for line in lines if line.count(":") > 1)
    ]
