"""Decoders: processes that turn bytes into pixels, so that whatever a broken image does to its decoder costs that image alone."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Self

import numpy as np

from detectors.decode import Decoded
from detectors.decoder_process import MAX_MESSAGE_BYTES, Limits
from detectors.metrics import DECODERS_LOST
from schemas.errors import BusyError, FatalError, Reason, RejectedError

log = logging.getLogger(__name__)

PROGRAM = "detectors.decoder_process"
_START_TIMEOUT_S = 60.0
# So many failures in a row to start one are no accident: going on would give up one image after another for the machine's fault.
_MAX_FAILED_STARTS = 5
# A decoder that has used the processor for too long ends itself. One that cannot even do that is given so many times as long.
_PATIENCE = 6
_RETRY_AFTER_S = 5.0
# A memory file grows with its largest image; more than a photograph of a few megapixels is given back at once.
_KEPT_BYTES = 16 * 1024 * 1024
# Sent to the whole group by a terminal or a supervisor, while the worker drains and needs its decoders.
_SIGNALS_OF_THE_GROUP = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


class Decoders:
    """A fixed number of decoder processes; thread-safe, a context manager.

    They start at once and in parallel, and are used as soon as they are ready. One that dies is replaced at once, too.
    `program`: the module that they run, which tests make another one.
    """

    def __init__(self, count: int, limits: Limits, program: str = PROGRAM) -> None:
        starts = _Starts()
        self._all = [_Decoder(limits, program, starts) for _ in range(count)]
        self._idle: SimpleQueue[_Decoder] = SimpleQueue()

    def __enter__(self) -> Self:
        for decoder in self._all:
            decoder.start()
            self._idle.put(decoder)
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes. Not called while `decode` runs."""
        for decoder in self._all:
            decoder.end()

    def await_one(self) -> None:
        """Wait until one of them is ready. Raises FatalError, which says why, where it does not start."""
        decoder = self._idle.get()
        try:
            decoder.await_ready()
        except OSError as error:
            raise FatalError(f"no image can be decoded, a decoder does not start: {error}") from error
        finally:
            self._idle.put(decoder)

    def decode(self, content: bytes) -> Decoded:
        """Decode an image as `detectors.decode.decode_for` does. Blocks, also while all decoders are at work.

        Raises what that raises, and RejectedError DECODER_FAILED where the image crashed its decoder or wanted more time or memory than the
        limits grant; BusyError DECODER_FAILED where it may not be the image's fault: a decoder did not start, stood still or was killed,
        or the machine is short of memory. Raises FatalError where decoders failed to start several times in a row.
        """
        decoder = self._idle.get()
        try:
            return decoder.decode(content)
        finally:
            self._idle.put(decoder)


class _Starts:
    """How many starts of decoders have failed since the last that went well; thread-safe."""

    def __init__(self) -> None:
        self._failed = 0
        self._lock = threading.Lock()

    def succeeded(self) -> None:
        self._failed = 0

    def failed(self, error: OSError) -> BusyError | FatalError:
        """What is to be raised for it."""
        with self._lock:
            self._failed += 1
            hopeless = self._failed >= _MAX_FAILED_STARTS
        if hopeless:
            return FatalError(f"no decoder starts any more, {_MAX_FAILED_STARTS} attempts in a row failed: {error}")
        return BusyError(Reason.DECODER_FAILED, f"no decoder starts: {error}", _RETRY_AFTER_S)


class _Decoder:
    """A place for one decoder process after another; used by one thread at a time."""

    def __init__(self, limits: Limits, program: str, starts: _Starts) -> None:
        self._limits = limits
        self._program = program
        self._starts = starts
        self._process: _Process | None = None

    def start(self) -> None:
        """Start a process; it is not ready yet. Where that fails, whoever needs it tries again."""
        with suppress(OSError):
            self._process = _Process(self._limits, self._program)

    def end(self) -> int | None:
        """End the process, if there is one: how it ended."""
        process, self._process = self._process, None
        return process.end() if process else None

    def decode(self, content: bytes) -> Decoded:
        try:
            process = self.await_ready()
        except OSError as error:
            raise self._starts.failed(error) from error
        try:
            return process.decode(content)
        except _OutOfMemoryError as error:
            # Its bound counts from its start, and it may have grown since: only one that has done nothing else tells what an image takes.
            self.end()
            self.start()
            if error.used:
                return self.decode(content)
            message = f"decoding takes more than {self._limits.memory_bytes} bytes of memory"
            raise RejectedError(Reason.DECODER_FAILED, message) from error
        except TimeoutError as error:
            self._replace("stood still")
            raise BusyError(Reason.DECODER_FAILED, "the decoder stood still", _RETRY_AFTER_S) from error
        except ConnectionError as error:
            status = self._replace("at work")
            raise _judge(status, self._limits) from error
        except (OSError, MemoryError) as error:
            # The machine's fault, and the process is as good as before.
            raise BusyError(Reason.DECODER_FAILED, f"not enough memory now: {error}", _RETRY_AFTER_S) from error

    def await_ready(self) -> "_Process":
        """A process that is ready: another one where the former has died idle, which no image is to blame for.

        Raises OSError where it does not start.
        """
        if self._process is not None and not self._process.alive:
            self._replace("idle")
        try:
            self._process = self._process or _Process(self._limits, self._program)
            self._process.await_ready()
        except OSError:
            self.end()
            raise
        self._starts.succeeded()
        return self._process

    def _replace(self, how: str) -> int | None:
        """Another process for the one that was lost: its exit status."""
        status = self.end()
        DECODERS_LOST.labels(how=how).inc()
        log.warning("a decoder was lost and is replaced: %s, status %s", how, status)
        self.start()
        return status


