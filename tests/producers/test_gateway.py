"""Submission over HTTP onto a real Kafka: forms, raw bodies, references, batches, and what each answer promises."""

import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from producers.gateway_policy import GatewayPolicy
from producers.publisher import Publisher
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.control import Batch
from schemas.identity import Scope
from schemas.records import DetectParameters, ImageRef, Lane
from schemas.topics import Topics
from tests.support.gateway import SCOPES, TENANT, Caller, form, gateway_at
from tests.support.images import encode, photograph
from tests.support.kafka import read_topic
from tests.support.quiet import NoKafka, SilentKafka

pytestmark = pytest.mark.kafka

JPEG = encode(photograph(1), "JPEG")
PNG = encode(photograph(2), "PNG")
WEBP = encode(photograph(3), "WEBP")


@pytest.fixture
async def caller(publisher: Publisher, tmp_path: Path) -> AsyncIterator[Caller]:
    policy = GatewayPolicy(uri_prefixes=("s3://shop/photos/", f"{tmp_path.as_uri()}/"))
    async with gateway_at(publisher, tmp_path / "uploads", policy=policy) as caller:
        yield caller


@pytest.fixture
def refs(connection: KafkaConnection, topics: Topics, codec: Codec) -> "Log":
    return Log(connection, topics, codec)


class Log:
    """What stands on the topics."""

    def __init__(self, connection: KafkaConnection, topics: Topics, codec: Codec) -> None:
        self._connection, self._topics, self._codec = connection, topics, codec

    def images(self, lane: Lane = Lane.ONLINE) -> list[ImageRef]:
        found = read_topic(self._connection, self._topics.lane(lane))
        return [self._codec.decode(message.value(), ImageRef) for message in found]

    def batches(self) -> list[Batch]:
        found = read_topic(self._connection, self._topics.batches)
        assert all(message.key().startswith(b"default/") for message in found)
        return [self._codec.decode(message.value(), Batch) for message in found]


def stored(uri: str) -> bytes:
    return Path(uri.removeprefix("file://")).read_bytes()


