"""Decoder processes: whatever an image does to its decoder costs that image alone, and nothing is left behind."""

import os
import signal
import subprocess
import sys
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
from detectors.decode import decode
from detectors.decoder_process import Limits
from detectors.decoders import Decoders
from detectors.images import ImageLoader, ImagePolicy, ImageRequest
from schemas.errors import BusyError, Reason, RejectedError
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


def test_a_decoder_that_does_not_start_is_no_image_s_fault() -> None:
    with Decoders(1, LIMITS, "no_such_module") as started:
        for _ in range(2):
            with pytest.raises(BusyError, match="no decoder starts"):
                started.decode(GOOD)


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
    real.decode(encode(photograph(0, 4000, 3000), "JPEG"))
    [process] = [decoder._process for decoder in real._all if decoder._process]
    assert os.fstat(process._memory).st_size <= decoders._KEPT_BYTES
    assert real.decode(GOOD).frame == (96, 64)


def test_nothing_is_left_of_them() -> None:
    before = set(Path("/proc/self/fd").iterdir())
    with Decoders(3, LIMITS) as started:
        running = pids(started)
    assert len(running) == 3
    assert not any(Path(f"/proc/{pid}").exists() for pid in running)
    assert set(Path("/proc/self/fd").iterdir()) == before


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
