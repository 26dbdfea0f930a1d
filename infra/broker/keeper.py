"""Runs one command and kills it when our owner is gone: `python keeper.py DATA_DIR COMMAND…`. Standard library only.

The owner holds the other end of our standard input and never writes to it. When the owner dies, even by kill -9, the
system closes that pipe: then we kill the command and delete its data. (Linux could do that with PR_SET_PDEATHSIG; macOS
has nothing like it.) The command's pid is our first line of output, its exit code is ours.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading


def main() -> None:
    """Start the command, then wait for its end or the owner's, whichever is first."""
    data, command = sys.argv[1], sys.argv[2:]
    # A Ctrl-C in the terminal is the owner's to handle: the broker outlives the worker that still commits to it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=2)
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
    os._exit(abs(code) % 256)  # the thread may still be waiting for the owner


if __name__ == "__main__":
    main()
