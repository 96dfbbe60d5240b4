"""Where uploads go: a folder or a bucket of a real S3 server, by the gateway or by the client itself."""

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest

from detectors.base import Image
from detectors.images import ImageLoader, ImagePolicy, ImageRequest
from producers.publisher import Publisher
from producers.upload_policy import UploadPolicy
from producers.upload_store import UploadStore
from producers.upload_tokens import Grant, UploadTokens
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.errors import ConfigurationError, Reason, RejectedError
from schemas.problems import ProblemError
from schemas.records import ImageRef
from schemas.topics import Topics
from tests.support.gateway import TENANT, Caller, gateway_at
from tests.support.image_host import QUICK, image_host
from tests.support.images import encode, photograph
from tests.support.kafka import read_topic
from tests.support.s3 import KEYS, s3_server

pytestmark = pytest.mark.kafka

JPEG = encode(photograph(1), "JPEG")
OTHER = encode(photograph(5), "JPEG")
PNG = encode(photograph(2), "PNG")
SHA256 = hashlib.sha256(JPEG).hexdigest()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as server:
        yield server.endpoint


@pytest.fixture
def bucket(endpoint: str) -> Iterator[Any]:
    resource = boto3.resource(
        "s3", endpoint_url=endpoint, aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
    )
    with closing(resource.meta.client):
        bucket = resource.create_bucket(Bucket="uploads")
        yield bucket
        bucket.objects.all().delete()


@pytest.fixture
async def s3(publisher: Publisher, bucket: Any, endpoint: str, tmp_path: Path) -> AsyncIterator[Caller]:
    policy = UploadPolicy(url="s3://uploads/in/here/", options={"endpoint": endpoint, **KEYS}, spool_bytes=50_000)
    async with gateway_at(publisher, tmp_path, uploads=policy) as caller:
        yield caller


@pytest.fixture
async def local(publisher: Publisher, tmp_path: Path) -> AsyncIterator[Caller]:
    async with gateway_at(publisher, tmp_path / "up loads") as caller:
        yield caller


@pytest.fixture
def refs(connection: KafkaConnection, topics: Topics, codec: Codec) -> "Log":
    return Log(connection, topics, codec)


class Log:
    def __init__(self, connection: KafkaConnection, topics: Topics, codec: Codec) -> None:
        self._connection, self._topics, self._codec = connection, topics, codec

    def images(self) -> list[ImageRef]:
        found = read_topic(self._connection, self._topics.online)
        return [self._codec.decode(message.value(), ImageRef) for message in found]


async def test_uploads_in_a_bucket_are_written_once_and_a_worker_reads_them(
    s3: Caller, refs: Log, bucket: Any, endpoint: str
) -> None:
    large = encode(photograph(4, 640, 480), "PNG")  # goes by way of a file
    for _ in range(2):
        answer = await s3.send(JPEG, large)
        assert (answer.status, answer.body["accepted"]) == (202, 2)
    objects = {found.key: found for found in bucket.objects.all()}
    assert len(objects) == 2
    first = objects[f"in/here/default/{SHA256[:2]}/{SHA256}.jpg"]
    assert first.Object().content_type == "image/jpeg"
    found = refs.images()
    assert {ref.uri for ref in found} == {f"s3://uploads/{key}" for key in objects}
    policy = ImagePolicy(stores={"s3://uploads": {"endpoint": endpoint, **KEYS}}, timeouts=QUICK)
    async with ImageLoader(policy) as loader:
        images = await loader.load([ImageRequest(ref.uri, ref.sha256) for ref in found])
    assert all(isinstance(image, Image) for image in images)


async def test_a_client_that_puts_by_itself_into_a_bucket(s3: Caller, refs: Log) -> None:
    ticket = (await s3.post("/v1/uploads", json={"content_type": "image/jpeg", "bytes": len(JPEG)})).body
    early = await s3.post("/v1/images", json={"uri": ticket["uri"]})
    assert (early.status, early.code) == (422, "uri_forbidden")
    assert ticket["method"] == "PUT"
    await put(s3, ticket, JPEG)
    foreign = await s3.post("/v1/images", json={"uri": ticket["uri"]}, headers={TENANT: "acme"})
    assert (foreign.status, foreign.code) == (422, "uri_forbidden")
    answer = await s3.post("/v1/images", json={"uri": ticket["uri"], "key": "k"})
    assert answer.status == 202
    (ref,) = refs.images()
    assert (ref.uri, ref.sha256, ref.key) == (ticket["uri"], SHA256, "k"), (
        "pinned: what is put there later is found out"
    )


async def test_what_a_client_put_is_judged_before_anybody_fetches_it(s3: Caller, refs: Log) -> None:
    for content, code in ((b"<html>", "image_type_unsupported"), (JPEG[:300], "image_corrupt")):
        ticket = (await s3.post("/v1/uploads", json={"content_type": "image/jpeg"})).body
        await put(s3, ticket, content)
        answer = await s3.post("/v1/images", json={"images": [{"uri": ticket["uri"]}]})
        assert [image["problem"]["code"] for image in answer.body["images"]] == [code]
    assert refs.images() == []


async def put(caller: Caller, ticket: dict[str, Any], content: bytes) -> None:
    """As a client would, with what it was told to send."""
    url = ticket["url"] if "://" in ticket["url"] else caller.url + ticket["url"]
    async with caller.session.put(url, data=content, headers=ticket["headers"]) as answer:
        assert answer.status in {200, 201}, await answer.text()