class _OutOfMemoryError(Exception):
    """A process wanted more memory than it may have. `used`: it had decoded other images before."""

    def __init__(self, used: bool) -> None:
        super().__init__()
        self.used = used


class _Process:
    """One decoder process and what it is spoken to through."""

    def __init__(self, limits: Limits, program: str) -> None:
        self._limits = limits
        self._ready = False
        self._used = False
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._memory = os.memfd_create("decoder")
        try:
            self._popen = _start(
                [program, str(theirs.fileno()), str(self._memory), limits.to_json()], (theirs.fileno(), self._memory)
            )
        except OSError:
            self._close()
            raise
        finally:
            theirs.close()

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def await_ready(self) -> None:
        """Wait until the process has started. Raises OSError where it does not."""
        if not self._ready:
            self._receive(_START_TIMEOUT_S)
            self._ready = True

    def decode(self, content: bytes) -> Decoded:
        """Decode an image as `decode_for` does, and raise what that raises.

        Raises ConnectionError if the process dies of it, TimeoutError if it stands still, _OutOfMemoryError if it has grown too large:
        it is of no use then. Raises another OSError, or MemoryError, if the machine is short of memory.
        """
        if os.pwrite(self._memory, content, 0) != len(content):
            raise MemoryError("cannot hold the image")
        self._socket.send(str(len(content)).encode())
        answer = json.loads(self._receive(self._limits.seconds * _PATIENCE))
        try:
            return self._take(answer)
        finally:
            self._used = True
            if os.fstat(self._memory).st_blocks * 512 > _KEPT_BYTES:
                os.ftruncate(self._memory, _KEPT_BYTES)

    def end(self) -> int:
        """Kill it, should it still run, and give back what it had: the exit status, of a signal its negative number.

        What made a process end stands before its socket closes, so that this cannot hide it.
        """
        self._close()
        self._popen.kill()
        return self._popen.wait()

    def _receive(self, timeout_s: float) -> bytes:
        self._socket.settimeout(timeout_s)
        message = self._socket.recv(MAX_MESSAGE_BYTES)
        if not message:
            raise ConnectionResetError("the decoder ended")
        return message

    def _take(self, answer: dict[str, Any]) -> Decoded:
        """The pixels out of the memory file: one copy, which nobody else writes to."""
        match answer:
            case {"reason": reason, "message": message}:
                raise RejectedError(Reason(reason), message)
            case {"out_of_memory": _}:
                raise _OutOfMemoryError(self._used)
            case {"not_now": message}:
                raise MemoryError(message)
        height, width, _ = answer["shape"]
        pixels = np.empty((height, width, 3), np.uint8)
        if os.preadv(self._memory, [pixels.data], 0) != pixels.nbytes:
            raise ConnectionAbortedError("the decoder left too few pixels")
        return Decoded(pixels, tuple(answer["frame"]))

    def _close(self) -> None:
        self._socket.close()
        os.close(self._memory)


def _start(arguments: list[str], descriptors: tuple[int, ...]) -> "subprocess.Popen[bytes]":
    # -P: what lies in the working directory is not what the worker imported.
    command = [sys.executable, "-P", "-m", *arguments]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS_OF_THE_GROUP)  # which the process inherits
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=descriptors)  # noqa: S603 - our own program
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _judge(status: int | None, limits: Limits) -> RejectedError | BusyError:
    """Whether the image is to blame for how its decoder ended."""
    if status == -signal.SIGKILL:
        # By the kernel, which is short of memory, or by an operator.
        return BusyError(Reason.DECODER_FAILED, "the decoder was killed", _RETRY_AFTER_S)
    if status == -signal.SIGPROF:
        return RejectedError(Reason.DECODER_FAILED, f"decoding takes more than {limits.seconds:g} s of processor time")
    return RejectedError(Reason.DECODER_FAILED, f"the image ended its decoder with status {status}")
