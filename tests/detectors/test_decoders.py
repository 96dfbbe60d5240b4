"""Decoder processes: whatever an image does to its decoder costs that image alone, and nothing is left behind."""

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import REGISTRY

from detectors import decoders, images
from detectors.base import Image
from detectors.decode import Decoded, decode
from detectors.decoder_process import MAX_MESSAGE_BYTES, Limits, _Desk
from detectors.decoders import Decoders
from detectors.images import ImageLoader, ImagePolicy, ImageRequest
from schemas.errors import BusyError, FatalError, Reason, RejectedError
from tests.support.deliveries import eventually
from tests.support.images import encode, photograph, png

BAD_DECODER = "tests.support.bad_decoder"
LIMITS = Limits(max_pixels=50_000_000, canvas=None, seconds=0.2, memory_bytes=256 * 1024**2)
GOOD = encode(photograph(), "JPEG")


@pytest.fixture(scope="module", autouse=True)
def _on_a_busy_machine() -> Iterator[None]:
    """A decoder that hangs may be kept from the processor for long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoders, "_PATIENCE", 300)
        yield


@pytest.fixture(scope="module")
def bad() -> Iterator[Decoders]:
    """One decoder that does what the image says."""
    with Decoders(1, LIMITS, BAD_DECODER) as started:
        yield started


@pytest.fixture(scope="module")
def real() -> Iterator[Decoders]:
    """One decoder for all tests that do it no harm."""
    with Decoders(1, replace(LIMITS, seconds=10)) as started:
        yield started


def pids(started: Decoders) -> list[int]:
    return [decoder._process._popen.pid for decoder in started._all if decoder._process]


def held_bytes(started: Decoders) -> int:
    return max(os.fstat(decoder._process._memory).st_blocks * 512 for decoder in started._all if decoder._process)


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - their names are what counts


def lost(how: str) -> float:
    return REGISTRY.get_sample_value("sightstream_decoders_lost_total", {"how": how}) or 0.0


def runs(pid: int) -> bool:
    """Whether there is such a process that is more than a status nobody asked for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("size", [(1, 1), (96, 64), (1500, 1100)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_pixels_are_those_of_decoding_here(real: Decoders, kind: str, size: tuple[int, int]) -> None:
    content = encode(photograph(2, *size), kind)
    decoded = real.decode(content)
    np.testing.assert_array_equal(decoded.pixels, decode(content, LIMITS.max_pixels))
    assert decoded.frame == size
    assert decoded.pixels.flags.c_contiguous
    assert decoded.pixels.flags.owndata


def test_a_refusal_comes_back_with_its_reason(real: Decoders) -> None:
    with pytest.raises(RejectedError, match="neither JPEG") as caught:
        real.decode(b"<html>")
    assert caught.value.reason is Reason.IMAGE_TYPE_UNSUPPORTED
    with pytest.raises(RejectedError) as caught:
        real.decode(b"")
    assert caught.value.reason is Reason.IMAGE_EMPTY


def test_bytes_may_be_more_than_the_pixels_that_are_allowed() -> None:
    with Decoders(1, replace(LIMITS, max_pixels=10)) as started, pytest.raises(RejectedError) as caught:
        started.decode(GOOD)
    assert caught.value.reason is Reason.IMAGE_TOO_MANY_PIXELS


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (b"crash", f"status -{signal.SIGSEGV.value}$"),
        (b"abort", f"status -{signal.SIGABRT.value}$"),
        (b"exit", "status 3$"),
        (b"hang", "more than 0.2 s of processor time"),
        (b"eat", "more than 268435456 bytes of memory"),
    ],
)
def test_an_image_that_harms_its_decoder_is_refused_and_the_next_is_decoded(
    bad: Decoders, harm: bytes, message: str
) -> None:
    with pytest.raises(RejectedError, match=message) as caught:
        bad.decode(harm)
    assert caught.value.reason is Reason.DECODER_FAILED
    assert bad.decode(GOOD).frame == (96, 64)


@pytest.mark.parametrize(("harm", "how", "patience"), [(b"kill", "at work", 300), (b"sleep", "stood still", 1)])
def test_an_image_whose_decoder_fails_for_another_reason_may_be_tried_again(
    bad: Decoders, monkeypatch: pytest.MonkeyPatch, harm: bytes, how: str, patience: int
) -> None:
    assert bad.decode(GOOD).frame == (96, 64)
    before = lost(how)
    monkeypatch.setattr(decoders, "_PATIENCE", patience)
    with pytest.raises(BusyError) as caught:
        bad.decode(harm)
    monkeypatch.undo()
    assert caught.value.reason is Reason.DECODER_FAILED
    assert lost(how) == before + 1
    assert bad.decode(GOOD).frame == (96, 64)


