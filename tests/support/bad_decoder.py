"""A decoder process to which images do what broken ones might do to a real one; `detectors.decoders` is told to start it."""

import ctypes
import itertools
import os
import resource
import signal
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from detectors.decode import Decoded, decode_for
from detectors.decoder_process import serve


def hang() -> None:
    while True:
        pass


def eat() -> None:
    held = [bytes(1 << 20) for _ in itertools.count()]
    raise AssertionError(len(held))


def fill_up() -> None:
    """From now on no file may grow or be written to behind its beginning; of itself that would end the process."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


HARM: dict[bytes, Callable[[], object]] = {
    b"crash": lambda: ctypes.string_at(0),
    b"abort": os.abort,
    b"exit": lambda: os._exit(3),
    b"hang": hang,
    b"eat": eat,
    b"full": fill_up,
    b"kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    b"sleep": lambda: time.sleep(3600),
}


leaked: list[bytes] = []


def decode(content: bytes, max_pixels: int, canvas: tuple[int, int] | None, buffer: NDArray[np.uint8]) -> Decoded:
    if content.startswith(b"leak"):
        leaked.append(bytes(100 * 1024**2))
        content = content.removeprefix(b"leak")
    if harm := HARM.get(content):
        harm()
    if content == b"full":
        return Decoded(np.zeros((2, 2, 3), np.uint8), (2, 2))
    return decode_for(content, max_pixels, canvas, buffer)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    serve(decode)
