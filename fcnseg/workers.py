"""What a process does first that prepares data beside others."""

import multiprocessing
import os
import signal
import threading

import cv2


def begin_worker(interruptible: bool = True) -> None:
    """Take one thread, and end when the process does that this one works for.

    Worker processes are the parallelism; OpenCV's own threads would fight over the cores. And torch's workers look
    whether their parent lives, which of those that a fork server starts is the server.

    Args:
        interruptible: whether Ctrl-C ends this process too, and not by its parent alone.
    """
    if not interruptible:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(process: multiprocessing.process.BaseProcess) -> None:
    process.join()
    os._exit(1)
