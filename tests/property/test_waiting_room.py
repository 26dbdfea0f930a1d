"""Whoever enters, begins and leaves in whatever order: who waits is told once, and how many are before him is right."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from agentstream.consumers.admitted import Admitted
from agentstream.consumers.waiting_room import PATIENCE_SECONDS, WaitingRoom
from agentstream.schemas.events import RunQueued, StreamEvents
from agentstream.schemas.requests import StreamMode
from tests.unit.playing import Scene
from tests.virtual_time import in_virtual_time

SESSIONS = 3
Step = tuple[str, int]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.integers(0, 2 * SESSIONS - 1)),
        st.tuples(st.just("enter"), st.integers(0, 2 * SESSIONS - 1)),
        st.tuples(st.sampled_from(["begin", "leave"]), st.integers(0, 30)),
        st.tuples(st.just("wait"), st.integers(1, 5)),
    ),
    max_size=60,
)


@dataclass
class Guest:
    """A run as the test sees it."""

    admitted: Admitted
    entered: float
    began: float | None = None
    left: float | None = None
    told: int = 0

    def ought_to_be_told(self, now: float) -> bool:
        due = self.entered + PATIENCE_SECONDS
        over = min((at for at in (self.began, self.left) if at is not None), default=now)
        return self.admitted.parameters.stream != "none" and due < over


def admitted(run_id: str, session: int, stream: StreamMode) -> Admitted:
    one = Scene(stream=stream).admitted()
    return replace(one, request=one.request.model_copy(update={"id": run_id, "session_id": f"s{session}"}))


class Play:
    """The steps, done to a room and to a list."""

    def __init__(self) -> None:
        self.guests: list[Guest] = []
        self.room = WaitingRoom(self.say, lambda _: None)
        self.clock = asyncio.get_running_loop().time

    def say(self, events: StreamEvents, told: Admitted) -> bool:
        (event,) = events.events
        assert isinstance(event, RunQueued)
        before = [
            guest.admitted.run_id
            for guest in self.guests
            if guest.left is None and guest.admitted.session_id == told.session_id
        ]
        assert event.ahead == before.index(told.run_id)
        guest = self.guests[int(told.run_id)]
        guest.told += 1
        assert guest.began is None
        return True

    async def step(self, what: str, number: int) -> None:
        match what:
            case "enter":
                stream: StreamMode = "none" if number >= SESSIONS else "full"
                guest = Guest(admitted(f"{len(self.guests)}", number % SESSIONS, stream), self.clock())
                self.guests.append(guest)
                self.room.enter(guest.admitted)
            case "wait":
                await asyncio.sleep(number * 0.3)  # never is anything else due when a run is
            case _:
                if self.guests:
                    self.act(self.guests[number % len(self.guests)], what)

    def act(self, guest: Guest, what: str) -> None:
        if what == "leave":
            # Twice does nothing: a run that was cancelled leaves again when its lane comes to it.
            guest.left = self.clock() if guest.left is None else guest.left
            self.room.leave(guest.admitted)
        elif guest.left is None and guest.began is None:
            guest.began = self.clock()
            assert (self.room.begin(guest.admitted).announced_as is not None) == bool(guest.told)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_who_waits_is_told_once_how_many_of_its_session_are_before_it(script: Sequence[Step]) -> None:
    async def play() -> None:
        playing = Play()
        for step in script:
            await playing.step(*step)
        await asyncio.sleep(2 * PATIENCE_SECONDS)
        now = playing.clock()
        assert [guest.told for guest in playing.guests] == [guest.ought_to_be_told(now) for guest in playing.guests]
        waiting = [guest.admitted for guest in playing.guests if guest.began is None and guest.left is None]
        assert list(playing.room.waiting()) == waiting
        running = [guest for guest in playing.guests if guest.began is not None and guest.left is None]
        running.sort(key=lambda guest: guest.began or 0.0)
        assert [run_id for run_id, _, _ in playing.room.under_way()] == [guest.admitted.run_id for guest in running]
        for guest in playing.guests:
            playing.room.leave(guest.admitted)
        assert playing.room.oldest_ms is None
        assert (playing.room._runs, playing.room._lanes) == ({}, {})
        playing.room.close()

    in_virtual_time(play())