def test_a_decoder_that_dies_idle_costs_no_image(bad: Decoders) -> None:
    bad.decode(GOOD)
    before = lost("idle")
    [process] = [decoder._process for decoder in bad._all if decoder._process]
    os.kill(process._popen.pid, signal.SIGKILL)
    eventually(lambda: not process.alive, "the decoder died", 10)
    assert bad.decode(GOOD).frame == (96, 64)
    assert lost("idle") == before + 1


def test_a_decoder_that_does_not_start_is_no_image_s_fault_and_for_good_the_end() -> None:
    with Decoders(2, LIMITS, "no_such_module") as started:
        for _ in range(decoders._MAX_FAILED_STARTS - 1):
            with pytest.raises(BusyError, match="no decoder starts"):
                started.decode(GOOD)
        with pytest.raises(FatalError, match="no decoder starts any more, 5 attempts in a row"):
            started.decode(GOOD)


def test_failures_to_start_are_forgotten_when_a_decoder_starts() -> None:
    starts = decoders._Starts()
    for _ in range(3):
        errors = [starts.failed(OSError("no")) for _ in range(decoders._MAX_FAILED_STARTS - 1)]
        assert {type(error) for error in errors} == {BusyError}
        starts.succeeded()


async def test_a_loader_whose_decoders_do_not_start_opens_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "Decoders", partial(Decoders, program="no_such_module"))
    before = descriptors()
    with pytest.raises(FatalError, match="a decoder does not start"):
        await ImageLoader(ImagePolicy(decoders=2)).__aenter__()
    assert descriptors() == before


