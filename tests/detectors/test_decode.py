"""Decoding: the corpus case by case, then what the pixels must be."""

import io
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from detectors import decode as decoding
from detectors.boxes import Letterbox
from detectors.decode import decode, decode_for
from schemas.errors import Reason, RejectedError
from tests.support.images import (
    HEIGHT,
    WIDTH,
    Case,
    corpus,
    encode,
    exif,
    fill_bytes,
    photograph,
    png,
    stray_bytes,
    with_alpha,
)

MAX_PIXELS = 50_000_000


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    return [case for case in corpus(tmp_path_factory.mktemp("corpus")) if case.path.exists()]


def test_every_file_of_the_corpus_has_its_outcome(cases: list[Case], subtests: pytest.Subtests) -> None:
    for case in cases:
        with subtests.test(case.name):
            check(case)


def check(case: Case) -> None:
    if case.reason is None:
        pixels = decode(case.path.read_bytes(), MAX_PIXELS)
        assert pixels.shape == (case.height, case.width, 3)
        assert pixels.dtype == np.uint8
        assert pixels.flags.c_contiguous
        return
    with pytest.raises(RejectedError) as caught:
        decode(case.path.read_bytes(), MAX_PIXELS)
    assert caught.value.reason is case.reason


def test_opencv_gives_the_pixels_of_pillow(cases: list[Case], subtests: pytest.Subtests) -> None:
    for case in cases:
        content = case.path.read_bytes()
        if case.reason is None and not content.startswith(b"\xff\xd8"):
            with subtests.test(case.name):
                fast = decoding._decode_with_opencv(content)
                reference = decoding._decode_with_pillow(content, decoding._choose_opener(content), MAX_PIXELS)
                assert fast is not None
                np.testing.assert_array_equal(fast.pixels, reference.pixels)


@pytest.mark.parametrize("name", ["truncated.png", "bad-crc.png", "truncated.webp", "noise-after-magic.png"])
def test_opencv_refuses_what_is_broken(cases: list[Case], name: str) -> None:
    [content] = [case.path.read_bytes() for case in cases if case.name == name]
    assert decoding._decode_with_opencv(content) is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_exactly_once(kind: str, orientation: int) -> None:
    content = encode(photograph(), kind, exif=exif(orientation))
    with Image.open(io.BytesIO(content)) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    np.testing.assert_array_equal(decode(content, MAX_PIXELS), np.asarray(upright))


@pytest.mark.parametrize("fill", [1, 2, 7])
def test_fill_bytes_before_markers_hide_no_orientation(fill: int) -> None:
    content = fill_bytes(encode(photograph(), "JPEG", exif=exif(6)), fill)
    with Image.open(io.BytesIO(content)) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    assert upright.size == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(decode(content, MAX_PIXELS), np.asarray(upright))


def test_jpeg_pixels_are_those_of_pillow() -> None:
    content = encode(photograph(3, 321, 243), "JPEG", quality=85)
    with Image.open(io.BytesIO(content)) as image:
        np.testing.assert_array_equal(decode(content, MAX_PIXELS), np.asarray(image.convert("RGB")))


def test_harmless_flaws_are_forgiven() -> None:
    content = encode(photograph(), "JPEG")
    np.testing.assert_array_equal(decode(stray_bytes(content), MAX_PIXELS), decode(content, MAX_PIXELS))


def test_sixteen_bits_keep_their_high_byte() -> None:
    grey = np.asarray(photograph().convert("L"))
    content = encode(Image.fromarray(grey.astype(np.uint16) * 256 + 255), "PNG")
    np.testing.assert_array_equal(decode(content, MAX_PIXELS), np.repeat(grey[:, :, np.newaxis], 3, axis=2))


def test_alpha_is_dropped_not_blended() -> None:
    plain = photograph()
    np.testing.assert_array_equal(decode(encode(with_alpha(plain), "PNG"), MAX_PIXELS), np.asarray(plain))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    frames = [photograph(seed) for seed in range(3)]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(decode(content, MAX_PIXELS), np.asarray(frames[0]))


def test_cmyk_becomes_rgb() -> None:
    plain = photograph()
    pixels = decode(encode(plain.convert("CMYK"), "JPEG", quality=100), MAX_PIXELS)
    assert np.abs(pixels.astype(int) - np.asarray(plain).astype(int)).mean() < 8


def test_the_bound_on_pixels_is_exact() -> None:
    content = png(WIDTH, HEIGHT, 8, 0, (b"\0" * (WIDTH + 1)) * HEIGHT)
    assert decode(content, WIDTH * HEIGHT).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(RejectedError) as caught:
        decode(content, WIDTH * HEIGHT - 1)
    assert caught.value.reason is Reason.IMAGE_TOO_MANY_PIXELS


