"""`agentstream`, which sends itself a signal as soon as a capture tells of a step for the nth time.

python -m tests.support.interrupted_capture STEP TIMES SIGNAL capture DIR …
"""

import os
import sys

from agentstream.consumers.replay.recording.progress import Progress
from agentstream.infra.cli import capturing, main

if __name__ == "__main__":
    _, step, times, number, *arguments = sys.argv
    told = 0

    class Interrupting(capturing._Progress):
        def __call__(self, progress: Progress) -> None:
            global told  # noqa: PLW0603  # a program of one screen
            told += progress.step == step
            if progress.step == step and told == int(times):
                os.kill(os.getpid(), int(number))

    capturing._Progress = Interrupting  # type: ignore[misc]  # the real command, but for its progress line
    sys.argv = ["agentstream", *arguments]
    main()
