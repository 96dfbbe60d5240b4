"""A canary from its command to its end: a real worker runs both versions, a judge looks on, and the operator does nothing."""

import threading
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from click.testing import CliRunner

from infra.commands.rollout import command
from infra.judging import rollout_ledger
from infra.settings import Settings
from producers.publisher import Publisher
from schemas.arms import choose
from schemas.connection import KafkaConnection
from schemas.models import ModelVersion, Stage
from schemas.records import DetectionResult
from schemas.rollouts import Arm, Decision, Rollout, RolloutState
from schemas.topics import Topics
from streams.fold import Latest
from streams.judge import Judge
from streams.judge_policy import JudgePolicy
from tests.e2e.conftest import MakeWorker
from tests.support.kafka import read_topic
from tests.support.pipeline import CODEC, publish, references

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

# The second one keeps silent about most of what it sees; it is as fast as the first, and never fails.
FIRST = ModelVersion(name="fake", version="1", backend="fake", stage=Stage.STABLE)
SECOND = ModelVersion(name="fake", version="2", backend="fake", confidence=0.9)


def test_a_canary_that_detects_differently_ends_by_itself_and_users_never_see_a_shadow(
    connection: KafkaConnection,
    topics: Topics,
    publisher: Publisher,
    group: str,
    make_worker: MakeWorker,
    photos: list[Path],
) -> None:
    for version in (FIRST, SECOND):
        publisher.put(topics.models, version.reference, version).result(60)
    make_worker(MODELS_DEFAULT="fake", MODELS_REHEARSE="false").start()
    given = {"kafka.bootstrap": connection.bootstrap, "kafka.prefix": topics.prefix, "kafka.group": group}
    settings = Settings().overriding(given)
    options = ["--steps", "50%", "--shadow-share", "50%", "--window", "1s", "--min-samples", "20"]
    begun = CliRunner().invoke(command, ["start", "fake@2", *options, "--max-latency-ratio", "100"], obj=settings)
    assert begun.exit_code == 0, begun.output

    ledger, rollouts, stop = rollout_ledger(settings), Latest(Rollout), threading.Event()
    judge = Judge(ledger, JudgePolicy(lateness_s=0.5), default="fake")
    threads = [threading.Thread(target=run, args=(stop,)) for run in (judge.run, ledger.follower(rollouts).run)]
    for thread in threads:
        thread.start()
    try:
        for burst in count():
            assert burst < 600, "the canary does not end"
            refs = references(photos, 10)
            publish(publisher, [replace(ref, key=f"camera-{burst}-{ref.key}") for ref in refs])
            rollout = rollouts.get("fake")
            if (rollout is not None and not rollout.live) or stop.wait(0.1):
                break
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)

    ended = ledger.read().rollouts["fake"]
    last = ledger.verdicts()[-1]
    assert (ended.state, last.decision) == (RolloutState.ROLLED_BACK, Decision.ROLL_BACK)
    assert [reason.partition(":")[0] for reason in last.reasons] == ["disagreement"]
    assert last.candidate.failures == last.stable.failures == 0
    seen = [CODEC.decode(message.value(), DetectionResult) for message in read_topic(connection, topics.detections)]
    live = replace(ended, state=RolloutState.RUNNING, share=0.5)
    for result in seen:
        if result.rollout is not None:
            choice = choose(live, result.key)
            assert (f"{result.model_name}@{result.model_version}", result.arm) == (choice.model, choice.arm)
    shadows = [CODEC.decode(message.value(), DetectionResult) for message in read_topic(connection, topics.shadow)]
    assert {shadow.arm for shadow in shadows} == {Arm.SHADOW}
    assert {result.arm for result in seen} <= {None, Arm.STABLE, Arm.CANDIDATE}
