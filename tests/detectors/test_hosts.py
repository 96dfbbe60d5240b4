"""Turns at hosts."""

import asyncio

import pytest

from detectors.hosts import Hosts
from detectors.policy import ImagePolicy
from schemas.errors import BusyError, Reason, RejectedError

POLICY = ImagePolicy(remote_concurrency=3, per_host=2, host_failures=2, host_pause_s=10)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def fail(hosts: Hosts, name: str, error: Exception) -> None:
    with pytest.raises(type(error)):
        async with hosts.turn(name):
            raise error


def busy() -> BusyError:
    return BusyError(Reason.FETCH_TIMEOUT, "late")


async def test_a_host_has_so_many_turns_and_all_hosts_together_so_many() -> None:
    hosts, release, running = Hosts(POLICY), asyncio.Event(), []

    async def hold(name: str) -> None:
        async with hosts.turn(name):
            running.append(name)
            await release.wait()

    tasks = [asyncio.create_task(hold(name)) for name in "aaaabb"]
    for _ in range(20):
        await asyncio.sleep(0)
    assert sorted(running) == ["a", "a", "b"]
    release.set()
    await asyncio.gather(*tasks)
    assert sorted(running) == list("aaaabb")
    assert not hosts._hosts


async def test_a_host_that_keeps_failing_is_left_alone_for_a_while() -> None:
    clock = Clock()
    hosts = Hosts(POLICY, clock)
    await fail(hosts, "bad", busy())
    await fail(hosts, "bad", busy())
    with pytest.raises(BusyError) as caught:
        async with hosts.turn("bad"):
            pytest.fail("asked a host that is left alone")
    assert caught.value.retry_after_s == 10
    async with hosts.turn("good"):
        pass
    clock.now += 10
    async with hosts.turn("bad"):
        pass
    assert not hosts._hosts


async def test_an_answer_between_failures_starts_the_count_anew() -> None:
    hosts = Hosts(POLICY, Clock())
    for _ in range(3):
        await fail(hosts, "flaky", busy())
        async with hosts.turn("flaky"):
            pass


async def test_a_rejected_image_says_nothing_against_its_host() -> None:
    hosts = Hosts(POLICY, Clock())
    for _ in range(5):
        await fail(hosts, "host", RejectedError(Reason.IMAGE_NOT_FOUND, "404"))
    async with hosts.turn("host"):
        pass
