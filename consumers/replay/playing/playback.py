"""One run against its tape: what it is answered, and where it leaves what was recorded. Plain; knows no harness.

Playbacks finds the playback of a run by its id, and of a model call by the key that it is made with.
"""

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import JsonValue

from agentstream.consumers.harness.port import Failed, ToolAnswer
from agentstream.consumers.replay.playing.differences import difference, nth, same, told
from agentstream.consumers.replay.playing.tape import ModelAnswer, Step, Tape, call_key, steps_of
from agentstream.consumers.replay.playing.terms import ReplayTerms
from agentstream.schemas.errors import ErrorCode
from agentstream.schemas.messages import Message
from agentstream.schemas.recordings import Divergence

EVENTS_SECONDS = 2.0
"""For the events before a model call to arrive. A harness that does not give them is found to differ without."""
MISSED = "this call is not in the recording, and in this replay tools do not run"
"""What a model reads of a tool that has no recorded answer, where the replay goes on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """One message of the conversation that a model was sent, as far as it can be compared."""

    role: str
    """user, assistant or tool."""
    text: str
    """Its text."""
    calls: tuple[tuple[str, JsonValue], ...] = ()
    """Tools it asked for, with arguments."""


class Left(Exception):
    """The run left its recording, and ends here."""


class Playback:
    """Judges one run. Made new for each replayed run, begun anew with each of its attempts."""

    def __init__(self, tape: Tape, terms: ReplayTerms, *, messages: tuple[Message, ...] = ()) -> None:
        """`messages`: what the run is asked with."""
        self.terms = terms
        self.key = f"playback-{secrets.token_hex(16)}"
        """Names it in model calls."""
        self.in_line = False
        """Whether tools are asked for by the very task that plays the run."""
        self._tape = tape
        self._asked = messages
        self.begin()

    def begin(self) -> None:
        """Another attempt: nothing happened yet."""
        self.divergence: Divergence | None = None
        self.stopped = asyncio.Event()
        """Set where the run must be ended from outside: it waits for a tool."""
        self.ends_as_recorded: Failed | None = None
        """Set where the recorded run had failed."""
        self.from_recording = 0
        self.real = 0
        self._taken = 0
        self._calls = 0
        self._used: Counter[str] = Counter()
        self._names: dict[str, str] = {}
        self._moved = asyncio.Event()

    @property
    def frozen(self) -> bool:
        """Whether the model's answers come from the recording, too."""
        return self.terms.mode == "frozen"

    @property
    def verdict(self) -> Failed | None:
        """How the run is to end, whatever its harness says; None: as it says."""
        if self.divergence is not None:
            return Failed(code=ErrorCode.REPLAY_DIVERGED, detail=self.divergence.what, retriable=False)
        return self.ends_as_recorded

    # -- what the agent did

    def saw(self, message: Message) -> None:
        """The agent added a message. Frozen: it must be the one that was recorded."""
        if self.frozen:
            for step in steps_of((message,), self._names):
                self._compare(step)
            self._moved.set()

    def ended(self, step: Step) -> None:
        """The agent came to its end."""
        if self.frozen:
            self._compare(step)

    def _compare(self, step: Step) -> None:
        if self.divergence is not None:
            return
        expected = self._tape.steps[self._taken] if self._taken < len(self._tape.steps) else None
        if expected is not None and same(expected, step):
            self._taken += 1
        else:
            self._diverge(difference(expected, step), recorded=expected, replayed=step)

    # -- what the model is answered

    async def answer_model(self, sent: Sequence[Said]) -> ModelAnswer | None:
        """The recorded answer to this conversation; None if there is none, and `verdict` says why.

        It may be asked before `saw` was told of all that led to it: events and model calls take different ways. Then it
        waits for them, or which difference is the first would be a matter of luck.
        """
        await self._caught_up()
        if self.verdict is not None:
            return None
        number, self._calls = self._calls, self._calls + 1
        if number >= len(self._tape.answers):
            self._fail_as_recorded_or(
                f"the model is called a {nth(number + 1)} time, the recording has {len(self._tape.answers)} answers",
                replayed={"step": "model_call", "number": number + 1},
            )
            return None
        wrong = self._wrong_conversation(sent, number)
        if wrong is not None:
            self._diverge(*wrong)
            return None
        return self._tape.answers[number]

    async def _caught_up(self) -> None:
        places = [place for place, step in enumerate(self._tape.steps) if step["step"] == "answer"]
        wanted = places[self._calls] if self._calls < len(places) else len(self._tape.steps) - 1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EVENTS_SECONDS):
                while self.divergence is None and self._taken < wanted:
                    self._moved.clear()
                    await self._moved.wait()

    def _wrong_conversation(self, sent: Sequence[Said], number: int) -> tuple[str, JsonValue, JsonValue] | None:
        """What is wrong with the conversation so far. Instructions are not compared: they are what may be changed."""
        users = [each.text for each in sent if each.role == "user" and each.text]
        asked = [message.text for message in self._asked if message.role == "user" and message.text]
        if users != asked:
            return "the model is asked something else than the user said", [*asked], [*users]
        expected = self._until_call(number)
        since = [each for each in sent if each.role != "user"]
        heard = since[max(0, len(since) - len(expected)) :]
        for place, step in enumerate(expected):
            found = _step_of(heard[place]) if place < len(heard) else None
            if found is None or not told(step, found):
                what = f"the model is told another history before its {nth(number + 1)} answer"
                return what, step, found
        return None

    def _until_call(self, number: int) -> list[Step]:
        """The recorded steps before this call, without answers that say nothing: no model is told those."""
        steps: list[Step] = []
        answers = 0
        for step in self._tape.steps:
            if step["step"] == "end" or (step["step"] == "answer" and answers == number):
                break
            answers += step["step"] == "answer"
            if step["step"] != "answer" or str(step["text"]).strip() or "tool_calls" in step:
                steps.append(step)
        return steps

    # -- what tools are answered

    async def answer_tool(self, name: str, arguments: JsonValue) -> ToolAnswer | None:
        """The recorded answer; None: the real tool may run. Where the run must stop, it never returns.

        `in_line`, it raises Left instead: the harness that asks is the one that would have to be stopped.
        """
        key = call_key(name, arguments)
        answers, used = self._tape.tools.get(key, ()), self._used[key]
        if used < len(answers):
            self._used[key] += 1
            self.from_recording += 1
            return ToolAnswer(content=answers[used].content, is_error=answers[used].is_error)
        terms = self.terms
        if terms.mode == "hybrid":
            if terms.on_miss == "error":
                return ToolAnswer(content=MISSED, is_error=True)
            if terms.on_miss == "real" and name in terms.real_tools:
                self.real += 1
                return None
        what = f"{name} is called with arguments that the recording has no answer to"
        if used:
            what = f"{name} is called a {nth(used + 1)} time with the same arguments, the recording has {used}"
        elif not any(known.partition(" ")[0] == name for known in self._tape.tools):
            what = f"{name} is called, which the recording has no answer of"
        self._fail_as_recorded_or(what, replayed={"step": "tool_call", "tool": name, "arguments": arguments})
        self.stopped.set()
        if self.in_line:
            raise Left
        never: asyncio.Future[ToolAnswer] = asyncio.get_running_loop().create_future()
        return await never

    # -- the end of it

    def _fail_as_recorded_or(self, what: str, *, replayed: JsonValue) -> None:
        """The recording has nothing more: because its run failed here, or this one does something else."""
        failure = self._tape.failure
        if self.verdict is not None:
            return
        if self.frozen and failure is not None:
            self.ends_as_recorded = Failed(code=failure.code, detail=failure.detail or failure.title, retriable=False)
        else:
            at = self._taken
            self._diverge(what, self._tape.steps[at] if at < len(self._tape.steps) else None, replayed)

    def _diverge(self, what: str, recorded: JsonValue, replayed: JsonValue) -> None:
        if self.divergence is None:
            self.divergence = Divergence(index=self._taken, what=what, recorded=recorded, replayed=replayed)


class Playbacks:
    """The playbacks of runs under way."""

    def __init__(self) -> None:
        self._by_run: dict[str, Playback] = {}
        self._by_key: dict[str, Playback] = {}
        self._came = asyncio.Event()

    @contextmanager
    def playing(self, run_id: str, playback: Playback) -> Iterator[Playback]:
        """Within, it is found."""
        self._by_run[run_id] = self._by_key[playback.key] = playback
        self._came.set()
        self._came.clear()
        try:
            yield playback
        finally:
            del self._by_run[run_id], self._by_key[playback.key]

    def of_run(self, run_id: str) -> Playback | None:
        """That of a run, by the id it is replayed under."""
        return self._by_run.get(run_id)

    async def another(self) -> None:
        """Wait until one more is there."""
        await self._came.wait()

    def of_key(self, key: str) -> Playback | None:
        """That of a model call."""
        return self._by_key.get(key)


def _step_of(said: Said) -> Step:
    if said.role == "tool":
        return {"step": "tool_result", "response": said.text}
    calls: list[JsonValue] = [{"tool": name, "arguments": arguments} for name, arguments in said.calls]
    step: Step = {"step": "answer", "text": said.text}
    return {**step, "tool_calls": calls} if calls else step
