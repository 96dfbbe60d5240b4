"""The loader: one outcome a request, in order, whatever becomes of the others."""

import asyncio
import errno
import hashlib
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from detectors import images
from detectors.base import Image
from detectors.decode import Decoded
from detectors.decoders import Decoders
from detectors.files import FileReader
from detectors.images import ImageLoader, ImagePolicy, ImageRequest
from schemas.errors import BusyError, Reason, RejectedError
from tests.support.image_host import QUICK, ImageHost, image_host
from tests.support.images import Case, corpus, encode, exif, photograph


@pytest.fixture
async def host() -> AsyncIterator[ImageHost]:
    async with image_host() as host:
        yield host


def check(case: Case, outcome: object) -> None:
    if case.reason is None:
        assert isinstance(outcome, Image)
        assert (outcome.width, outcome.height) == (case.width, case.height)
        return
    assert isinstance(outcome, RejectedError)
    assert outcome.reason is case.reason


async def test_the_corpus_in_one_batch(tmp_path: Path, subtests: pytest.Subtests) -> None:
    cases = corpus(tmp_path / "corpus")
    async with ImageLoader(ImagePolicy(roots=(tmp_path,), decoders=1)) as loader:
        outcomes = await loader.load([ImageRequest(case.path.as_uri()) for case in cases])
    for case, outcome in zip(cases, outcomes, strict=True):
        with subtests.test(case.name):
            check(case, outcome)


async def test_files_and_urls_of_one_batch(host: ImageHost, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encode(photograph(1), "JPEG"))
    policy = ImagePolicy(
        roots=(tmp_path,),
        ports=frozenset({host.port}),
        extra_networks=host.policy().extra_networks,
        timeouts=QUICK,
        decoders=1,
    )
    paths = ["/photo.jpg", "/hung", "/status/404", "/empty", "/text", "/gzip-bomb", "/status/500"]
    requests = [ImageRequest((tmp_path / "a.jpg").as_uri()), *(ImageRequest(host.url(path)) for path in paths)]
    async with ImageLoader(policy) as loader:
        local, fetched, *refused = await loader.load(requests)
    assert isinstance(local, Image)
    assert isinstance(fetched, Image)
    assert fetched.fetch_ms > 0
    assert fetched.decode_ms > 0
    assert [type(outcome) for outcome in refused] == [BusyError, *[RejectedError] * 4, BusyError]
    assert [outcome.reason for outcome in refused if not isinstance(outcome, Image)] == [
        Reason.FETCH_TIMEOUT,
        Reason.IMAGE_NOT_FOUND,
        Reason.IMAGE_EMPTY,
        Reason.IMAGE_TYPE_UNSUPPORTED,
        Reason.IMAGE_TYPE_UNSUPPORTED,
        Reason.FETCH_FAILED,
    ]


@pytest.mark.parametrize("uri", ["", "photo.jpg", "data:image/png;base64,AAAA", "ftp://host/a.jpg", "file", "\ud800:x"])
async def test_other_schemes_are_unsupported(uri: str) -> None:
    async with ImageLoader(ImagePolicy(decoders=1)) as loader:
        (outcome,) = await loader.load([ImageRequest(uri)])
    assert isinstance(outcome, RejectedError)
    assert outcome.reason is Reason.URI_UNSUPPORTED


@pytest.mark.parametrize("uri", ["s3://bucket/key.jpg", "gs://bucket/key.jpg", "az://container/key.jpg"])
async def test_buckets_that_are_not_set_are_forbidden(uri: str) -> None:
    async with ImageLoader(ImagePolicy(decoders=1)) as loader:
        (outcome,) = await loader.load([ImageRequest(uri)])
    assert isinstance(outcome, RejectedError)
    assert outcome.reason is Reason.URI_FORBIDDEN


async def test_the_hash_of_a_reference_is_verified(host: ImageHost, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(host.photo)
    right, wrong = hashlib.sha256(host.photo).hexdigest(), "0" * 64
    policy = ImagePolicy(
        roots=(tmp_path,),
        ports=frozenset({host.port}),
        extra_networks=host.policy().extra_networks,
        timeouts=QUICK,
        decoders=1,
    )
    uris = [(tmp_path / "a.jpg").as_uri(), host.url("/photo.jpg")]
    async with ImageLoader(policy) as loader:
        good = await loader.load([ImageRequest(uri, digest) for uri in uris for digest in (right, right.upper())])
        bad = await loader.load([ImageRequest(uri, digest) for uri in uris for digest in (wrong, "\N{BLACK STAR}")])
    assert all(isinstance(outcome, Image) for outcome in good)
    assert all(isinstance(outcome, RejectedError) and outcome.reason is Reason.IMAGE_HASH_MISMATCH for outcome in bad)


async def test_many_images_keep_their_order(tmp_path: Path) -> None:
    sizes = [(8 + index, 50 - index) for index in range(40)]
    for index, (width, height) in enumerate(sizes):
        (tmp_path / f"{index}.png").write_bytes(encode(photograph(index, width, height), "PNG"))
    async with ImageLoader(ImagePolicy(roots=(tmp_path,), decoders=1)) as loader:
        outcomes = await loader.load([ImageRequest((tmp_path / f"{index}.png").as_uri()) for index in range(40)])
    assert [(outcome.width, outcome.height) for outcome in outcomes if isinstance(outcome, Image)] == sizes


async def test_two_loads_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode(photograph(), "PNG"))
    request = ImageRequest((tmp_path / "a.png").as_uri())
    async with ImageLoader(ImagePolicy(roots=(tmp_path,), decoders=1)) as loader:
        first, second = await asyncio.gather(loader.load([request] * 5), loader.load([request] * 7))
    assert (len(first), len(second)) == (5, 7)


