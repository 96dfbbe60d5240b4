"""A process that decodes images for another: `python -m detectors.decoder_process SOCKET MEMORY LIMITS`, started by `detectors.decoders`.

Image libraries are large, written in C and fed by strangers. Here a crash, a hang or a lack of memory ends this process and nothing else.
Bytes come and pixels go through a memory file, which the worker reads and writes but never maps: nothing done here can pull pages away from
under it. Over the socket go small messages, one each way: the number of bytes, then a JSON object.
"""

import json
import mmap
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from schemas.errors import RejectedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from detectors.decode import Decoded

Decode: TypeAlias = "Callable[[bytes, int, tuple[int, int] | None, NDArray[np.uint8]], Decoded]"

MAX_MESSAGE_BYTES = 4096
_MAX_TEXT = 300  # characters; JSON makes up to twelve bytes of one


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one image may cost. `canvas`: (width, height) of a model's largest input; None decodes everything whole.

    `seconds` are of processor time, so that a busy machine is not held against an image; `memory_bytes` come on top of what the process
    takes when it is idle.
    """

    max_pixels: int
    canvas: tuple[int, int] | None
    seconds: float
    memory_bytes: int

    def to_json(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`."""
        values = json.loads(text)
        return cls(**{**values, "canvas": values["canvas"] and tuple(values["canvas"])})


def main() -> None:
    """Decode until the other side closes the socket."""
    # Read as numpy is imported, which else starts a thread for each core.
    os.putenv("OPENBLAS_NUM_THREADS", "1")
    from detectors.decode import decode_for  # noqa: PLC0415

    serve(decode_for)


def serve(decode: Decode) -> None:
    """Say that this process is ready, then answer one request after another, with `decode` for `detectors.decode.decode_for`."""
    descriptor, memory, text = sys.argv[1:]
    limits = Limits.from_json(text)
    desk = _Desk(int(memory), limits, decode)
    _bound_memory(limits.memory_bytes)
    message = b"ready"
    with socket.socket(fileno=int(descriptor)) as requests:
        while _send(requests, message) and (size := requests.recv(MAX_MESSAGE_BYTES)):
            # What this signal does by default, ending the process, it does whatever code runs just then.
            signal.setitimer(signal.ITIMER_PROF, limits.seconds)
            message = json.dumps(desk.answer(int(size))).encode()
            signal.setitimer(signal.ITIMER_PROF, 0)


def _send(requests: socket.socket, message: bytes) -> bool:
    """Whether anybody is there to receive it."""
    try:
        return bool(requests.send(message))
    except ConnectionError:
        return False


class _Desk:
    """Where the work is done: bytes come in the memory file, and pixels take their place."""

    def __init__(self, memory: int, limits: Limits, decode: Decode) -> None:
        import numpy as np  # noqa: PLC0415 - see main

        self._memory = memory
        self._limits = limits
        self._decode = decode
        self._size = 3 * limits.max_pixels
        os.ftruncate(memory, self._size)  # takes no memory yet
        self._pixels = np.frombuffer(mmap.mmap(memory, self._size), np.uint8)

    def answer(self, size: int) -> dict[str, Any]:
        """Decode so many bytes; says what the pixels are like, or why there are none.

        That is the image's fault (`reason`), or this process may not grow any further (`out_of_memory`), or the machine's memory does not
        suffice (`not_now`).
        """
        try:
            os.ftruncate(self._memory, max(size, self._size))  # the worker cuts it back after a large image
            content = os.pread(self._memory, size, 0)
            decoded = self._decode(content, self._limits.max_pixels, self._limits.canvas, self._pixels)
            if decoded.pixels.base is not self._pixels:
                os.pwrite(self._memory, decoded.pixels.data, 0)
        except RejectedError as error:
            return {"reason": error.reason, "message": str(error)[:_MAX_TEXT]}
        except MemoryError:
            return {"out_of_memory": True}
        except OSError as error:  # of the memory file: what decoding raises comes as one of the above
            return {"not_now": str(error)[:_MAX_TEXT]}
        return {"shape": decoded.pixels.shape, "frame": decoded.frame}


def _bound_memory(more_bytes: int) -> None:
    """Let the address space of this process grow by so much and no further; what it asks for then, it is refused.

    Should the machine run out of memory before, the kernel takes this process rather than the worker.
    """
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", "ascii")
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    limit = pages * resource.getpagesize() + more_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


if __name__ == "__main__":
    main()
