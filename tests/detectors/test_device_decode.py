"""Decoding on a device, on the CPU as the device: the same calls go to libjpeg-turbo there, and to nvJPEG on a GPU."""

import importlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from detectors.decode import decode
from detectors.device_decode import DeviceDecoder
from detectors.images import ImageLoader, ImagePolicy, ImageRequest
from detectors.jpeg_header import BaselineHeader
from schemas.errors import ConfigurationError, RejectedError
from tests.support.images import corpus, encode, exif, fill_bytes, flip, photograph

pytestmark = pytest.mark.filterwarnings(
    "ignore:The image decoding and encoding capabilities of TorchVision:DeprecationWarning"
)

DEADLINE_S = 30
MAX_PIXELS = 10_000_000


@pytest.fixture(scope="module")
def decoder() -> DeviceDecoder:
    return DeviceDecoder("cpu", MAX_PIXELS)


@pytest.fixture
def batches(decoder: DeviceDecoder, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of torchvision's decoder was given."""
    sizes: list[int] = []
    real: Callable[..., Any] = decoder._io.decode_jpeg

    def decode_jpeg(encoded: list[Any], **options: Any) -> Any:
        sizes.append(len(encoded))
        return real(encoded, **options)

    monkeypatch.setattr(decoder._io, "decode_jpeg", decode_jpeg)
    return sizes


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright_once(decoder: DeviceDecoder, orientation: int) -> None:
    content = encode(photograph(), "JPEG", quality=95, exif=exif(orientation))
    image = decoder.decode(content)
    assert image is not None
    expected = decode(content, MAX_PIXELS)
    assert (image.width, image.height) == expected.shape[1::-1]
    assert image.tensor.is_contiguous()
    assert image.pixels.flags.c_contiguous
    assert np.abs(image.pixels.astype(int) - expected).max() <= 2


def test_the_device_takes_plain_jpegs_and_leaves_the_rest_to_the_host(decoder: DeviceDecoder, tmp_path: Path) -> None:
    """Whatever it takes is what the host's decoder makes of it, and it takes nothing that the host refuses."""
    taken = set()
    for case in corpus(tmp_path):
        image = decoder.decode(case.path.read_bytes()) if case.path.exists() else None
        if image is not None:
            taken.add(case.name)
            assert case.reason is None, case.name
            assert (image.width, image.height) == (case.width, case.height), case.name
            expected = decode(case.path.read_bytes(), MAX_PIXELS)
            assert np.abs(image.pixels.astype(int) - expected).max() <= 2, case.name
    turned = {f"exif-{orientation}.jpg" for orientation in range(1, 9)}
    assert taken >= {"plain.jpg", "no-subsampling.jpg", "html-tail.jpg", "broken-exif.jpg", "1x1.jpg"} | turned
    assert not taken & {"progressive.jpg", "grey.jpg", "cmyk.jpg", "truncated.jpg", "plain.png", "20000x20000.jpg"}


def test_what_is_too_large_is_left_to_the_host() -> None:
    content = encode(photograph(0, 64, 64), "JPEG")
    assert DeviceDecoder("cpu", 64 * 64).decode(content) is not None
    assert DeviceDecoder("cpu", 64 * 64 - 1).decode(content) is None


def test_an_rgb_jpeg_is_not_taken_for_ycbcr() -> None:
    content = encode(photograph(), "JPEG")
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
    assert BaselineHeader.read(content) == BaselineHeader(96, 64, 1)
    assert BaselineHeader.read(content[:2] + adobe + b"\x00" + content[2:]) is None
    assert BaselineHeader.read(content[:2] + adobe + b"\x01" + content[2:]) == BaselineHeader(96, 64, 1)


def test_headers_of_any_bytes_are_read_or_none() -> None:
    content = encode(photograph(), "JPEG", exif=exif(6))
    assert BaselineHeader.read(content) == BaselineHeader(96, 64, 6)
    assert BaselineHeader.read(fill_bytes(content, 3)) == BaselineHeader(96, 64, 6)
    for end in range(0, 700, 3):
        assert BaselineHeader.read(content[:end]) is None
    rng = np.random.default_rng(0)
    for position in rng.integers(0, 700, 200).tolist():
        BaselineHeader.read(flip(content, position))
        BaselineHeader.read(b"\xff\xd8\xff" + rng.bytes(60))


def test_a_refused_image_costs_its_neighbours_nothing(decoder: DeviceDecoder, batches: list[int]) -> None:
    """All ask while a first batch is held up, so that they are one batch with a bad image in it."""
    good = [encode(photograph(seed), "JPEG") for seed in range(5)]
    start, end = good[2].index(b"\xff\xdb"), good[2].index(b"\xff\xc0")
    damaged = good[2][:start] + good[2][end:]  # without its quantisation tables
    assert BaselineHeader.read(damaged) is not None
    batches.clear()
    contents = [*good, damaged]
    with ThreadPoolExecutor(len(contents)) as pool:
        with decoder._turn:
            asked = [pool.submit(decoder.decode, content) for content in contents]
            deadline = time.monotonic() + DEADLINE_S
            while len(decoder._waiting) < len(contents):
                assert time.monotonic() < deadline
        images = [future.result(DEADLINE_S) for future in asked]
    assert batches == [6, 1, 1, 1, 1, 1, 1]
    assert images[-1] is None
    for content, image in zip(good, images, strict=False):
        assert image is not None
        assert np.abs(image.pixels.astype(int) - decode(content, MAX_PIXELS)).max() <= 2


async def test_a_loader_that_decodes_on_a_device_gives_every_image_the_same_verdict(tmp_path: Path) -> None:
    cases = corpus(tmp_path)
    policy = ImagePolicy(roots=(tmp_path,), decoders=2, decode_on="cpu")
    requests = [ImageRequest(case.path.as_uri()) for case in cases]
    async with ImageLoader(policy) as loader:
        outcomes = await loader.load(requests)
    async with ImageLoader(ImagePolicy(roots=(tmp_path,), decoders=2)) as loader:
        on_host = await loader.load(requests)
    kinds = set()
    for case, outcome, expected in zip(cases, outcomes, on_host, strict=True):
        if isinstance(expected, RejectedError):
            assert isinstance(outcome, RejectedError), case.name
            assert outcome.reason == expected.reason == case.reason, case.name
            continue
        assert not isinstance(outcome, Exception), case.name
        assert not isinstance(expected, Exception), case.name
        kinds.add(type(outcome).__name__)
        assert (outcome.width, outcome.height, outcome.sha256) == (case.width, case.height, expected.sha256)
        assert outcome.decode_ms > 0
        assert np.abs(outcome.pixels.astype(int) - expected.pixels).max() <= 2, case.name
    assert kinds == {"Image", "DeviceImage"}


def test_without_the_extra_or_the_device_the_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="no device cuda:63 here"):
        DeviceDecoder("cuda:63", MAX_PIXELS)

    def import_module(name: str, package: str | None = None) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", import_module)
    with pytest.raises(ConfigurationError, match=r"pip install 'sightstream\[torch\]'"):
        DeviceDecoder("cpu", MAX_PIXELS)


def test_pixels_are_copied_as_they_are(decoder: DeviceDecoder) -> None:
    image = decoder.decode(encode(photograph(), "JPEG"))
    assert image is not None
    assert_array_equal(image.pixels, image.tensor.numpy())
