"""The routes out on a real result store: what stands there, what the tail told since, and nothing of anybody else's."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import DeliveryError
from schemas.identity import Scope
from schemas.records import Lane
from tests.support.world import BOX, NOW, Caller, World, asked, reference, result_of, serving, turn


async def test_an_image_from_queued_to_completed(world: World, caller: Caller) -> None:
    ref = reference("i1", key="camera-7", attributes={"b": "2", "a": "1"}, batch_id="b1")
    world.submit(ref)
    status, image, headers = await asked(caller, "/v1/images/i1")
    assert (status, image["status"], headers["Retry-After"]) == (200, "queued", "1")
    assert image["detections"] == []
    assert image["links"] == {
        "self": "/v1/images/i1",
        "annotated": "/v1/images/i1/annotated",
        "batch": "/v1/batches/b1",
    }
    world.take(1)
    assert (await asked(caller, "/v1/images/i1"))[1]["status"] == "processing"
    world.complete(result_of(ref, BOX))
    status, image, headers = await asked(caller, "/v1/images/i1")
    assert (status, image["status"], "Retry-After" in headers) == (200, "completed", False)
    assert image["detections"] == [{"label": "dog", "class_id": 16, "score": 0.875, "box": [10.0, 20.0, 110.5, 120.25]}]
    assert image["timings"] == {
        "wait_ms": 1.5,
        "fetch_ms": 2.25,
        "decode_ms": 8.5,
        "inference_ms": 20.125,
        "total_ms": 250.0,
    }
    assert (image["key"], image["attributes"], image["result_id"]) == ("camera-7", {"a": "1", "b": "2"}, "r-i1")
    assert image["submitted_at"] == f"{NOW - timedelta(minutes=1):%Y-%m-%dT%H:%M:%S}.000Z"


async def test_a_failed_image_says_why_and_a_later_result_counts_more(world: World, caller: Caller) -> None:
    ref = reference("i1", lane=Lane.BULK)
    world.submit(ref)
    world.fail(ref)
    image = (await asked(caller, "/v1/images/i1"))[1]
    assert (image["status"], image["lane"]) == ("failed", "bulk")
    assert image["failure"] == {
        "code": "image_corrupt",
        "message": "the image ends too early",
        "stage": "decode",
        "attempts": 1,
    }
    world.complete(result_of(ref))
    image = (await asked(caller, "/v1/images/i1"))[1]
    assert (image["status"], image["failure"]) == ("completed", None)


@pytest.mark.parametrize("kind", ["result", "failure"])
async def test_the_store_and_the_tail_say_the_same_to_the_letter(world: World, caller: Caller, kind: str) -> None:
    ref = reference(
        "i1",
        key='a"ü',
        attributes={"ü": '"'},
        batch_id="b",
        submitted_at=NOW.replace(microsecond=123_999),
    )
    world.submit(ref)
    world.lagging = True
    odd = replace(BOX, label='"detections":null', score=1 / 3, x1=1 / 3)
    if kind == "result":
        world.complete(result_of(ref, odd, replace(odd, label="日本"), completed_at=NOW.replace(microsecond=999_999)))
    else:
        world.fail(ref)
    told = (await asked(caller, "/v1/images/i1"))[1]
    assert told["status"] in {"completed", "failed"}
    world.project()
    stored = (await asked(caller, "/v1/images/i1"))[1]
    assert json.dumps(told) == json.dumps(stored)


async def test_an_image_as_another_version_saw_it(world: World, caller: Caller) -> None:
    ref = reference("i1", batch_id="b1")
    world.submit(ref)
    world.batch("b1", 1)
    world.complete(result_of(ref, BOX))
    before = (await asked(caller, "/v1/images/i1"))[1]
    replayed = result_of(ref, BOX, replace(BOX, label="cat"), model_version="9", replay_id="r", silent=True)
    world.complete(replace(replayed, id="s1"))
    assert (await asked(caller, "/v1/images/i1"))[1] == before
    assert (await asked(caller, "/v1/batches/b1"))[1]["results"] == [before]
    name = replayed.model_name
    status, image, _ = await asked(caller, f"/v1/images/i1?model={name}@9")
    assert (status, image["status"], image["result_id"], len(image["detections"])) == (200, "completed", "s1", 2)
    assert image["model"]["version"] == "9"
    assert (await asked(caller, f"/v1/batches/b1?model={name}@9"))[1]["results"] == [image]
    assert (await asked(caller, f"/v1/images?model={name}@9"))[1]["images"] == [image]
    assert (await asked(caller, f"/v1/images?model={name}"))[1]["images"] == [before]
    status, problem, _ = await asked(caller, f"/v1/images/i1?model={name}@8")
    assert (status, problem["code"]) == (404, "not_found")
    assert "@8" in problem["detail"]
    assert (await asked(caller, f"/v1/batches/b1?model={name}@8"))[1]["results"] == []
    assert (await asked(caller.as_tenant("other"), f"/v1/images/i1?model={name}@9"))[0] == 404
    for wrong in ("codes", "@9", "codes@", "a%00@1"):
        assert (await asked(caller, f"/v1/images/i1?model={wrong}"))[1]["code"] == "invalid_query"


async def test_unknown_is_404_only_when_the_store_has_caught_up(world: World, caller: Caller) -> None:
    assert (await asked(caller, "/v1/images/i1"))[1]["code"] == "not_found"
    world.lagging = True
    world.submit(reference("i1"))
    status, problem, headers = await asked(caller, "/v1/images/i1")
    assert (status, problem["code"], headers["Retry-After"]) == (503, "store_behind", "1")
    asking = asyncio.create_task(asked(caller, "/v1/images/i1"))
    await turn()
    world.project()
    assert (await asking)[1]["status"] == "queued"
    world.log_is_away = True
    assert (await asked(caller, "/v1/images/i2"))[1]["code"] == "store_unavailable"
    asked_before = world.asked
    assert (await asked(caller, "/v1/images/i1"))[0] == 200
    assert world.asked == asked_before  # what is known needs no broker


@pytest.mark.parametrize("path", ["images/i1", "images/i1/annotated", "batches/b1", "batches/b1?format=parquet"])
async def test_what_is_another_tenants_is_as_unknown_as_nothing(world: World, caller: Caller, path: str) -> None:
    ref = reference("i1", batch_id="b1")
    world.submit(ref)
    world.batch("b1", 1)
    world.complete(result_of(ref, BOX))
    foreign = await caller.as_tenant("other").ask(f"/v1/{path}")
    unknown = await caller.as_tenant("other").ask(f"/v1/{path.replace('1', '2')}")
    assert foreign[0] == unknown[0] == 404
    assert foreign[1] == unknown[1]
    assert (await asked(caller.as_tenant("other"), "/v1/images?batch=b1"))[1] == {"images": [], "next": None}


async def test_a_foreign_image_is_neither_waited_for_nor_deleted(world: World, caller: Caller) -> None:
    ref = reference("i1")
    world.submit(ref)
    other = caller.as_tenant("other")
    assert (await asked(other, "/v1/images/i1?wait=5"))[0] == 404
    assert (await asked(other, "/v1/images/i1", "DELETE"))[0] == 404
    assert (await asked(caller, "/v1/images/i1"))[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/v1/images", Scope.READ),
        ("GET", "/v1/images/i1", Scope.READ),
        ("GET", "/v1/images/i1/annotated", Scope.READ),
        ("GET", "/v1/batches/b1", Scope.READ),
        ("GET", "/v1/status", Scope.READ),
        ("DELETE", "/v1/images/i1", Scope.DELETE),
    ],
)
async def test_each_route_wants_its_scope(caller: Caller, method: str, path: str, scope: Scope) -> None:
    for lacking in frozenset(Scope) - {scope, Scope.ADMIN}:
        status, problem, _ = await asked(caller.as_tenant("t", scopes=frozenset({lacking})), path, method)
        assert (status, problem["code"]) == (403, "forbidden")
    assert (await caller.as_tenant("t", scopes=frozenset({Scope.ADMIN})).ask(path, method))[0] != 403


async def test_an_etag_spares_what_is_known_until_it_changes(world: World, caller: Caller) -> None:
    ref = reference("i1")
    world.submit(ref)
    etag = (await asked(caller, "/v1/images/i1"))[2]["ETag"]
    for known in (etag, f'"x", {etag}', f"W/{etag}", "*"):
        status, body, headers = await asked(caller, "/v1/images/i1", If_None_Match=known)
        assert (status, body, headers["ETag"], headers["Retry-After"]) == (304, b"", etag, "1")
    for other in ('"x"', "nonsense", ""):
        assert (await caller.ask("/v1/images/i1", If_None_Match=other))[0] == 200
    world.complete(result_of(ref))
    status, image, headers = await asked(caller, "/v1/images/i1", If_None_Match=etag)
    assert (status, image["status"], headers["ETag"] != etag) == (200, "completed", True)
    assert headers["Cache-Control"] == "private, no-cache"


async def test_deleted_is_gone_for_whoever_reads_next_and_once_more_is_fine(world: World, caller: Caller) -> None:
    ref = reference("i1")
    world.submit(ref)
    world.complete(result_of(ref))
    world.lagging = True
    deleting = asyncio.create_task(asked(caller, "/v1/images/i1", "DELETE"))
    while not world.end(world.topics.deletions):  # noqa: ASYNC110 - nothing announces it
        await asyncio.sleep(0.005)
    assert not deleting.done()  # it waits for the store, so that no reader finds the image afterwards
    world.project()
    assert (await deleting)[0] == 204
    status, problem, _ = await asked(caller, "/v1/images/i1")
    assert (status, problem["code"]) == (410, "deleted")
    assert (await asked(caller, "/v1/images/i1/annotated"))[0] == 410
    assert (await asked(caller, "/v1/images/i1", "DELETE"))[0] == 204
    assert (await asked(caller, "/v1/images"))[1]["images"] == []
    assert (await asked(caller, "/v1/images/never", "DELETE"))[0] == 404


async def test_a_deletion_that_kafka_does_not_confirm_is_503(world: World) -> None:
    async def refuse(tenant: str, image_id: str) -> Any:
        raise DeliveryError(f"{tenant} {image_id}")

    world.submit(reference("i1"))
    async with serving(world, forget=refuse) as caller:
        status, problem, headers = await asked(caller, "/v1/images/i1", "DELETE")
        assert (status, problem["code"], "Retry-After" in headers) == (503, "not_confirmed", True)
        assert (await asked(caller, "/v1/images/i1"))[0] == 200


async def test_expired_is_410_and_says_so(tmp_path: Path) -> None:
    world = World(tmp_path, keep_days=1e-9)
    try:
        world.submit(reference("i1"))
        await asyncio.sleep(0.01)
        async with serving(world) as caller:
            status, problem, _ = await asked(caller, "/v1/images/i1")
            assert (status, problem["code"]) == (410, "expired")
            assert (await asked(caller, "/v1/images/i1", "DELETE"))[0] == 410
    finally:
        world.close()


async def test_a_search_finds_what_is_asked_for_page_by_page(world: World, caller: Caller) -> None:
    refs = [
        reference(f"i{n}", key=f"camera-{n % 2}", submitted_at=NOW - timedelta(seconds=60 - n), batch_id=f"b{n % 3}")
        for n in range(12)
    ]
    world.submit(*refs)
    for n, ref in enumerate(refs[:8]):
        world.complete(result_of(ref, replace(BOX, label="cat" if n % 4 else "dog", score=n / 10)))
    world.fail(refs[8])

    async def ids(query: str) -> list[int]:
        body = (await asked(caller, f"/v1/images?{query}"))[1]
        return [int(image["id"][1:]) for image in body["images"]]

    assert await ids("") == list(range(11, -1, -1))
    assert await ids("camera=camera-1&limit=200") == [11, 9, 7, 5, 3, 1]
    assert await ids("label=dog") == [4, 0]
    assert await ids("label=dog&label=cat&min_score=0.6") == [7, 6]
    assert await ids("status=failed") == [8]
    assert await ids("status=queued&batch=b2") == [11]
    assert await ids("model=codes&limit=3") == [7, 6, 5]
    since = f"{NOW - timedelta(seconds=51):%Y-%m-%dT%H:%M:%S}"
    assert await ids(f"since={since}Z") == [11, 10, 9]
    assert await ids(f"until={since}%2B00:00&limit=2") == [8, 7]
    assert await ids(f"since={since}+00:00") == [11, 10, 9]  # a plus that nobody escaped

    seen, path = [], "/v1/images?limit=5"
    while path:
        body = (await asked(caller, path))[1]
        seen += [int(image["id"][1:]) for image in body["images"]]
        path = f"/v1/images?limit=5&cursor={body['next']}" if body["next"] else ""
    assert seen == list(range(11, -1, -1))


async def test_a_cursor_of_another_tenant_shows_nothing_of_it(world: World, caller: Caller) -> None:
    world.submit(*(reference(f"i{n}", tenant="rich", batch_id="b") for n in range(5)))
    world.batch("b", 5, tenant="rich")
    rich, poor = caller.as_tenant("rich"), caller.as_tenant("poor")
    cursor = (await asked(rich, "/v1/images?limit=2"))[1]["next"]
    assert (await asked(poor, f"/v1/images?cursor={cursor}"))[1] == {"images": [], "next": None}
    cursor = (await asked(rich, "/v1/batches/b?limit=2"))[1]["next"]
    assert (await asked(poor, f"/v1/batches/b?cursor={cursor}"))[0] == 404


_WRONG = [
    "limit=0",
    "limit=201",
    "limit=1e1",
    "limit=%2B5",
    "limit=٣",
    "limit=1&limit=2",
    "min_score=2",
    "min_score=nan",
    "min_score=-0.1",
    "status=done",
    "since=yesterday",
    "since=2026-02-30T00:00:00Z",
    "since=0001-01-01T00:00:00%2B23:00",
    "since=2026-01-01",
    "cursor=garbage",
    "cursor=W10",
    "cursor=WyJ4Il0",
    "cursor=bnVsbA",
    "cursor=%00",
    "cursor=",
    "label=",
    "label=a%00b",
    "camera=" + "x" * 257,
    "tenant=other",
    "batch=%ED%A0%80%00",
    "&".join(f"label=l{n}" for n in range(101)),
]


async def test_what_cannot_be_understood_is_400(caller: Caller) -> None:
    for query in _WRONG:
        status, problem, _ = await asked(caller, f"/v1/images?{query}")
        assert (status, problem["code"]) == (400, "invalid_query"), query


async def test_every_route_checks_its_query(caller: Caller) -> None:
    paths = [f"images/i1?{query}" for query in ("wait=61", "wait=-1", "wait=x", "wait=1e1", "what=1", "wait=1&wait=1")]
    paths += ["batches/b1?format=xml", "batches/b1?limit=0", "status?x=1"]
    paths += [f"images/i1/annotated?{query}" for query in ("max_side=8", "format=png", "labels=", "min_score=2")]
    for path in paths:
        assert (await asked(caller, f"/v1/{path}"))[1]["code"] == "invalid_query", path
    assert (await asked(caller, "/v1/images/i1?x=1", "DELETE"))[1]["code"] == "invalid_query"


async def test_strange_ids_are_unknown_and_nothing_else(caller: Caller) -> None:
    strange = ["%00", "a%00b", "x" * 600, "..%2F..%2Fetc", "%27%20OR%201=1--", "%ED%A0%80", "ü%0D%0AX:1"]
    for path in (form.format(name) for name in strange for form in ("images/{}", "images/{}/annotated", "batches/{}")):
        assert (await caller.ask(f"/v1/{path}"))[1]["code"] == "not_found", path


async def test_an_id_with_every_character_is_found_by_its_own_link(world: World, caller: Caller) -> None:
    ref = reference("cam/1 ?#ü%2F")
    world.submit(ref)
    (image,) = (await asked(caller, "/v1/images"))[1]["images"]
    assert (await caller.ask(image["links"]["self"]))[1]["id"] == ref.id


async def test_a_batch_its_counts_and_its_pages(world: World, caller: Caller) -> None:
    refs = [reference(f"i{n}", batch_id="b", submitted_at=NOW - timedelta(seconds=30 - n)) for n in range(5)]
    world.submit(*refs)
    batch = (await asked(caller, "/v1/batches/b"))[1]
    assert (batch["status"], batch["images"], batch["queued"]) == ("receiving", None, 5)
    world.batch("b", 5)
    world.take(4)
    world.complete(*(result_of(ref) for ref in refs[:2]))
    world.fail(refs[2])
    status, batch, headers = await asked(caller, "/v1/batches/b?limit=3")
    assert (status, batch["status"], headers["Retry-After"], headers["Vary"]) == (200, "running", "1", "Accept")
    assert [batch[name] for name in ("images", "queued", "processing", "completed", "failed")] == [5, 1, 1, 2, 1]
    assert [image["id"] for image in batch["results"]] == ["i0", "i1", "i2"]
    rest = (await asked(caller, f"/v1/batches/b?limit=3&cursor={batch['next']}"))[1]
    assert ([image["id"] for image in rest["results"]], rest["next"]) == (["i3", "i4"], None)
    world.complete(*(result_of(ref) for ref in refs[3:]))
    status, batch, headers = await asked(caller, "/v1/batches/b")
    assert (batch["status"], "Retry-After" in headers) == ("completed", False)
    assert (await asked(caller, "/v1/batches/b", If_None_Match=headers["ETag"]))[0] == 304


async def test_the_services_figures(world: World, caller: Caller) -> None:
    refs = [reference() for _ in range(4)]
    world.submit(*refs)
    world.take(3)
    world.complete(result_of(refs[0]))
    world.lagging = True
    world.submit(reference(lane=Lane.BULK))
    world.submit(reference())
    figures = (await asked(caller, "/v1/status"))[1]
    assert figures["lag"] == {"online": 2, "bulk": 1, "store": 2}
    assert [model["name"] for model in figures["models"]] == ["codes"]
    assert figures["store"]["backend"] == "sqlite"
    before = world.asked
    await asked(caller, "/v1/status")
    assert world.asked == before
