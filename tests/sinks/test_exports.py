"""A batch as files: other tools read what the store holds, nothing is left out, and a break is no shorter file."""

import asyncio
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pyarrow.parquet as pq
import pytest

from schemas.errors import BusyError, Reason
from schemas.records import Detection, ImageRef
from sinks.coco_categories import OFFICIAL, Categories
from tests.support.world import BOX, NOW, World, reference, result_of, serving

COCO, PARQUET = "application/vnd.coco+json", "application/vnd.apache.parquet"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def filled(world: World, count: int = 5) -> list[ImageRef]:
    """A batch: the first failed, the last is queued, the others have as many boxes as their number says."""
    refs = [
        reference(
            f"i{n}",
            batch_id="b",
            uri=f"s3://bucket/secret/folder/p%20{n}.jpg?X-Amz=1",
            submitted_at=NOW - timedelta(seconds=1000 - n),
            attributes={"n": str(n)},
        )
        for n in range(count)
    ]
    world.submit(*refs)
    world.batch("b", count)
    world.fail(refs[0])
    world.complete(*(result_of(ref, *[BOX] * (n % 7)) for n, ref in enumerate(refs[1:-1], 1)))
    return refs


async def test_coco_as_others_read_it(world: World) -> None:
    filled(world)
    async with serving(world) as caller:
        status, document, headers = await caller.ask("/v1/batches/b", Accept=COCO)
    assert (status, headers["Content-Type"]) == (200, COCO)
    assert headers["Content-Disposition"] == 'attachment; filename="b.coco.json"'
    assert headers["Retry-After"] == "1"
    assert [(image["id"], image["file_name"], image["sightstream_id"]) for image in document["images"]] == [
        (1, "p 1.jpg", "i1"),
        (2, "p 2.jpg", "i2"),
        (3, "p 3.jpg", "i3"),
    ]
    assert [box["image_id"] for box in document["annotations"]] == [1, 2, 2, 3, 3, 3]
    assert document["annotations"][0] == {
        "id": 1,
        "image_id": 1,
        "category_id": 18,
        "bbox": [10.0, 20.0, 100.5, 100.25],
        "area": 10075.12,
        "iscrowd": 0,
        "score": 0.875,
    }
    assert document["categories"] == [{"id": 18, "name": "dog", "class_id": 16}]
    assert document["failed"] == [{"sightstream_id": "i0", "code": "image_corrupt"}]
    assert document["info"]["unfinished"] == 1
    assert "secret" not in json.dumps(document)


