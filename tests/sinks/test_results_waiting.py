"""Waiting for outcomes, by long poll or with a submission: told by the log's tail, and by the store where that is what knows."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

from schemas.records import Lane
from sinks.results_outcomes import SubmittedOutcomes
from sinks.results_policy import ResultsPolicy
from sinks.waits import WaitPolicy
from tests.support.subscribers import PATIENT_S
from tests.support.world import BOX, Caller, World, asked, reference, result_of, serving, turn


async def test_a_long_poll_ends_with_the_outcome_which_the_store_need_not_know(world: World, caller: Caller) -> None:
    ref = reference("i1")
    world.submit(ref)
    asking = asyncio.create_task(asked(caller, f"/v1/images/i1?wait={PATIENT_S}"))
    while not len(world.waits):  # noqa: ASYNC110 - nothing announces it
        await asyncio.sleep(0.005)
    world.lagging = True
    world.complete(result_of(ref, BOX))
    status, image, _ = await asking
    assert (status, image["status"], len(image["detections"])) == (200, "completed", 1)
    assert len(world.waits) == 0


async def test_a_long_poll_that_is_over_says_how_it_stands_by_then(world: World, caller: Caller) -> None:
    world.submit(reference("i1"))
    asking = asyncio.create_task(asked(caller, "/v1/images/i1?wait=0.3"))
    await turn()
    world.take(1)
    status, image, headers = await asking
    assert (status, image["status"], headers["Retry-After"]) == (200, "processing", "1")
    assert (await asked(caller, "/v1/images/i1?wait=0"))[1]["status"] == "processing"


async def test_a_long_poll_of_what_is_finished_does_not_wait(world: World, caller: Caller) -> None:
    ref = reference("i1")
    world.submit(ref)
    world.deaf = True
    world.complete(result_of(ref))
    async with asyncio.timeout(PATIENT_S / 2):
        assert (await asked(caller, f"/v1/images/i1?wait={PATIENT_S}"))[1]["status"] == "completed"


async def test_a_gap_in_the_tail_makes_a_long_poll_ask_the_store(world: World, caller: Caller) -> None:
    ref = reference("i1")
    world.submit(ref)
    asking = asyncio.create_task(asked(caller, f"/v1/images/i1?wait={PATIENT_S}"))
    while not len(world.waits):  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    world.deaf = True
    world.complete(result_of(ref))
    world.waits.reset("log_truncated")
    async with asyncio.timeout(PATIENT_S / 2):
        assert (await asking)[1]["status"] == "completed"


async def test_nobody_who_waits_is_told_of_a_silent_result(world: World, caller: Caller) -> None:
    ref = reference("i1")
    world.submit(ref)
    waiting = asyncio.create_task(asked(caller, f"/v1/images/i1?wait={PATIENT_S}"))
    await turn()
    again = replace(ref, silent=True, replay_id="r", model="codes@9")
    world.submit(again)
    world.complete(replace(result_of(again, model_version="9", silent=True), id="s1"))
    await turn()
    assert not waiting.done()
    assert (await asked(caller, "/v1/images/i1"))[1]["status"] == "queued"
    world.complete(result_of(ref, BOX))
    assert (await waiting)[1]["result_id"] == "r-i1"


async def test_a_batch_is_waited_for(world: World, caller: Caller) -> None:
    refs = [reference(f"i{n}", batch_id="b") for n in range(3)]
    world.submit(*refs)
    world.batch("b", 3)
    asking = asyncio.create_task(asked(caller, f"/v1/batches/b?wait={PATIENT_S}"))
    while len(world.waits) < 3:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    world.lagging = True
    world.complete(*(result_of(ref) for ref in refs[:2]))
    world.fail(refs[2])
    await turn()
    world.project()
    batch = (await asking)[1]
    assert (batch["status"], batch["completed"], batch["failed"]) == ("completed", 2, 1)
    world.lagging = False
    world.batch("c", None)
    assert (await asked(caller, "/v1/batches/c?wait=0.01"))[1]["status"] == "receiving"


async def test_whoever_submitted_is_answered_from_the_tail(world: World) -> None:
    outcomes = SubmittedOutcomes(world.reads)
    ref, bad = reference("i1", key="k"), reference("i2", key="k", attributes={"a": "b"}, lane=Lane.BULK)
    world.lagging = True
    world.submit(ref)
    world.submit(bad)
    waiting = asyncio.create_task(outcomes.image("default", "i1", PATIENT_S))
    await turn()
    world.complete(result_of(ref, BOX))
    async with asyncio.timeout(PATIENT_S / 2):
        text = await waiting
    assert text is not None
    assert json.loads(text)["detections"][0]["label"] == "dog"
    assert world.asked == 0  # no broker, no store that is behind
    world.fail(bad)
    world.project()
    failed = json.loads(await outcomes.image("default", "i2", PATIENT_S) or "")
    assert (failed["status"], failed["lane"], failed["attributes"], failed["key"]) == (
        "failed",
        "bulk",
        {"a": "b"},
        "k",
    )
    assert await outcomes.image("other", "i1", 0.01) is None
    assert await outcomes.image("default", "i3", 0.01) is None


async def test_what_was_submitted_again_long_after_its_outcome_is_answered_from_the_store(world: World) -> None:
    world.deaf = True
    ref = reference("i1", batch_id="b")
    world.submit(ref)
    world.batch("b", 1)
    world.complete(result_of(ref))
    outcomes = SubmittedOutcomes(world.reads)
    async with asyncio.timeout(PATIENT_S / 2):
        assert json.loads(await outcomes.image("default", "i1", PATIENT_S, ["i1"]) or "")["status"] == "completed"
        assert (
            json.loads(await outcomes.batch("default", "b", ["i1"], PATIENT_S, ["i1"]) or "")["status"] == "completed"
        )


async def test_a_batch_just_submitted_is_answered_when_all_have_their_outcome(world: World) -> None:
    outcomes = SubmittedOutcomes(world.reads)
    refs = [reference(f"i{n}", batch_id="b") for n in range(3)]
    world.submit(*refs)
    world.batch("b", 3)
    waiting = asyncio.create_task(outcomes.batch("default", "b", [ref.id for ref in refs], PATIENT_S))
    await turn()
    world.complete(*(result_of(ref) for ref in refs[:2]))
    await turn()
    assert not waiting.done()
    world.complete(result_of(refs[2]))
    batch = json.loads(await waiting or "")
    assert (batch["completed"], len(batch["results"])) == (3, 3)
    assert await outcomes.batch("default", "b", ["i0", "i9"], 0.01) is None


async def test_with_too_many_waiting_an_answer_comes_at_once_as_it_stands(tmp_path: Path) -> None:
    world = World(tmp_path, ResultsPolicy(waits=WaitPolicy(images=0)))
    try:
        world.submit(reference("i1"))
        async with serving(world) as caller, asyncio.timeout(PATIENT_S / 2):
            assert (await asked(caller, f"/v1/images/i1?wait={PATIENT_S}"))[1]["status"] == "queued"
            assert await SubmittedOutcomes(world.reads).image("default", "i1", PATIENT_S) is None
    finally:
        world.close()


async def test_the_end_of_the_process_lets_long_polls_go(world: World) -> None:
    world.submit(reference("i1"))
    async with serving(world) as caller:
        asking = asyncio.create_task(asked(caller, f"/v1/images/i1?wait={PATIENT_S}"))
        while not len(world.waits):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        world.waits.close()
        async with asyncio.timeout(PATIENT_S / 2):
            assert (await asking)[1]["status"] == "queued"