async def test_an_empty_batch() -> None:
    async with ImageLoader(ImagePolicy(decoders=1)) as loader:
        assert await loader.load([]) == []


async def test_decoding_leaves_the_event_loop_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Watched(Decoders):
        def decode(self, content: bytes) -> Decoded:
            seen.append(threading.current_thread())
            return super().decode(content)

    monkeypatch.setattr(images, "Decoders", Watched)
    (tmp_path / "a.png").write_bytes(encode(photograph(), "PNG"))
    async with ImageLoader(ImagePolicy(roots=(tmp_path,), decoders=1)) as loader:
        await loader.load([ImageRequest((tmp_path / "a.png").as_uri())])
    assert seen
    assert threading.main_thread() not in seen


async def test_of_a_large_photograph_no_more_is_decoded_than_a_model_sees(tmp_path: Path) -> None:
    (tmp_path / "large.jpg").write_bytes(encode(photograph(0, 800, 600), "JPEG", exif=exif(6)))
    (tmp_path / "small.jpg").write_bytes(encode(photograph(0, 200, 100), "JPEG", exif=exif(6)))
    requests = [ImageRequest((tmp_path / name).as_uri()) for name in ("large.jpg", "small.jpg")]
    async with ImageLoader(ImagePolicy(roots=(tmp_path,), decoders=1), canvas=(64, 64)) as loader:
        outcomes = await loader.load(requests)
    seen = [(image.width, image.height, image.pixels.shape) for image in outcomes if isinstance(image, Image)]
    assert seen == [(600, 800, (200, 150, 3)), (100, 200, (200, 100, 3))]


@pytest.mark.parametrize("wrong", [{"decoders": 0}, {"decode_timeout_s": 0.0}, {"decode_memory_bytes": -1}])
def test_a_policy_under_which_nothing_could_be_decoded_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ImagePolicy(**wrong)


async def test_an_image_knows_the_hash_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content := encode(photograph(), "PNG"))
    async with ImageLoader(ImagePolicy(roots=(tmp_path,), decoders=1)) as loader:
        [image] = await loader.load([ImageRequest((tmp_path / "a.png").as_uri())])
    assert isinstance(image, Image)
    assert image.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("failure", "kind", "reason"),
    [
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), BusyError, Reason.FETCH_FAILED),
        (MemoryError(), BusyError, Reason.FETCH_FAILED),
        (KeyError("a bug"), RejectedError, Reason.FETCH_FAILED),
    ],
)
async def test_whatever_fails_is_that_image_s_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, kind: type, reason: Reason
) -> None:
    (tmp_path / "a.png").write_bytes(encode(photograph(), "PNG"))
    real = FileReader._check

    def check(self: FileReader, status: os.stat_result) -> int:
        if status.st_size == 13:
            raise failure
        return real(self, status)

    (tmp_path / "b.png").write_bytes(b"thirteenbytes")
    monkeypatch.setattr(FileReader, "_check", check)
    async with ImageLoader(ImagePolicy(roots=(tmp_path,), decoders=1)) as loader:
        good, bad = await loader.load([ImageRequest((tmp_path / name).as_uri()) for name in ("a.png", "b.png")])
    assert isinstance(good, Image)
    assert isinstance(bad, kind)
    assert getattr(bad, "reason", None) is reason


async def test_a_refusal_holds_no_frames_and_so_no_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff not really")
    async with ImageLoader(ImagePolicy(roots=(tmp_path,), decoders=1)) as loader:
        (outcome,) = await loader.load([ImageRequest((tmp_path / "a.jpg").as_uri())])
    assert isinstance(outcome, RejectedError)
    assert (outcome.__traceback__, outcome.__cause__, outcome.__context__) == (None, None, None)


async def test_fetches_are_counted_by_outcome(tmp_path: Path) -> None:
    def count(outcome: str) -> float:
        return REGISTRY.get_sample_value("sightstream_image_fetch_duration_seconds_count", {"outcome": outcome}) or 0.0

    (tmp_path / "a.png").write_bytes(encode(photograph(), "PNG"))
    before = count("ok"), count("image_not_found")
    async with ImageLoader(ImagePolicy(roots=(tmp_path,), decoders=1)) as loader:
        await loader.load([ImageRequest((tmp_path / name).as_uri()) for name in ("a.png", "none.png")])
    assert (count("ok"), count("image_not_found")) == (before[0] + 1, before[1] + 1)


@pytest.mark.parametrize(
    ("uri", "named"),
    [
        ("file:///shop/a.jpg", "/shop/a.jpg"),
        ("https://me:secret@host.example/a.jpg?signature=secret", "https://host.example sha256:"),
        ("s3://bucket/secret.jpg", "s3://bucket sha256:"),
        ("http://[", "no URI"),
    ],
)
async def test_a_failure_that_nobody_foresaw_names_its_image_and_no_secret(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, uri: str, named: str
) -> None:
    async def fail(*_: object) -> None:
        raise ZeroDivisionError

    async with ImageLoader(ImagePolicy(decoders=1)) as loader:
        monkeypatch.setattr(ImageLoader, "_load", fail)
        [outcome] = await loader.load([ImageRequest(uri)])
    assert isinstance(outcome, RejectedError)
    [record] = caplog.records
    assert record.__dict__["image"].startswith(named)
    assert "secret" not in record.__dict__["image"]
