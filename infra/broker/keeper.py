"""Runs one command and kills it when our owner is gone: `python keeper.py DATA_DIR COMMAND…`. Standard library only.

The owner holds the other end of our standard input and never writes to it. When the owner dies, even by kill -9, the
system closes that pipe: then we kill the command and delete its data. When we are killed ourselves, Linux kills the
command (PR_SET_PDEATHSIG); macOS has nothing like it, there the owner does so when it stops. The command's pid is our
first line of output. Its exit code is ours; that of a command ended by a signal is 128 and the signal's number.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Start the command, then wait for its end or the owner's, whichever is first."""
    data, command = sys.argv[1], sys.argv[2:]
    # A Ctrl-C in the terminal is the owner's to handle: the broker outlives the worker that still commits to it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=2,
        preexec_fn=_tied_to_us(),  # noqa: PLW1509 — our only thread but this one starts further down
    )
    sys.stdout.write(f"{process.pid}\n")
    sys.stdout.flush()

    owner_is_gone = threading.Event()

    def follow_owner() -> None:
        while os.read(0, 1024):
            pass
        owner_is_gone.set()
        process.kill()

    threading.Thread(target=follow_owner, daemon=True).start()
    code = process.wait()
    if owner_is_gone.is_set():
        shutil.rmtree(data, ignore_errors=True)
    os._exit(code if code >= 0 else 128 - code)  # the thread may still be waiting for the owner


def _tied_to_us() -> Callable[[], None] | None:
    """Return what, called in a child, makes the system kill it with us; None where there is no such thing."""
    if sys.platform != "linux":
        return None
    # Loaded before the fork: of the child's two calls neither may wait for a lock.
    prctl, us = ctypes.CDLL(None).prctl, os.getpid()

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != us:
            os._exit(1)  # we died before the call, and nobody will tell

    return tie


if __name__ == "__main__":
    main()
