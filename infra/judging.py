"""The judge of rollouts as a part of a process, and the way to rollouts for commands. Imports every client: not for `--help`."""

import asyncio

from infra.runtime import Run, threaded
from infra.server import run_alone
from infra.settings import Settings
from infra.telemetry import Health
from infra.wiring import open_codec
from streams.judge import Judge
from streams.rollout_ledger import RolloutLedger

JUDGE = "judge"


def rollout_ledger(settings: Settings) -> RolloutLedger:
    """Who reads and changes rollouts."""
    group = f"{settings.kafka.group}.{JUDGE}"
    return RolloutLedger(settings.connection, open_codec(settings), settings.topics, group)


def judging(settings: Settings, health: Health) -> Run:
    """The judge, in a thread. Ready once it knows the rollouts, and while nothing stands in its way."""
    judge = Judge(rollout_ledger(settings), settings.judge, settings.models.default)
    health.must_be_ready(JUDGE, judge.complaint)
    return threaded(judge.run, JUDGE)


async def run_judge(settings: Settings, http: bool, stop: asyncio.Event) -> None:
    """One judge process; with `http`, its health and metrics at `http.port`."""
    await run_alone(settings, lambda health: {JUDGE: judging(settings, health)}, stop, http=http)
