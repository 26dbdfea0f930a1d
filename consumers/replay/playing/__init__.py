"""Replays: the runs of a recording once more, by the same runs code as a worker's, under other parameters.

terms.py          what is asked for: mode, changes, limits
tape.py           a recorded run as what a model and tools answered, and as the steps that it took
playback.py       one run against its tape: answers from it, and finds where it is left
harness.py        any harness, played against tapes
preparing.py      a recorded request as the one that is sent again
conversations.py  the history of later turns: as recorded, or as the replay answered
performers.py     where runs happen: in this process, or behind Kafka
budget.py         how fast, how much, and what it came to
refusals.py       first runs that fail for want of a model, as all of them would
directory.py      manifest.json and results.jsonl: finished runs are not run again
player.py         all of it together

with ReplayDirectory.open(path, manifest) as directory:
    tally = await Player(directory, performer, playbacks).play(RecordingReader.open(recording))
"""

from agentstream.consumers.replay.playing.budget import Budget, Tally
from agentstream.consumers.replay.playing.directory import ReplayDirectory, ReplayError, ReplayManifest, read_replay
from agentstream.consumers.replay.playing.harness import ReplayHarness
from agentstream.consumers.replay.playing.performers import InProcess, Performer, ThroughKafka
from agentstream.consumers.replay.playing.playback import Playback, Playbacks
from agentstream.consumers.replay.playing.player import Player
from agentstream.consumers.replay.playing.tape import Tape
from agentstream.consumers.replay.playing.terms import ReplayTerms

__all__ = [
    "Budget",
    "InProcess",
    "Performer",
    "Playback",
    "Playbacks",
    "Player",
    "ReplayDirectory",
    "ReplayError",
    "ReplayHarness",
    "ReplayManifest",
    "ReplayTerms",
    "Tally",
    "Tape",
    "ThroughKafka",
    "read_replay",
]
