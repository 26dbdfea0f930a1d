"""Who waits over a second is told once how many are before him, and his attempt goes on from there."""

import asyncio
from dataclasses import fields, replace

from agentstream.consumers.admitted import Admitted
from agentstream.consumers.harness.scripted import ScriptedHarness
from agentstream.consumers.redaction import Redactor
from agentstream.consumers.runs import Runs
from agentstream.consumers.waiting_room import PATIENCE_SECONDS, TOLD_AT_ONCE, WaitingRoom
from agentstream.schemas.events import RunQueued, StreamEvents
from agentstream.schemas.requests import StreamMode
from agentstream.schemas.results import InvokeResult
from tests.unit.playing import Scene
from tests.virtual_time import in_virtual_time


class Room(WaitingRoom):
    """Notes what it says; says nothing while `busy`."""

    def __init__(self) -> None:
        super().__init__(self._say, self._note)
        self.said: list[StreamEvents] = []
        self.forgotten: list[str] = []
        self.busy = False

    def _note(self, attempt_id: str) -> None:
        self.forgotten.append(attempt_id)

    def _say(self, events: StreamEvents, _admitted: Admitted) -> bool:
        self.said += [] if self.busy else [events]
        return not self.busy

    @property
    def ahead(self) -> list[tuple[str, int]]:
        """Who was told what."""
        return [
            (each.run_id, event.ahead) for each in self.said for event in each.events if isinstance(event, RunQueued)
        ]


def run(run_id: str, session_id: str = "s", *, stream: StreamMode = "full") -> Admitted:
    one = Scene(options={"text": "hello"}, stream=stream).admitted()
    return replace(one, request=one.request.model_copy(update={"id": run_id, "session_id": session_id}))


def test_each_that_waits_over_a_second_is_told_once_how_many_of_its_session_are_before_it() -> None:
    async def play() -> None:
        room, runs = Room(), [run("a"), run("b"), run("c"), run("x", "other")]
        for each in runs:
            room.enter(each)
        room.begin(runs[0])
        await asyncio.sleep(PATIENCE_SECONDS / 2)
        assert room.said == []
        late = run("late")
        room.enter(late)
        await asyncio.sleep(PATIENCE_SECONDS * 0.75)
        assert room.ahead == [("b", 1), ("c", 2), ("x", 0)]
        room.leave(runs[0])
        await asyncio.sleep(PATIENCE_SECONDS)
        assert room.ahead == [("b", 1), ("c", 2), ("x", 0), ("late", 2)]
        await asyncio.sleep(10 * PATIENCE_SECONDS)
        assert len(room.said) == 4

    in_virtual_time(play())


def test_who_began_or_left_in_time_is_told_nothing_nor_who_wants_no_stream_nor_anybody_while_deltas_are_late() -> None:
    async def play() -> None:
        room = Room()
        began, left, quiet, unlucky = run("1"), run("2"), run("3", stream="none"), run("4")
        for each in (began, left, quiet, unlucky):
            room.enter(each)
        assert room.begin(began).announced_as is None
        room.leave(left)
        room.busy = True
        await asyncio.sleep(2 * PATIENCE_SECONDS)
        assert room.begin(unlucky).announced_as is None
        room.enter(run("5"))
        room.busy = False
        room.close()
        await asyncio.sleep(2 * PATIENCE_SECONDS)
        assert room.said == []

    in_virtual_time(play())


def test_of_many_that_are_due_at_once_only_a_few_are_told_before_others_have_their_turn() -> None:
    # 4,000 requests that were read together were told in one stretch: the loop stood still for a tenth of a second.
    async def play() -> None:
        room = Room()
        names = [f"{number}" for number in range(10 * TOLD_AT_ONCE)]
        for number, name in enumerate(names):
            room.enter(run(name, f"session {number % 7}"))
        await asyncio.sleep(PATIENCE_SECONDS)
        at, turns = asyncio.get_running_loop().time(), [len(room.said)]
        while len(room.said) < len(names):
            await asyncio.sleep(0)
            turns.append(len(room.said))
        assert asyncio.get_running_loop().time() == at, "nobody is told later than he must be"
        assert max(after - before for before, after in zip([0, *turns], turns, strict=False)) == TOLD_AT_ONCE
        assert room.ahead == [(name, number // 7) for number, name in enumerate(names)]
        await asyncio.sleep(10 * PATIENCE_SECONDS)
        assert len(room.said) == len(names)

    in_virtual_time(play())


def test_where_runs_are_quick_nobody_looks_for_each_of_them_whether_it_still_waits() -> None:
    async def play() -> None:
        room, loop = Room(), asyncio.get_running_loop()
        for number in range(100):
            one = run(f"{number}")
            room.enter(one)
            await asyncio.sleep(0.009)
            room.leave(room.begin(one))
        slow = run("slow")
        room.enter(slow)
        entered = loop.time()
        # Of the two timers the first finds all but the last gone.
        looks: list[float] = []
        while not room.said:
            due = room._timer.when() if room._timer is not None else 0.0
            looks += [due] if due not in looks else []
            await asyncio.sleep(0.001)
        assert looks == [PATIENCE_SECONDS, entered + PATIENCE_SECONDS]

    in_virtual_time(play())


def test_a_run_that_was_announced_is_the_same_in_all_else() -> None:
    one = replace(run("a"), attempt=2, crashes=1, redrive_of="b")
    values = [getattr(one, each.name) for each in fields(one)]
    assert [each.name for each in fields(one) if getattr(one, each.name) == each.default] == ["announced_as"]
    announced = one.announced("id")
    assert [getattr(announced, each.name) for each in fields(one)] == [
        "id" if each.name == "announced_as" else value for each, value in zip(fields(one), values, strict=True)
    ]


def test_the_attempt_that_was_announced_goes_on_with_event_1_and_the_next_one_is_its_own() -> None:
    async def play() -> tuple[Room, list[StreamEvents], InvokeResult]:
        room = Room()
        scene = Scene(options={"text": "hello", "fail_attempts": 1})
        room.enter(scene.admitted())
        await asyncio.sleep(2 * PATIENCE_SECONDS)
        runs = Runs({"scripted": ScriptedHarness()}, redactor=Redactor([]))
        produced = [item async for item in runs.execute(room.begin(scene.admitted()))]
        room.leave(scene.admitted())
        result = produced.pop()
        assert isinstance(result, InvokeResult)
        return room, [item for item in produced if isinstance(item, StreamEvents)], result

    room, records, result = in_virtual_time(play())
    announced = room.said[0]
    first = [record for record in records if record.attempt == 1]
    assert {record.attempt_id for record in first} == {announced.attempt_id}
    assert (announced.claim, announced.attempt) == (first[0].claim, first[0].attempt)
    assert [event.seq for record in first for event in record.events] == list(range(1, first[-1].events[-1].seq + 1))
    second = [record for record in records if record.attempt == 2]
    assert second[0].first_seq == 0
    assert result.attempt_id == second[0].attempt_id != announced.attempt_id
    assert room.forgotten == [announced.attempt_id]
