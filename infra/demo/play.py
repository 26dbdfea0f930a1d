"""The programme: the stage is set, the scenes are played, the table is shown, everything is stopped."""

import asyncio
import signal
from collections.abc import Sequence

from agentstream.consumers.client import ClientError
from agentstream.infra.demo.judging import judge_a_change
from agentstream.infra.demo.places import find_places
from agentstream.infra.demo.scenes import (
    KILLED,
    Played,
    bad_record,
    killed_worker,
    many_sessions,
    plain_answer,
    tools,
    two_turns,
)
from agentstream.infra.demo.shadowing import shadow
from agentstream.infra.demo.show import Row, Show
from agentstream.infra.demo.stage import SceneFailed, Stage, open_stage
from agentstream.infra.span_tree import of_run
from agentstream.infra.telemetry.span_lines import SpanLine, read_spans
from agentstream.schemas import span_names

SCENES = (plain_answer, tools, two_turns, many_sessions, bad_record, killed_worker, judge_a_change, shadow)
SCENE_SECONDS = 180.0
TRACE_SECONDS = 20.0
"""For the spans of the worker that was killed: the next owner reads them from the delta log in its spare time."""


async def play() -> int:
    """Play all scenes; 0 if each went as it should, else 1."""
    show = Show()
    failed: list[str] = []
    playing = asyncio.current_task()
    if playing is not None:
        # As Ctrl-C does: the stage is taken down before the process ends.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, playing.cancel)
    async with open_stage(show) as stage:
        played = Played()
        for number, scene in enumerate(SCENES, start=1):
            show.title(number, (scene.__doc__ or "").rstrip("."))
            try:
                async with asyncio.timeout(SCENE_SECONDS):
                    await scene(stage, played)
            except (SceneFailed, ClientError, TimeoutError) as error:
                failed.append(scene.__name__)
                show.failed(str(error) or "it took too long")
        await _show_table(stage, played)
        if not failed and not await _show_trace(stage, played):
            failed.append("the trace")
        if failed:
            for name in stage.workers:
                show.note(f"\nThe end of {name}'s log:\n{stage.log_end(name)}")
        show.note("\nStopping workers and Kafka …")
    show.end("Not all scenes went as they should: " + ", ".join(failed) if failed else "All eight scenes went well.")
    return 1 if failed else 0


async def _show_table(stage: Stage, played: Played) -> None:
    places = await find_places(stage.connection, stage.topics, [each.submitted for each in played.runs])
    rows = [
        Row.of(
            each.name,
            each.result,
            request=f"{each.submitted.position.partition}/{each.submitted.position.offset}",
            deltas=places.delta(each.submitted.run_id),
            lies=places.result(each.submitted.run_id),
        )
        for each in played.runs
    ]
    topics = stage.topics
    stage.show.table(
        [*rows, *played.rows],
        f"partition/offset on {topics.invoke_requests}, {topics.stream_deltas}, {topics.assistant_messages} "
        f"(†: {topics.dead_letters}); tokens are in, out",
    )


async def _show_trace(stage: Stage, played: Played) -> bool:
    """Draw the tree of the run that was killed, as `agentstream trace` does; whether it came."""
    run_id = next(each.result.run_id for each in played.runs if each.name == KILLED)
    try:
        async with asyncio.timeout(TRACE_SECONDS):
            spans = of_run(read_spans(stage.traces), run_id)
            while not _whole(spans):
                await asyncio.sleep(0.1)
                spans = of_run(read_spans(stage.traces), run_id)
    except TimeoutError:
        stage.show.failed("the spans of the killed run did not come")
        return False
    stage.show.tree("What happened to the run whose worker was killed (`agentstream trace RUN_ID` draws it):", spans)
    return True


def _whole(spans: Sequence[SpanLine]) -> bool:
    """Whether both the attempt that was lost and the request's end are there."""
    lost = any(span.attributes.get(span_names.LOST) for span in spans)
    return lost and any(span.attributes.get(span_names.RUN_STATUS) == "completed" for span in spans)