def files_under(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_one_file_with_every_option(caller: Caller, refs: Log, tmp_path: Path) -> None:
    answer = await caller.send(
        ("key", "camera-7"),
        ("model", "shelf@2"),
        ("confidence", "0.5"),
        ("iou", "0.25"),
        ("max_detections", "10"),
        ("classes", "1,2"),
        ("lane", "bulk"),
        ("attributes", '{"shop": "Köln"}'),
        JPEG,
    )
    assert answer.status == 202
    (ref,) = refs.images(Lane.BULK)
    at = f"/v1/images/{ref.id}"
    assert answer.body == {"id": ref.id, "status": "queued", "links": {"self": at, "annotated": f"{at}/annotated"}}
    assert answer.headers["Location"] == at
    sha256 = hashlib.sha256(JPEG).hexdigest()
    assert ref.uri == f"{tmp_path.as_uri()}/uploads/default/{sha256[:2]}/{sha256}.jpg"
    assert stored(ref.uri) == JPEG
    assert (ref.sha256, ref.key, ref.model, ref.batch_id) == (sha256, "camera-7", "shelf@2", None)
    assert ref.parameters == DetectParameters(confidence=0.5, iou=0.25, max_detections=10, classes=(1, 2))
    assert ref.attributes == {"shop": "Köln"}
    assert refs.batches() == []


@pytest.mark.parametrize(("kind", "content"), [("jpeg", JPEG), ("png", PNG), ("webp", WEBP)])
async def test_a_raw_body_with_options_in_the_query(caller: Caller, refs: Log, kind: str, content: bytes) -> None:
    answer = await caller.post(
        "/v1/images?key=camera%201&confidence=0.5", data=content, headers={"Content-Type": f"image/{kind}"}
    )
    assert answer.status == 202
    (ref,) = refs.images()
    assert (ref.id, ref.key, ref.parameters.confidence) == (answer.body["id"], "camera 1", 0.5)
    assert stored(ref.uri) == content


async def test_references_one_and_several(caller: Caller, refs: Log) -> None:
    one = await caller.post("/v1/images", json={"uri": "https://example.org/a.jpg", "parameters": {"iou": 0.5}})
    assert one.status == 202
    several = await caller.post(
        "/v1/images",
        json={
            "images": [
                {"uri": "s3://shop/photos/1.jpg", "key": "k"},
                {"uri": "s3://other/1.jpg"},
                {"uri": "https://example.org/2.jpg", "sha256": "0" * 64, "lane": "bulk"},
            ],
            "callback": "https://example.org/hook",
        },
    )
    assert (several.status, several.body["accepted"], several.body["rejected"]) == (202, 2, 1)
    assert several.headers["Location"] == several.body["links"]["self"] == f"/v1/batches/{several.body['batch_id']}"
    assert several.body["images"][1]["problem"]["code"] == "uri_forbidden"
    first, second = sorted(refs.images(), key=lambda ref: ref.uri)
    assert (first.uri, first.parameters.iou, first.batch_id) == ("https://example.org/a.jpg", 0.5, None)
    assert (second.id, second.batch_id) == (several.body["images"][0]["id"], several.body["batch_id"])
    (bulk,) = refs.images(Lane.BULK)
    assert bulk.sha256 == "0" * 64
    opened, closed = refs.batches()
    assert (opened.images, closed.images, closed.callback) == (None, 2, "https://example.org/hook")
    assert closed.closed_at is not None
    assert opened.created_at == closed.created_at


async def test_a_batch_of_files_with_bad_ones_among_them(caller: Caller, refs: Log) -> None:
    answer = await caller.send(("key", "k"), b"not an image", JPEG, PNG, b"", JPEG)
    assert (answer.status, answer.body["accepted"], answer.body["rejected"]) == (202, 3, 2)
    codes = [image.get("problem", {}).get("code") for image in answer.body["images"]]
    assert codes == ["image_type_unsupported", None, None, "image_empty", None]
    found = refs.images()
    assert {ref.id for ref in found} == {image["id"] for image in answer.body["images"] if "id" in image}
    assert {ref.batch_id for ref in found} == {answer.body["batch_id"]}
    assert sorted(len(stored(ref.uri)) for ref in found) == sorted(map(len, (JPEG, PNG, JPEG)))
    assert [batch.images for batch in refs.batches()] == [None, 3]


async def test_a_lone_image_with_a_callback_is_a_batch_on_the_log(caller: Caller, refs: Log) -> None:
    answer = await caller.send(("callback", "https://example.org/hook"), JPEG)
    assert answer.status == 202
    (ref,) = refs.images()
    (batch,) = refs.batches()
    assert (ref.batch_id, batch.images, batch.callback) == (batch.id, 1, "https://example.org/hook")
    assert answer.body["links"]["batch"] == f"/v1/batches/{batch.id}"
    bad = await caller.send(("callback", "https://example.org/hook"), b"no image")
    assert (bad.status, bad.code) == (415, "image_type_unsupported")
    assert len(refs.batches()) == 1


async def test_a_callback_that_nobody_would_call_is_refused(caller: Caller, refs: Log) -> None:
    caller.gateway.desk.callbacks = frozenset()
    answer = await caller.send(("callback", "https://example.org/hook"), JPEG)
    assert (answer.status, answer.code) == (422, "callback_forbidden")
    assert not refs.images()
    assert not refs.batches()


async def test_a_batch_of_nothing_good_is_told_of_as_such(caller: Caller, refs: Log) -> None:
    answer = await caller.send(b"no", b"nor this")
    assert (answer.status, answer.body["accepted"], answer.body["rejected"]) == (202, 0, 2)
    assert [batch.images for batch in refs.batches()] == [0]


async def test_content_is_stored_once_for_each_tenant(caller: Caller, refs: Log, tmp_path: Path) -> None:
    for tenant in ("acme", "acme", "globex"):
        assert (await caller.send(JPEG, **{TENANT: tenant})).status == 202
    assert sorted(path.parts[-3] for path in files_under(tmp_path)) == ["acme", "globex"]
    assert len(refs.images()) == 3


async def test_a_file_larger_than_what_is_kept_in_memory(publisher: Publisher, refs: Log, tmp_path: Path) -> None:
    from producers.upload_policy import UploadPolicy

    spools = tmp_path / "spools"
    spools.mkdir()
    uploads = UploadPolicy(url=str(tmp_path / "up"), spool_bytes=10_000, spool_dir=str(spools))
    noise = encode(photograph(4, 640, 480), "PNG")
    assert len(noise) > 100_000
    async with gateway_at(publisher, tmp_path, uploads=uploads) as caller:
        assert (await caller.send(noise, JPEG, noise)).body["accepted"] == 3
        assert (await caller.send(noise)).status == 202
    assert {stored(ref.uri) for ref in refs.images()} == {noise, JPEG}
    assert list(spools.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_request"),
        (b"[]", 400, "invalid_request"),
        (b"\xff\xfe", 400, "invalid_request"),
        (b"[" * 100_000, 400, "invalid_request"),
        (b'{"uri": "https://e.org/a", "uri2": 1}', 400, "invalid_request"),
        (b'{"uri": 1}', 400, "invalid_request"),
        (b'{"uri": ""}', 400, "invalid_request"),
        (b'{"uri": "https://e.org/\\u0000"}', 400, "invalid_request"),
        (b'{"uri": "https://e.org/\\ud800"}', 400, "invalid_request"),
        (b'{"uri": "https://e.org/a", "sha256": "F"}', 400, "invalid_request"),
        (b'{"uri": "https://e.org/a", "parameters": {"confidence": NaN}}', 400, "invalid_request"),
        (b'{"uri": "https://e.org/a", "parameters": {"confidence": true}}', 400, "invalid_request"),
        (b'{"uri": "https://e.org/a", "parameters": {"max_detections": 1e400}}', 400, "invalid_request"),
        (b'{"uri": "https://e.org/a", "parameters": {"classes": [' + b"9" * 5000 + b"]}}", 400, "invalid_request"),
        (b'{"uri": "https://e.org/a", "lane": "fast"}', 400, "invalid_request"),
        (b'{"uri": "https://e.org/a", "attributes": {"a": 1}}', 400, "invalid_request"),
        (b'{"uri": "https://e.org/a", "callback": "http://e.org"}', 422, "callback_forbidden"),
        (b'{"uri": "https://e.org/a", "callback": "https://u:p@e.org"}', 422, "callback_forbidden"),
        (b'{"images": []}', 422, "image_empty"),
        (json.dumps({"images": [{"uri": "https://e.org/a"}] * 1001}).encode(), 413, "too_many_images"),
        (b" " * (5 << 20), 413, "body_too_large"),
        (b'{"uri": "file:///etc/passwd"}', 422, "uri_forbidden"),
        (b'{"uri": "s3://shop/photos/../x"}', 422, "uri_forbidden"),
        (b'{"uri": "s3://shop/photos/%2e%2e/x"}', 422, "uri_forbidden"),
        (b'{"uri": "gopher://e.org/a"}', 422, "uri_unsupported"),
        (b'{"uri": "a.jpg"}', 422, "uri_unsupported"),
        (b'{"uri": "https://[::1/a"}', 422, "uri_unsupported"),
        (b'{"uri": "https://user:pass@e.org/a"}', 422, "uri_forbidden"),
    ],
    ids=range(28),
)
async def test_what_json_is_refused(nobody: Caller, body: bytes, status: int, code: str) -> None:
    answer = await nobody.post("/v1/images", data=body, headers={"Content-Type": "application/json"})
    assert (answer.status, answer.code) == (status, code)


