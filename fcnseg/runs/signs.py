"""Signs of life: processes count in a key-value store, and look there whether others go on counting."""

import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress

from torch.distributed import DistError, Store

INTERVAL = 1.0
"""Seconds between two signs of life."""


class Signs:
    """This process's signs of life, and what it has heard of others.

    Args:
        store: one that all of them reach.
        rank: of this process.
        watched: ranks of the others that it looks after.

    Attributes:
        watched: by rank, its count and when that was last seen to grow, in seconds of `time.monotonic`.
    """

    def __init__(self, store: Store, rank: int, watched: Iterable[int]) -> None:
        self.store, self.rank = store, rank
        self.store.set(f"host/{rank}", f"rank {rank} on {socket.gethostname()}")
        now = time.monotonic()
        self.watched = {other: (0, now) for other in watched}

    def give(self) -> None:
        self.store.add(f"beat/{self.rank}", 1)

    def silent(self, within: float, begun: bool = False) -> int | None:
        """The first rank that has not counted for so many seconds; `begun`: of those that ever have."""
        for rank, (count, heard) in self.watched.items():
            now = time.monotonic()
            if (beats := self.store.add(f"beat/{rank}", 0)) > count:
                self.watched[rank] = beats, now
            elif now - heard > within and (count or not begun):
                return rank
        return None

    def name(self, rank: int) -> str:
        """The rank, and the machine that it is on where it has told that."""
        key = f"host/{rank}"
        return bytes(self.store.get(key)).decode() if self.store.check([key]) else f"rank {rank}"

    def keep_giving(self) -> threading.Event:
        """Give signs of life from now on, beside whatever this process does, until the event that is returned."""
        over = threading.Event()
        self.give()  # a process that ends right away has been there

        def beat() -> None:
            with suppress(DistError):
                while not over.wait(INTERVAL):
                    self.give()

        threading.Thread(target=beat, daemon=True, name="signs of life").start()
        return over
