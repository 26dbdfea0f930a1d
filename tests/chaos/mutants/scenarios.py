"""For each rule the moment at which it counts. The same acts for the real worker and for the mutant.

A scenario waits for what happens, and where engine and mutant part for the one or the other; it ends with every worker
stopped, so that the checker may read the log.
"""

from pydantic import JsonValue

from tests.chaos.mutants.stage import Actor, Stage, either, of_a_newer_version
from tests.support.frames import Api, setting
from tests.support.proxy import Hold, Rewrite, Rule

Options = dict[str, JsonValue]

SHORT: Options = {"text": "one two three", "delay_ms": 50}
LONG: Options = {"text": " ".join(f"word{number}" for number in range(20)), "delay_ms": 100}


async def _replaced_with_a_result_in_hand(stage: Stage) -> tuple[Actor, Actor, Rule, Rule]:
    """The first worker has a result whose transaction is held on its way; the group, which hears nothing of it any
    more, gives the partition to the second. Returns both, and what holds the transaction and the silence."""
    first = await stage.worker("first")
    await first.owns()
    transaction = first.proxy.on(Api.ADD_PARTITIONS_TO_TXN, do=Hold.REQUEST)
    await stage.submit("run", SHORT)
    await transaction.hit()
    silence = first.proxy.on(Api.HEARTBEAT, Api.JOIN_GROUP, do=Hold.REQUEST)
    second = await stage.worker("second")
    await second.owns()
    return first, second, transaction, silence


async def two_owners_commit(stage: Stage) -> None:
    """A former owner commits the result that it had in hand when the new one has written its own."""
    first, second, transaction, silence = await _replaced_with_a_result_in_hand(stage)
    await stage.cluster.tail.all_results("run")
    transaction.lift()
    await either(lambda: stage.results("run") == 2, lambda: first.said("a transaction failed") > 0)
    silence.lift()
    await stage.stop(first, second)


async def a_zombie_is_fenced(stage: Stage) -> None:
    """A former owner finds out at its commit that it was replaced, while the group does not answer it."""
    first, second, transaction, silence = await _replaced_with_a_result_in_hand(stage)
    calls = len(first.proxy.calls)
    consumer = {call.connection for call in first.proxy.calls if call.api == Api.JOIN_GROUP}
    transaction.lift()

    def asked() -> bool:
        beats = [call for call in first.proxy.calls[calls:] if call.api == Api.HEARTBEAT]
        return any(call.connection not in consumer for call in beats)

    await first.says("a transaction failed")
    await either(asked, lambda: first.said("partition 0 is ours: claim") == 2)
    silence.lift()
    await stage.cluster.tail.all_results("run")
    await stage.stop(first, second)


async def the_coordinator_is_loading(stage: Stage) -> None:
    """A partition changes hands while the coordinator cannot tell its offset; and the index, which else says what was
    done, has expired."""
    first = await stage.worker("first")
    for run_id in ("1", "2", "3"):
        await stage.submit(run_id, SHORT, session="one")
    await stage.cluster.tail.all_results("1", "2", "3")
    await stage.stop(first)
    await stage.expire_index()
    second = await stage.worker("second")
    second.proxy.on(Api.OFFSET_FETCH, do=Rewrite(setting(error_code=14, topics=[])), times=2)
    await stage.submit("4", SHORT, session="one")
    await stage.cluster.tail.all_results("4")
    await stage.stop(second)


async def the_brokers_refuse_a_result(stage: Stage) -> None:
    """A result is larger than the brokers allow: its produce fails within the transaction."""
    await stage.cluster.configure(stage.cluster.topics.assistant_messages, max_message_bytes=20_000)
    only = await stage.worker("only")
    await stage.submit("small", SHORT)
    await stage.cluster.tail.all_results("small")
    await stage.submit("large", {"output_bytes": 40_000})
    await stage.cluster.until_committed(2)
    await stage.stop(only)


async def a_partition_was_elsewhere(stage: Stage) -> None:
    """A worker that was cut off comes back after another owned its partition and left. It is told that the partition is
    its own, and never that it was not."""
    first = await stage.worker("first")
    await first.owns()
    # What it fetches in between says nothing; so the request below is the first that it reads.
    fetches = first.proxy.on(Api.FETCH, do=Rewrite(setting(topics=[])))
    silence = first.proxy.on(do=Hold.REQUEST)
    second = await stage.worker("second")
    await second.owns()
    await stage.submit("theirs", SHORT)
    await stage.cluster.tail.all_results("theirs")
    await stage.stop(second)
    silence.lift()
    await first.calls(Api.SYNC_GROUP, since=len(first.proxy.calls))
    # Heartbeats begin once the assignment was taken in.
    await first.calls(Api.HEARTBEAT, since=len(first.proxy.calls))
    await stage.submit("new", SHORT)
    fetches.lift()
    await stage.cluster.tail.all_results("new")
    await stage.stop(first)


async def a_worker_is_killed_in_a_run(stage: Stage) -> None:
    """Kill -9 when readers have seen the run begin; the next owner runs it again."""
    first = await stage.worker("first")
    await stage.submit("run", LONG)
    await stage.cluster.tail.until(lambda: len(stage.cluster.tail.events) > 1)
    await stage.cluster.until_marked(1)
    await stage.kill(first)
    second = await stage.worker("second")
    await stage.cluster.tail.all_results("run")
    await stage.stop(second)


async def a_newer_release_was_here(stage: Stage) -> None:
    """A downgrade: what is open and what is finished stands in metadata of a later version; the index has expired. An
    operator sees the partition closed, and puts the metadata back."""
    first = await stage.worker("first", AGENTSTREAM_GRACE_SECONDS="0")
    await first.owns()
    await stage.submit("open", LONG)
    await stage.submit("done", SHORT)
    await stage.cluster.tail.all_results("done")
    await stage.stop(first)
    left = await stage.cluster.committed()
    await stage.expire_index()
    await stage.cluster.commit(left.offset, of_a_newer_version(left.metadata))
    second = await stage.worker("second")
    await either(lambda: second.said("partition 0 stays closed") > 0, lambda: stage.results("open") > 0)
    await stage.stop(second)
    if not stage.results("open"):
        await stage.cluster.commit(left.offset, left.metadata)
        third = await stage.worker("third")
        await stage.cluster.tail.all_results("open")
        await stage.stop(third)