@pytest.mark.parametrize(
    ("query", "kind", "status", "code"),
    [
        ("?wait=61", "image/jpeg", 400, "invalid_query"),
        ("?wait=nan", "image/jpeg", 400, "invalid_query"),
        ("?wait=1&wait=2", "image/jpeg", 400, "invalid_query"),
        ("?key=a&key=b", "image/jpeg", 400, "invalid_query"),
        ("?colour=red", "image/jpeg", 400, "invalid_query"),
        ("?confidence=much", "image/jpeg", 400, "invalid_query"),
        ("?confidence=inf", "image/jpeg", 400, "invalid_query"),
        ("?key=a", "application/json", 400, "invalid_query"),
        ("", "text/plain", 415, "unsupported_media_type"),
        ("", "image/gif", 415, "unsupported_media_type"),
        ("", "multipart/form-data", 400, "invalid_request"),
    ],
)
async def test_what_queries_and_types_are_refused(
    nobody: Caller, query: str, kind: str, status: int, code: str
) -> None:
    answer = await nobody.post(f"/v1/images{query}", data=JPEG, headers={"Content-Type": kind})
    assert (answer.status, answer.code) == (status, code)


@pytest.mark.parametrize(
    "parts",
    [
        [("colour", "red"), JPEG],
        [("key", "a"), ("key", "b"), JPEG],
        [JPEG, ("key", "too late")],
        [("attributes", "[1]"), JPEG],
        [("attributes", "x" * 20_000), JPEG],
        [("max_detections", "0"), JPEG],
        [("key", "a\x00b"), JPEG],
    ],
    ids=range(7),
)
async def test_what_fields_are_refused(nobody: Caller, parts: list[bytes | tuple[str, str]]) -> None:
    answer = await nobody.send(*parts)
    assert (answer.status, answer.code) == (400, "invalid_request")


