"""What is refused while an image arrives: nothing that a worker would decode, and everything that its header gives away."""

import struct
import zipfile
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.decode import decode
from producers.image_check import Checked, ImageCheck, PolyglotError
from schemas.errors import Reason, RejectedError
from tests.support.images import HEIGHT, WIDTH, Case, corpus, encode, exif, fill_bytes, photograph, resized_header, vp8x

MAX_PIXELS = 50_000_000
MAX_BYTES = 1_000_000


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    return corpus(tmp_path_factory.mktemp("corpus"))


def check(content: bytes, step: int = 1 << 20, max_bytes: int = MAX_BYTES) -> Checked:
    judge = ImageCheck(max_bytes, MAX_PIXELS)
    for at in range(0, len(content), step):
        judge.feed(content[at : at + step])
    return judge.finish()


def reason(content: bytes, step: int = 1 << 20) -> Reason | None:
    try:
        check(content, step)
    except RejectedError as error:
        return error.reason
    return None


def decoder_takes(content: bytes) -> bool:
    try:
        decode(content, MAX_PIXELS)
    except RejectedError:
        return False
    return True


@pytest.mark.parametrize("step", [7, 1 << 20])
def test_the_corpus_is_judged_as_the_decoder_judges_it_however_it_arrives(cases: list[Case], step: int) -> None:
    told = {Reason.IMAGE_EMPTY, Reason.IMAGE_TYPE_UNSUPPORTED, Reason.IMAGE_TOO_MANY_PIXELS}
    for case in cases:
        if not case.path.exists() or case.name == "html-tail.jpg":
            continue
        found = reason(case.path.read_bytes(), step)
        if case.reason is None or case.reason in told:
            assert found == case.reason, case.name
        else:
            assert found in {None, case.reason}, case.name


def test_the_size_is_the_decoders_before_it_is_turned(cases: list[Case]) -> None:
    for case in cases:
        if case.reason is None and case.name != "html-tail.jpg":
            found = check(case.path.read_bytes())
            assert sorted((found.width, found.height)) == sorted((case.width, case.height)), case.name


@settings(max_examples=40, deadline=None)
@given(kind=st.sampled_from(["JPEG", "PNG", "WEBP"]), data=st.data())
def test_nothing_is_refused_that_decodes(kind: str, data: st.DataObject) -> None:
    content = bytearray(encode(photograph(1), kind))
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, min(len(content), 700) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    for candidate in (bytes(content), bytes(content[:cut])):
        step = data.draw(st.integers(1, 400))
        if reason(candidate, step) is not None:
            assert not decoder_takes(candidate)


def test_a_bomb_is_refused_by_its_header_before_the_rest_arrives() -> None:
    judge = ImageCheck(MAX_BYTES, MAX_PIXELS)
    with pytest.raises(RejectedError) as refusal:
        judge.feed(resized_header(encode(photograph(), "JPEG"), 20_000, 20_000)[:400])
    assert refusal.value.reason is Reason.IMAGE_TOO_MANY_PIXELS
    assert reason(vp8x(16_383, 16_383)) is Reason.IMAGE_TOO_MANY_PIXELS


def test_too_many_bytes_are_refused_at_the_one_too_many() -> None:
    judge = ImageCheck(100, MAX_PIXELS)
    content = encode(photograph(), "JPEG")
    judge.feed(content[:100])
    with pytest.raises(RejectedError) as refusal:
        judge.feed(content[100:101])
    assert refusal.value.reason is Reason.IMAGE_TOO_LARGE


def test_headers_that_are_long_or_odd() -> None:
    wordy = encode(photograph(), "JPEG", exif=exif(1), comment=b"c" * 60_000, icc_profile=b"i" * 200_000)
    for step in (977, 1 << 20):
        assert check(wordy, step) == Checked("jpg", WIDTH, HEIGHT)
    assert check(fill_bytes(encode(photograph(), "JPEG"), 40)) == Checked("jpg", WIDTH, HEIGHT)
    no_frame = b"\xff\xd8\xff\xe0\x00\x04ab" + b"\xff\xda" + bytes(100)
    assert reason(no_frame) is Reason.IMAGE_CORRUPT
    assert reason(resized_header(encode(photograph(), "JPEG"), 0, 64)) is Reason.IMAGE_CORRUPT


def test_what_never_gets_to_its_picture_is_given_up() -> None:
    """A step for each byte or chunk is bounded: nobody keeps the server busy with a file of nothing."""
    assert reason(b"\xff\xd8\xff" + bytes(200_000)) is Reason.IMAGE_CORRUPT
    header = encode(photograph(), "PNG")[:33]
    empty = struct.pack(">I4sI", 0, b"teXt", 0)
    assert reason(header + empty * 70_000) is Reason.IMAGE_CORRUPT


def archive() -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        zipped.writestr("evil.class", "x" * 1000)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("step", [1, 1 << 20])
@pytest.mark.parametrize(
    "tail",
    [b"<html><body>", b"\n<!DOCTYPE html>", b"<script >alert(1)", b"junk<?php system()", b"%PDF-1.7", archive()],
    ids=["html", "doctype", "script", "php", "pdf", "zip"],
)
def test_polyglots(kind: str, step: int, tail: bytes) -> None:
    content = encode(photograph(), kind)
    with pytest.raises(PolyglotError):
        check(content + tail, step)
    assert decoder_takes(content + tail), "a decoder sees nothing wrong, which is why this is looked for"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_pictures_with_harmless_things_behind_them(kind: str) -> None:
    """A second picture, a film, an archive's local header without a directory: good files have them."""
    content = encode(photograph(), kind)
    for tail in (
        encode(photograph(2), "JPEG"),
        b"\0\0\0\x18ftypmp42" + bytes(70_000),
        b"PK\x05\x06 by chance " + bytes(99),
    ):
        assert check(content + tail) == Checked(check(content).kind, WIDTH, HEIGHT)