async def test_a_loader_whose_decoders_start_no_more_says_so_instead_of_giving_up_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker ends by that without a commit."""
    (tmp_path / "a.jpg").write_bytes(GOOD)
    request = ImageRequest((tmp_path / "a.jpg").as_uri())
    async with ImageLoader(ImagePolicy(roots=(tmp_path,), decoders=1)) as loader:
        [image] = await loader.load([request])
        assert isinstance(image, Image)
        for decoder in loader._decoders._all:
            decoder._program = "no_such_module"
            decoder.end()
        with pytest.raises(FatalError, match="no decoder starts any more"):
            await loader.load([request] * 10)


def test_an_image_that_takes_too_much_memory_is_refused() -> None:
    large = {
        "PNG": png(8_000, 8_000, 1, 0, (b"\0" * (1_000 + 1)) * 8_000),
        "JPEG": encode(photograph(0, 5_000, 4_000), "JPEG", progressive=True),
    }
    with Decoders(1, replace(LIMITS, max_pixels=64_000_000, memory_bytes=48 * 1024**2, seconds=10)) as started:
        for content in large.values():
            with pytest.raises(RejectedError, match="50331648 bytes of memory") as caught:
                started.decode(content)
            assert caught.value.reason is Reason.DECODER_FAILED
        assert started.decode(GOOD).frame == (96, 64)


def test_memory_that_other_images_took_is_not_held_against_one(bad: Decoders) -> None:
    """What a decoder does not give back counts against its bound; it is the image that shows it, not the one to blame."""
    bad.decode(GOOD)
    before = pids(bad)
    for _ in range(3):
        assert bad.decode(b"leak" + GOOD).frame == (96, 64)
    assert pids(bad) != before


@pytest.mark.parametrize("call", ["pwrite", "preadv"])
def test_a_machine_short_of_memory_is_no_image_s_fault(
    real: Decoders, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    real.decode(GOOD)
    before = pids(real)
    with monkeypatch.context() as patch, pytest.raises(BusyError, match="Cannot allocate memory") as caught:
        patch.setattr(os, call, fail)
        real.decode(GOOD)
    assert caught.value.reason is Reason.DECODER_FAILED
    assert real.decode(GOOD).frame == (96, 64)
    assert pids(real) == before


def test_neither_is_one_where_only_the_decoder_notices() -> None:
    """A bound on the size of its files makes writing pixels fail, as a lack of memory would."""
    with (
        Decoders(1, LIMITS, BAD_DECODER) as started,
        pytest.raises(BusyError, match="not enough memory now") as caught,
    ):
        started.decode(b"full")
    assert caught.value.reason is Reason.DECODER_FAILED


def test_a_refusal_of_any_length_in_any_script_fits_its_message() -> None:
    limits = replace(LIMITS, max_pixels=100)

    def refuse(*_: object) -> Decoded:
        raise RejectedError(Reason.IMAGE_CORRUPT, "\N{PILE OF POO}" * 5000)

    memory = os.memfd_create("test")
    try:
        answer = json.dumps(_Desk(memory, limits, refuse).answer(0)).encode()
    finally:
        os.close(memory)
    assert len(answer) <= MAX_MESSAGE_BYTES
    assert json.loads(answer)["reason"] == Reason.IMAGE_CORRUPT


def test_more_threads_than_decoders(real: Decoders) -> None:
    pictures = [encode(photograph(seed, 30 + seed, 20), "PNG") for seed in range(20)]
    with ThreadPoolExecutor(6) as pool:
        assert [found.frame[0] for found in pool.map(real.decode, pictures)] == list(range(30, 50))


def test_signals_of_the_group_leave_decoders_at_work(real: Decoders) -> None:
    real.decode(GOOD)
    before = pids(real)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(before[0], number)
    assert real.decode(GOOD).frame == (96, 64)
    assert pids(real) == before


def test_memory_that_one_large_image_took_is_given_back(real: Decoders) -> None:
    large = encode(photograph(0, 4000, 3000), "JPEG")
    real.decode(large)
    assert held_bytes(real) <= decoders._KEPT_BYTES
    with pytest.raises(RejectedError):
        real.decode(large[: len(large) * 9 // 10])  # its pixels are nearly all there when the end is missed
    assert held_bytes(real) <= decoders._KEPT_BYTES
    assert real.decode(GOOD).frame == (96, 64)


def test_nothing_is_left_of_them() -> None:
    before = descriptors()
    with Decoders(3, LIMITS) as started:
        running = pids(started)
    assert len(running) == 3
    assert not any(Path(f"/proc/{pid}").exists() for pid in running)
    assert descriptors() == before


WORKER = """
import sys, time
from detectors.decoder_process import Limits
from detectors.decoders import Decoders
started = Decoders(2, Limits.from_json(sys.argv[1])).__enter__()
print(*(decoder._process._popen.pid for decoder in started._all), flush=True)
time.sleep(3600)
"""


def test_decoders_end_with_their_worker() -> None:
    command = [sys.executable, "-c", WORKER, LIMITS.to_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout
        running = [int(pid) for pid in worker.stdout.readline().split()]
        assert len(running) == 2
        worker.kill()
    eventually(lambda: not any(map(runs, running)), "the decoders ended", 30)


async def test_the_neighbours_of_a_harmful_image_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [content for harm in (b"crash", b"hang", b"eat") for content in (GOOD, harm, GOOD)]
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
    policy = ImagePolicy(
        roots=(tmp_path,), decoders=2, decode_timeout_s=LIMITS.seconds, decode_memory_bytes=LIMITS.memory_bytes
    )
    requests = [ImageRequest((tmp_path / str(number)).as_uri()) for number in range(len(contents))]
    monkeypatch.setattr(images, "Decoders", partial(Decoders, program=BAD_DECODER))
    async with ImageLoader(policy) as loader:
        outcomes = await loader.load(requests)
    assert [type(outcome) for outcome in outcomes] == [Image, RejectedError, Image] * 3
    assert {outcome.reason for outcome in outcomes if not isinstance(outcome, Image)} == {Reason.DECODER_FAILED}


async def test_a_loader_that_closes_in_the_middle_of_an_image_ends_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hang").write_bytes(b"hang")
    (tmp_path / "good").write_bytes(GOOD)
    hanging, good = (ImageRequest((tmp_path / name).as_uri()) for name in ("hang", "good"))
    monkeypatch.setattr(images, "Decoders", partial(Decoders, program=BAD_DECODER))
    policy = ImagePolicy(roots=(tmp_path,), decoders=1, decode_timeout_s=LIMITS.seconds)
    before = descriptors()
    async with ImageLoader(policy) as loader:
        loading = asyncio.create_task(loader.load([hanging, *[good] * 3]))
        await asyncio.to_thread(eventually, loader._decoders._idle.empty, "the decoder is at work", 10)
        running = pids(loader._decoders)
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
    assert not any(map(runs, running))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
    assert descriptors() == before
