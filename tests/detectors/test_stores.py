"""Objects of a real S3 server on loopback, and what becomes of each error."""

from collections.abc import Iterator

import obstore.exceptions
import pytest

from detectors.base import Image
from detectors.images import ImageLoader, ImagePolicy, ImageRequest
from detectors.stores import map_store_error
from schemas.errors import BusyError, ConfigurationError, Reason, RejectedError
from tests.support.image_host import QUICK, image_host
from tests.support.images import HEIGHT, WIDTH, encode, photograph
from tests.support.s3 import KEYS, s3_server

# Characters that some clients would percent-encode, and one that looks percent-encoded already.
ODD_KEY = "camera 1/a+b%20c#d?.jpg"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as s3:
        for bucket in ("photos", "private"):
            s3.client.create_bucket(Bucket=bucket)
        s3.client.put_object(Bucket="photos", Key="a.jpg", Body=encode(photograph(), "JPEG"))
        s3.client.put_object(Bucket="photos", Key=ODD_KEY, Body=encode(photograph(), "JPEG"))
        s3.client.put_object(Bucket="photos", Key="large.jpg", Body=bytes(200_000))
        s3.client.put_object(Bucket="photos", Key="empty.jpg", Body=b"")
        s3.client.put_object(Bucket="private", Key="a.jpg", Body=encode(photograph(), "JPEG"))
        yield s3.endpoint


def policy(endpoint: str, *buckets: str) -> ImagePolicy:
    return ImagePolicy(
        stores={bucket: {"endpoint": endpoint, **KEYS} for bucket in buckets}, timeouts=QUICK, max_bytes=100_000
    )


async def test_objects_of_a_bucket_that_is_set(endpoint: str) -> None:
    keys = ["a.jpg", ODD_KEY, "none.jpg", "large.jpg", "empty.jpg", ""]
    async with ImageLoader(policy(endpoint, "s3://photos", "s3://missing")) as loader:
        good, odd, *bad = await loader.load(
            [
                *(ImageRequest(f"s3://photos/{key}") for key in keys),
                ImageRequest("s3://private/a.jpg"),
                ImageRequest("s3://missing/a.jpg"),
            ]
        )
    for image in (good, odd):
        assert isinstance(image, Image)
        assert (image.width, image.height) == (WIDTH, HEIGHT)
    reasons = [outcome.reason for outcome in bad if isinstance(outcome, RejectedError)]
    assert reasons[:3] == [Reason.IMAGE_NOT_FOUND, Reason.IMAGE_TOO_LARGE, Reason.IMAGE_EMPTY]
    assert reasons[-2:] == [Reason.URI_FORBIDDEN, Reason.IMAGE_NOT_FOUND]
    assert len(reasons) == len(bad)


@pytest.mark.parametrize(
    ("path", "reason"),
    [("/hung", Reason.FETCH_TIMEOUT), ("/status/500", Reason.FETCH_FAILED), ("/reset", Reason.FETCH_FAILED)],
)
async def test_a_store_that_is_down_is_busy(path: str, reason: Reason) -> None:
    async with image_host() as host, ImageLoader(policy(host.url(path), "s3://photos")) as loader:
        (outcome,) = await loader.load([ImageRequest("s3://photos/a.jpg")])
    assert isinstance(outcome, BusyError)
    assert outcome.reason is reason


@pytest.mark.parametrize("bucket", ["photos", "http://photos", "s3://photos/prefix", "s3://"])
async def test_what_is_no_bucket_is_told_at_the_start(bucket: str) -> None:
    with pytest.raises(ConfigurationError):
        async with ImageLoader(ImagePolicy(stores={bucket: KEYS})):
            pytest.fail("opened")


async def test_an_unknown_option_is_told_at_the_start() -> None:
    with pytest.raises(ConfigurationError):
        async with ImageLoader(ImagePolicy(stores={"s3://photos": {"no_such_option": "1"}})):
            pytest.fail("opened")


def test_every_error_of_the_store_has_a_remedy() -> None:
    permanent = {"NotFoundError", "PermissionDeniedError", "InvalidPathError"}
    kinds = [
        kind for kind in vars(obstore.exceptions).values() if isinstance(kind, type) and issubclass(kind, Exception)
    ]
    assert len(kinds) > 5
    for kind in [*kinds, OSError, ValueError, TimeoutError]:
        expected = RejectedError if kind.__name__ in permanent else BusyError
        assert type(map_store_error(kind("x"))) is expected, kind
    assert map_store_error(FileNotFoundError()).reason is Reason.IMAGE_NOT_FOUND
    assert map_store_error(PermissionError()).reason is Reason.IMAGE_FORBIDDEN
    assert map_store_error(TimeoutError()).reason is Reason.FETCH_TIMEOUT
