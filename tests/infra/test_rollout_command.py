"""`sightstream rollout` on a real Kafka: what an operator types and reads."""

import json
from datetime import timedelta

import pytest
from click.testing import CliRunner, Result

from infra.cli import group as sightstream
from infra.commands.rollout import command
from infra.settings import Settings
from producers.publisher import Publisher
from schemas.connection import KafkaConnection
from schemas.models import ModelVersion, Stage
from schemas.rollouts import ArmFigures, Decision, Verdict
from schemas.topics import Topics
from tests.support.rollouts import NOON


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--steps", "5%,x"], "'x' is not a share"),
        (["--steps", "120%"], "not between 0% and 100%"),
        (["--kind", "bluegreen"], "is not one of"),
        (["--window", "soon"], "is not a span of time"),
    ],
)
def test_what_cannot_be_read_is_a_usage_error(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(sightstream, ["rollout", "start", "yolo@2", *arguments])
    assert result.exit_code == 2
    assert says in result.output


@pytest.mark.kafka
def test_an_operators_day(connection: KafkaConnection, topics: Topics, publisher: Publisher, group: str) -> None:
    settings = Settings().overriding(
        {"kafka.bootstrap": connection.bootstrap, "kafka.prefix": topics.prefix, "kafka.group": group}
    )

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(command, list(arguments), obj=settings)

    for version in (ModelVersion(name="yolo", version="1", stage=Stage.STABLE), ModelVersion(name="yolo", version="2")):
        publisher.put(topics.models, version.reference, version).result(60)
    refused = run("start", "yolo@3")
    assert "the registry has no 'yolo@3'" in str(refused.exception)
    begun = run("start", "yolo@2", "--steps", "5%,50%", "--window", "30s", "--max-disagreement", "10%")
    assert begun.exit_code == 0, begun.output
    assert begun.output.startswith("yolo  canary step 1 of 2  running  5% to yolo@2, rest to yolo@1, 10% seen by both")
    assert "end it first" in str(run("start", "yolo@2").exception)
    assert "paused" in run("pause", "yolo").output
    assert "running" in run("resume", "yolo").output
    (shown,) = map(json.loads, run("status", "--json").output.splitlines())
    assert (shown["share"], shown["guard"]["window_s"], shown["guard"]["max_disagreement"]) == (0.05, 30.0, 0.1)
    publisher.put(topics.verdicts, "yolo", verdict(shown["id"])).result(60)
    lines = run("status", "yolo").output.splitlines()
    assert lines[1].split("  ")[1:4] == ["2026-01-01T12:00:00Z + 30 s", "hold at 5%", "(paused)"]
    assert "1.25% of 80 objects in 40 pairs differ" in lines[1]
    done = run("promote", "yolo", "--reason", "it is better")
    assert "promoted: it is better" in done.output
    assert "yolo@2 is stable" in done.output
    assert "is promoted" in str(run("abort", "yolo").exception)
    assert run("status", "codes").exit_code == 1
    assert "there was no rollout of codes" in str(run("pause", "codes").exception)


def verdict(rollout_id: str) -> Verdict:
    arm = ArmFigures(results=100, failures=1, p95_ms=80.0, boxes_per_image=2.0)
    return Verdict(
        rollout_id=rollout_id,
        name="yolo",
        decision=Decision.HOLD,
        share=0.05,
        window_start=NOON,
        window_end=NOON + timedelta(seconds=30),
        stable=arm,
        candidate=arm,
        pairs=40,
        objects=80,
        disagreement=0.0125,
        reasons=("paused",),
    )