async def test_a_form_without_a_file(nobody: Caller) -> None:
    answer = await nobody.send(("key", "k"))
    assert (answer.status, answer.code) == (422, "image_empty")


async def test_names_of_files_are_not_even_looked_at(caller: Caller, refs: Log, tmp_path: Path) -> None:
    for name in (
        "../../../etc/cron.d/x",
        "/etc/passwd",
        "..\\..\\a",
        "a\x00.php",
        "C:\\boot.ini",
        "%2e%2e%2fx",
        "con",
        "x" * 3000,
    ):
        body = form([JPEG], name)
        answer = await caller.post(
            "/v1/images", data=body, headers={"Content-Type": "multipart/form-data; boundary=b0undary"}
        )
        assert answer.status == 202, name
    (file,) = files_under(tmp_path)
    assert stored(file.as_uri()) == JPEG


async def test_nobody_names_another_tenants_upload(caller: Caller, refs: Log) -> None:
    assert (await caller.send(JPEG, **{TENANT: "acme"})).status == 202
    uri = refs.images()[0].uri
    own = await caller.post("/v1/images", json={"uri": uri}, headers={TENANT: "acme"})
    assert own.status == 202
    assert refs.images()[1].sha256 == hashlib.sha256(JPEG).hexdigest()
    # The operator's prefix covers the folder of uploads, too: even then they are nobody's but their tenant's.
    for trick in (
        uri,
        uri.replace("/acme/", "/default/../acme/"),
        uri.replace("/acme/", "/%61cme/"),
        uri.replace("/uploads/", "//uploads/"),
        uri.replace("/uploads/", "/./uploads/"),
        uri.replace("file://", "file://localhost"),
    ):
        answer = await caller.post("/v1/images", json={"uri": trick}, headers={TENANT: "globex"})
        assert (answer.status, answer.code) == (422, "uri_forbidden"), trick
    missing = uri.replace(uri[-20:-4], "0" * 16)
    for absent in (missing, own.body["id"]):
        assert (await caller.post("/v1/images", json={"uri": absent}, headers={TENANT: "acme"})).status == 422