def test_a_size_of_which_pillow_would_warn_is_ours_to_judge() -> None:
    content = png(10_000, 10_000, 1, 0, (b"\0" * (1_250 + 1)) * 10_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RejectedError) as caught:
            decode(content, 99_999_999)
        assert caught.value.reason is Reason.IMAGE_TOO_MANY_PIXELS
        assert decode(content, 100_000_000).shape == (10_000, 10_000, 3)


def mean_difference(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(int) - second.astype(int)).mean())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_image_is_upright_and_knows_its_whole_frame(orientation: int) -> None:
    content = encode(photograph(1, 803, 605), "JPEG", exif=exif(orientation), quality=95)
    whole = decode(content, MAX_PIXELS)
    reduced = decode_for(content, MAX_PIXELS, (100, 90))
    assert reduced.frame == (whole.shape[1], whole.shape[0])
    assert sorted(reduced.pixels.shape[:2]) == [152, 201]  # a quarter, rounded up
    assert reduced.pixels.flags.c_contiguous
    height, width = reduced.pixels.shape[:2]
    smaller = np.asarray(Image.fromarray(whole).resize((width, height), Image.Resampling.BOX))
    assert mean_difference(reduced.pixels, smaller) < 2
    assert mean_difference(reduced.pixels[::-1, ::-1], smaller) > 10


@given(
    frame=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    canvas=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    orientation=st.sampled_from([1, 6]),
)
def test_twice_what_the_canvas_shows_is_left(frame: tuple[int, int], canvas: tuple[int, int], orientation: int) -> None:
    size = frame if orientation == 1 else frame[::-1]
    content = encode(Image.new("RGB", size), "JPEG", exif=exif(orientation))
    decoded = decode_for(content, MAX_PIXELS, canvas)
    shown = Letterbox.fit(frame, canvas).resized
    left = decoded.pixels.shape[1::-1]
    assert decoded.frame == frame
    assert all(
        pixels == whole or pixels >= 2 * wanted - 1 for pixels, whole, wanted in zip(left, frame, shown, strict=True)
    )
    assert left == frame or max(whole / pixels for whole, pixels in zip(frame, left, strict=True)) >= 1.5


def test_only_jpeg_is_decoded_reduced_and_what_is_too_large_stays_refused() -> None:
    large = photograph(1, 800, 600)
    assert decode_for(encode(large, "PNG"), MAX_PIXELS, (64, 64)).pixels.shape == (600, 800, 3)
    with pytest.raises(RejectedError) as caught:
        decode_for(encode(large, "JPEG"), 800 * 600 - 1, (64, 64))
    assert caught.value.reason is Reason.IMAGE_TOO_MANY_PIXELS


def test_scans_are_counted_where_there_may_be_many() -> None:
    frame, scan = b"\xff\xc2\0\x08\x08\0\x40\0\x60\x01", b"\xff\xda\0\x06\x01\x01\0\0"
    content = encode(photograph(), "JPEG", progressive=True)
    assert decode(content, MAX_PIXELS).shape == (HEIGHT, WIDTH, 3)
    for many in (content[:-2] + scan * 501 + content[-2:], b"\xff\xd8" + frame + scan * 501):
        with pytest.raises(RejectedError, match="more than 500 scans"):
            decode(many, MAX_PIXELS)


def test_a_truncated_image_is_refused_though_reduced() -> None:
    content = encode(photograph(1, 800, 600), "JPEG")
    for cut in (len(content) // 2, len(content) - 100):
        with pytest.raises(RejectedError) as caught:
            decode_for(content[:cut], MAX_PIXELS, (64, 64))
        assert caught.value.reason is Reason.IMAGE_CORRUPT


@given(data=st.data(), kind=st.sampled_from(["JPEG", "PNG", "WEBP"]))
def test_damage_never_raises_anything_foreign(data: st.DataObject, kind: str) -> None:
    content = bytearray(DAMAGEABLE[kind])
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        content[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    with suppress(RejectedError):
        decode(bytes(content[:cut]), 1_000_000)


DAMAGEABLE = {kind: encode(photograph(0, 24, 16), kind) for kind in ("JPEG", "PNG", "WEBP")}


def test_corpus_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    first, second = corpus(tmp_path / "a", 7), corpus(tmp_path / "b", 7)
    assert [case.name for case in first] == [case.name for case in second]
    assert all(
        a.path.read_bytes() == b.path.read_bytes() for a, b in zip(first, second, strict=True) if a.path.exists()
    )
