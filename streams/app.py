"""The Faust app: one thin agent a lane, which hands runs to the intake."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from faust.types import TP

from schemas.connection import KafkaConnection
from schemas.records import Lane
from schemas.topics import Topics
from streams import metrics
from streams.credentials import broker_urls, credentials
from streams.intake import LaneIntake
from streams.runs import RunApp


@dataclass(frozen=True, slots=True)
class Member:
    """Which consumer group, and as whom: `instance_id` is a static member's name, None for a dynamic one."""

    group: str
    instance_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPolicy:
    """How a worker takes part in its consumer group.

    Offsets are committed every `commit_interval_s`. At a rebalance or a stop, batches that began get `drain_s` to finish; it must stay
    below `rebalance_timeout_s`. A worker without a stable instance id that died keeps its partitions for `session_timeout_s`.
    `fetch_wait_ms`: how long an idle broker may hold a fetch; a real one answers as soon as there is a record, the embedded one does not.
    """

    commit_interval_s: float = 0.25
    session_timeout_s: float = 10.0
    rebalance_timeout_s: float = 20.0
    drain_s: float = 10.0
    fetch_wait_ms: int = 500


def lane_topics(topics: Topics) -> Mapping[str, Lane]:
    """Topic -> lane."""
    return {topics.lane(lane): lane for lane in Lane}


def build(
    connection: KafkaConnection, topics: Topics, member: Member, policy: WorkerPolicy, intake: LaneIntake
) -> RunApp:
    """An app that is not started yet. A factory, so that several can live in one process."""
    app = RunApp(
        member.group,
        broker=broker_urls(connection),
        broker_credentials=credentials(connection),
        broker_commit_interval=policy.commit_interval_s,
        broker_heartbeat_interval=1.0,
        broker_max_poll_interval=1000.0,
        broker_max_poll_records=5000,
        broker_rebalance_timeout=policy.rebalance_timeout_s,
        broker_request_timeout=max(30.0, policy.session_timeout_s),
        broker_session_timeout=policy.session_timeout_s,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=member.instance_id,
        consumer_max_fetch_size=1 << 20,
        stream_buffer_maxsize=64,  # counts runs
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        autodiscover=False,
    )
    app.intake = intake
    app.fetch_wait_ms = policy.fetch_wait_ms
    for topic in lane_topics(topics):
        app.agent(app.run_topic(topic), name=f"detect.{topic}")(_agent(app, intake, member.group))
    return app


def _agent(app: RunApp, intake: LaneIntake, group: str) -> Any:
    async def take_runs(stream: Any) -> None:
        async for event in stream.noack().events():
            message = event.message
            if message.generation_id != app.consumer_generation_id or not app.consumer.flow_active:
                continue  # a rebalance came between: its partition will be read again
            intake.accept(TP(message.topic, message.partition), message.value)
            metrics.CONSUMED.labels(message.topic, group).inc(len(message.value))

    return take_runs