async def test_pycocotools_takes_the_document(world: World, tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    filled(world)
    async with serving(world) as caller:
        document = (await caller.ask("/v1/batches/b?format=coco"))[1]
    file = tmp_path / "coco.json"
    file.write_text(json.dumps(document))
    read = coco.COCO(str(file))
    assert len(read.getAnnIds(catIds=read.getCatIds(["dog"]))) == 6


def test_coco_ids_are_cocos_own_where_the_class_is() -> None:
    assert len(OFFICIAL) == 80
    assert (OFFICIAL[0, "person"], OFFICIAL[11, "stop sign"], OFFICIAL[79, "toothbrush"]) == (1, 13, 90)
    categories = Categories()
    wished = [(0, "person"), (0, "qr"), (79, "toothbrush"), (1, "ean"), (0, "person"), (89, "x")]
    found = [categories.id_of(*pair) for pair in wished]
    assert found[0] == found[4] == 1
    assert found[1] != 1  # another class with the same number
    assert found[3] == 2  # free, as no bicycle was there
    assert len(set(found)) == 5
    assert [entry["id"] for entry in categories.listed()] == sorted(set(found))


async def test_parquet_has_a_row_for_every_image_in_every_state(world: World) -> None:
    filled(world)
    async with serving(world) as caller:
        status, content, headers = await caller.ask("/v1/batches/b?format=parquet")
    assert (status, headers["Content-Type"]) == (200, PARQUET)
    table = pq.read_table(io.BytesIO(content))
    rows: list[dict[str, Any]] = table.to_pylist()
    assert [row["id"] for row in rows] == [f"i{n}" for n in range(5)]
    assert [row["status"] for row in rows] == ["failed", "completed", "completed", "completed", "queued"]
    assert [len(row["detections"]) for row in rows] == [0, 1, 2, 3, 0]
    assert rows[3]["detections"][2] == {
        "label": "dog",
        "class_id": 16,
        "score": 0.875,
        "x1": 10.0,
        "y1": 20.0,
        "x2": 110.5,
        "y2": 120.25,
    }
    assert (rows[0]["failure"]["code"], rows[1]["failure"], rows[4]["model"]) == ("image_corrupt", None, None)
    assert (rows[1]["model"]["name"], dict(rows[1]["attributes"])) == ("codes", {"n": "1"})
    assert rows[1]["completed_at"] - rows[1]["submitted_at"] == timedelta(milliseconds=250)
    assert rows[1]["timings"]["total_ms"] == 250.0


async def test_thousands_of_images_come_in_row_groups_and_whole(world: World) -> None:
    world.lagging = True
    refs = filled(world, 2300)
    world.project()
    async with serving(world) as caller:
        content = (await caller.ask("/v1/batches/b?format=parquet"))[1]
        document = (await caller.ask("/v1/batches/b?format=coco"))[1]
    file = pq.ParquetFile(io.BytesIO(content))
    assert file.num_row_groups > 1
    assert file.read(["id"]).column("id").to_pylist() == [ref.id for ref in refs]
    assert [image["id"] for image in document["images"]] == list(range(1, 2299))
    assert len(document["annotations"]) == sum(n % 7 for n in range(1, 2299))


async def test_an_empty_batch_is_a_file_all_the_same(world: World) -> None:
    world.batch("b", 0)
    async with serving(world) as caller:
        content = (await caller.ask("/v1/batches/b?format=parquet"))[1]
        document = (await caller.ask("/v1/batches/b?format=coco"))[1]
    assert pq.read_table(io.BytesIO(content)).num_rows == 0
    assert (document["images"], document["annotations"], document["categories"]) == ([], [], [])


async def test_boxes_that_no_tool_expects_leave_the_files_sound(world: World) -> None:
    ref = reference("i1", batch_id="b", uri="http://[")
    odd = Detection(label='"],\n', class_id=-3, score=0.5, x1=9, y1=9, x2=1, y2=1)
    world.submit(ref)
    world.batch("b", 1)
    world.complete(result_of(ref, odd, replace(odd, label="😀")))
    async with serving(world) as caller:
        document = (await caller.ask("/v1/batches/b?format=coco"))[1]
        content = (await caller.ask("/v1/batches/b?format=parquet"))[1]
    assert [entry["name"] for entry in document["categories"]] == ['"],\n', "😀"]
    assert document["images"][0]["file_name"] == "i1"
    assert len(pq.read_table(io.BytesIO(content)).to_pylist()[0]["detections"]) == 2


_ACCEPTED = [
    ("*/*", "application/json"),
    ("application/*;q=0.5, text/html", "application/json"),
    (COCO, COCO),
    (f"application/json;q=0.5, {PARQUET}", PARQUET),
    (f"{PARQUET};q=0, */*", "application/json"),
    (f"application/json;q=0.1,{COCO};q=0.2,*/*;q=0", COCO),
    ("text/html", None),
    ("", "application/json"),
    (";;,,q=1", None),
    (f"{COCO};q=2", None),
]


async def test_accept_chooses(world: World) -> None:
    world.batch("b", 0)
    async with serving(world) as caller:
        for accept, found in _ACCEPTED:
            status, body, headers = await caller.ask("/v1/batches/b", Accept=accept)
            assert headers["Content-Type"].partition(";")[0] == (found or "application/problem+json"), accept
            assert status == (200 if found else 406)
            assert found or body["code"] == "not_acceptable"
            assert (await caller.ask("/v1/batches/b?format=coco", Accept=accept))[0] == 200


async def test_head_sends_no_body(world: World) -> None:
    filled(world)
    async with serving(world) as caller, asyncio.timeout(20):
        status, body, headers = await caller.ask("/v1/batches/b?format=parquet", "HEAD")
        assert (status, body, headers["Content-Type"]) == (200, b"", PARQUET)
        assert (await caller.ask("/v1/images/i1", "HEAD"))[0] == 200


@pytest.mark.parametrize("kind", ["coco", "parquet"])
async def test_a_database_that_goes_away_meanwhile_breaks_the_download(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    world.lagging = True
    filled(world, 450)
    world.project()
    whole, asked = world.store.batch_images, 0

    async def broken(*arguments: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise BusyError(Reason.STORAGE_UNAVAILABLE, "gone")
        return await whole(*arguments)

    monkeypatch.setattr(world.store, "batch_images", broken)
    async with serving(world) as caller:
        with pytest.raises(aiohttp.ClientError):
            await caller.ask(f"/v1/batches/b?format={kind}")
        asked = 2  # before the first page it is a problem like any other
        assert (await caller.ask(f"/v1/batches/b?format={kind}"))[1]["code"] == "store_unavailable"