async def test_what_a_client_puts_into_a_folder_by_its_content(local: Caller, refs: Log, tmp_path: Path) -> None:
    ticket = (await local.post("/v1/uploads", json={"content_type": "image/jpeg", "sha256": SHA256})).body
    wrong = await local.call("PUT", ticket["url"], data=OTHER, headers=ticket["headers"])
    assert (wrong.status, wrong.code) == (422, "image_hash_mismatch")
    other_type = await local.call("PUT", ticket["url"], data=PNG, headers=ticket["headers"])
    assert (other_type.status, other_type.code) == (415, "image_type_unsupported")
    for _ in range(2):
        answer = await local.call("PUT", ticket["url"], data=JPEG, headers=ticket["headers"])
        assert answer.status == 201
        assert answer.body == {"uri": ticket["uri"], "sha256": SHA256, "bytes": len(JPEG)}
    assert ticket["uri"].startswith(f"{tmp_path.as_uri()}/up%20loads/default/{SHA256[:2]}/{SHA256}.jpg")
    assert (await local.post("/v1/images", json={"uri": ticket["uri"]})).status == 202
    (ref,) = refs.images()
    async with ImageLoader(ImagePolicy(roots=(tmp_path,))) as loader:
        (image,) = await loader.load([ImageRequest(ref.uri, ref.sha256)])
    assert isinstance(image, Image), "the URI of a folder with a space in its name is one that workers understand"


async def test_what_is_put_anew_after_it_was_submitted_is_found_out(local: Caller, refs: Log, tmp_path: Path) -> None:
    ticket = (await local.post("/v1/uploads", json={"content_type": "image/jpeg"})).body
    await put(local, ticket, JPEG)
    assert (await local.post("/v1/images", json={"uri": ticket["uri"]})).status == 202
    await put(local, ticket, OTHER)
    (ref,) = refs.images()
    async with ImageLoader(ImagePolicy(roots=(tmp_path,))) as loader:
        (outcome,) = await loader.load([ImageRequest(ref.uri, ref.sha256)])
    assert isinstance(outcome, RejectedError)
    assert outcome.reason is Reason.IMAGE_HASH_MISMATCH


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({}, 400, "invalid_request"),
        ({"content_type": "image/gif"}, 400, "invalid_request"),
        ({"content_type": "image/png", "bytes": 0}, 400, "invalid_request"),
        ({"content_type": "image/png", "bytes": 1 << 40}, 413, "image_too_large"),
        ({"content_type": "image/png", "sha256": "../../x"}, 400, "invalid_request"),
        ({"content_type": "image/png", "tenant": "acme"}, 400, "invalid_request"),
    ],
    ids=range(6),
)
async def test_what_cannot_be_asked_for(local: Caller, asked: dict[str, Any], status: int, code: str) -> None:
    answer = await local.post("/v1/uploads", json=asked)
    assert (answer.status, answer.code) == (status, code)


def _other(text: str) -> str:
    return ("B" if text[0] == "A" else "A") + text[1:]


async def test_tokens_that_we_did_not_write(local: Caller) -> None:
    url = (await local.post("/v1/uploads", json={"content_type": "image/jpeg"})).body["url"]
    body, mac = url.rsplit("/", 1)[1].split(".")
    foreign = UploadTokens("other").write(Grant("acme/direct/x.jpg", "jpg", None, 1e12))
    # At the front: a last character may be an A already, and holds bits that count for nothing.
    bent = [f"{_other(body)}.{mac}", f"{body}.{_other(mac)}"]
    for token in ("x", f"{body}.", *bent, foreign, "a" * 5000, "%C3%A4.x"):
        answer = await local.call("PUT", f"/v1/uploads/{token}", data=JPEG, headers={"Content-Type": "image/jpeg"})
        assert (answer.status, answer.code) == (404, "not_found"), token


def test_tokens_expire_and_depend_on_the_secret_alone() -> None:
    grant = Grant("t/direct/x.jpg", "jpg", None, 100.0)
    token = UploadTokens("secret").write(grant)
    assert UploadTokens("secret").read(token, 99.0) == grant
    with pytest.raises(ProblemError) as refusal:
        UploadTokens("secret").read(token, 100.0)
    assert (refusal.value.status, refusal.value.code) == (410, "expired")
    for stranger in (UploadTokens(""), UploadTokens("")):
        with pytest.raises(ProblemError):
            stranger.read(token, 1.0)


@pytest.mark.parametrize("path", ["/hung", "/status/500", "/reset"])
async def test_a_store_that_is_down_is_told(publisher: Publisher, refs: Log, tmp_path: Path, path: str) -> None:
    async with image_host() as host:
        policy = UploadPolicy(url="s3://uploads", options={"endpoint": host.url(path), **KEYS}, timeout_s=0.3)
        async with gateway_at(publisher, tmp_path, uploads=policy) as caller:
            one = await caller.send(JPEG)
            several = await caller.send(JPEG, b"no image")
    assert (one.status, one.code, one.headers["Retry-After"]) == (503, "storage_unavailable", "5")
    assert [image["problem"]["code"] for image in several.body["images"]] == [
        "storage_unavailable",
        "image_type_unsupported",
    ]
    assert refs.images() == []


@pytest.mark.parametrize("url", ["s3:///x", "ftp://host/x", "/dev/null/x"])
def test_stores_that_cannot_be(url: str) -> None:
    with pytest.raises(ConfigurationError):
        UploadStore(UploadPolicy(url=url))