async def test_a_hash_that_was_said_must_be_the_uploads(caller: Caller, refs: Log) -> None:
    await caller.send(JPEG)
    uri = refs.images()[0].uri
    answer = await caller.post("/v1/images", json={"uri": uri, "sha256": "0" * 64})
    assert (answer.status, answer.code) == (422, "image_hash_mismatch")


class Told:
    """Outcomes that are there, or never."""

    def __init__(self, *, known: bool) -> None:
        self.known, self.asked = known, list[tuple[str, ...]]()

    async def image(self, tenant: str, image_id: str, timeout_s: float, old: Sequence[str] = ()) -> str | None:
        assert not old
        self.asked.append((tenant, image_id, str(timeout_s)))
        return json.dumps({"id": image_id}) if self.known else None

    async def batch(
        self, tenant: str, batch_id: str, image_ids: Sequence[str], timeout_s: float, old: Sequence[str] = ()
    ) -> str | None:
        assert not old
        self.asked.append((tenant, batch_id, *image_ids, str(timeout_s)))
        return json.dumps({"id": batch_id}) if self.known else None


async def test_an_answer_may_wait_for_the_outcome(publisher: Publisher, tmp_path: Path) -> None:
    for known, status in ((True, 200), (False, 202)):
        told = Told(known=known)
        async with gateway_at(publisher, tmp_path, outcomes=told) as caller:
            one = await caller.send(JPEG, query="?wait=2.5")
            several = await caller.send(JPEG, b"no image", PNG, query="?wait=1", **{TENANT: "acme"})
            await caller.send(JPEG, query="?wait=0")
            await caller.send(b"no image", b"nor this", query="?wait=9")
        assert (one.status, several.status) == (status, status)
        first, second = told.asked
        assert first == ("default", one.body["id"], "2.5")
        assert (second[0], f"/v1/batches/{second[1]}", len(second)) == ("acme", several.headers["Location"], 5)
        assert one.headers["Location"] == f"/v1/images/{one.body['id']}"


@pytest.mark.parametrize("scopes", [(), (Scope.READ, Scope.DELETE)])
async def test_who_may_not_submit(nobody: Caller, scopes: tuple[Scope, ...]) -> None:
    for path in ("/v1/images", "/v1/uploads"):
        answer = await nobody.post(path, json={}, headers={TENANT: "acme", SCOPES: " ".join(scopes) or "none"})
        assert (answer.status, answer.code) == (403, "forbidden")


async def test_no_202_without_a_confirmation(tmp_path: Path) -> None:
    async with gateway_at(SilentKafka(), tmp_path, policy=GatewayPolicy(confirm_s=0.2)) as caller:
        one = await caller.send(JPEG, Idempotency_Key="k")
        several = await caller.send(JPEG, PNG)
        mixed = await caller.send(b"no image", PNG)
    async with gateway_at(SilentKafka("refused"), tmp_path) as caller:
        refused = await caller.send(JPEG)
    async with gateway_at(SilentKafka(), tmp_path, policy=GatewayPolicy(confirm_s=0.2, max_unconfirmed=1)) as caller:
        await caller.send(JPEG)
        full = await caller.send(JPEG)
    for answer in (one, several, mixed, refused):
        assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "not_confirmed", "1")
    assert (full.status, full.code) == (503, "overloaded")


@pytest.fixture
async def nobody(tmp_path: Path) -> AsyncIterator[Caller]:
    """A gateway that has nothing to publish: what is refused never comes to Kafka."""
    async with gateway_at(
        NoKafka(), tmp_path / "uploads", policy=GatewayPolicy(uri_prefixes=("s3://shop/photos/",))
    ) as caller:
        yield caller
