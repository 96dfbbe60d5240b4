"""A typed client of the gateway for programs without an event loop: the asynchronous client's calls, one by one, on a loop of its own."""

import asyncio
import functools
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from concurrent.futures import CancelledError
from typing import Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from producers.client_async import LOCAL, AsyncClient
from producers.client_http import ClientPolicy

P = ParamSpec("P")
Result = TypeVar("Result")


class _Loop:
    """An event loop in a thread of its own, for as long as somebody needs it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sightstream-client", daemon=True)
        self._thread.start()

    def run(self, work: Awaitable[Result]) -> Result:
        """Wait for work on the loop; interrupted (Ctrl-C), it is cancelled there."""

        async def do() -> Result:
            return await work

        future = asyncio.run_coroutine_threadsafe(do(), self._loop)
        try:
            return future.result()
        except (KeyboardInterrupt, CancelledError):
            future.cancel()
            raise

    def close(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


class _Call(Generic[P, Result]):
    """A coroutine method of AsyncClient, as one that blocks."""

    def __init__(self, method: Callable[Concatenate[AsyncClient, P], Awaitable[Result]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    @overload
    def __get__(self, client: None, owner: type["Client"]) -> Self: ...
    @overload
    def __get__(self, client: "Client", owner: type["Client"]) -> Callable[P, Result]: ...
    def __get__(self, client: "Client | None", owner: type["Client"]) -> Self | Callable[P, Result]:
        if client is None:
            return self
        bound = client

        @functools.wraps(self._method)
        def call(*args: P.args, **kwargs: P.kwargs) -> Result:
            return bound.loop.run(self._method(bound.asynchronous, *args, **kwargs))

        return call


class _Iteration(Generic[P, Result]):
    """An asynchronous generator method of AsyncClient, as a generator. Close it, or read it to its end."""

    def __init__(self, method: Callable[Concatenate[AsyncClient, P], AsyncGenerator[Result, None]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    @overload
    def __get__(self, client: None, owner: type["Client"]) -> Self: ...
    @overload
    def __get__(self, client: "Client", owner: type["Client"]) -> Callable[P, Iterator[Result]]: ...
    def __get__(self, client: "Client | None", owner: type["Client"]) -> Self | Callable[P, Iterator[Result]]:
        if client is None:
            return self
        bound = client

        @functools.wraps(self._method)
        def iterate(*args: P.args, **kwargs: P.kwargs) -> Iterator[Result]:
            items = self._method(bound.asynchronous, *args, **kwargs)
            try:
                while True:
                    try:
                        item = bound.loop.run(anext(items))
                    except StopAsyncIteration:
                        return
                    yield item
            finally:
                bound.loop.run(items.aclose())

        return iterate


class Client:
    """Speaks to one gateway; use it as `with`, or `close` it. Its calls are those of `AsyncClient`, and raise what they raise."""

    def __init__(self, server: str = LOCAL, token: str = "", policy: ClientPolicy | None = None) -> None:
        self.asynchronous = AsyncClient(server, token, policy)
        self.loop = _Loop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End its connections, and its thread."""
        self.loop.run(self.asynchronous.close())
        self.loop.close()

    submit = _Call(AsyncClient.submit)
    submit_batch = _Call(AsyncClient.submit_batch)
    detect = _Call(AsyncClient.detect)
    detect_many = _Iteration(AsyncClient.detect_many)
    upload = _Call(AsyncClient.upload)
    image = _Call(AsyncClient.image)
    images = _Iteration(AsyncClient.images)
    wait = _Call(AsyncClient.wait)
    outcomes = _Iteration(AsyncClient.outcomes)
    batch = _Call(AsyncClient.batch)
    wait_batch = _Call(AsyncClient.wait_batch)
    batch_images = _Iteration(AsyncClient.batch_images)
    annotated = _Call(AsyncClient.annotated)
    delete = _Call(AsyncClient.delete)
    status = _Call(AsyncClient.status)
    stream = _Iteration(AsyncClient.stream)
