"""What each role must be allowed to do on a cluster with ACLs, and no more."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType

from schemas.topics import Topics


class Role(StrEnum):
    """A kind of process that has a Kafka user of its own. AWAITER: `publish --wait`. REDRIVER: `dead-letters`, which marks what it sent.

    KEEPER: whoever hands out API keys. REPLAYER: `replay`. COMPARER: `diff`. DRIFT: `drift`, baselines and watcher. JUDGE: `rollout`, its
    judge and whoever starts or ends rollouts by hand, or keeps versions of models.
    """

    PUBLISHER = "publisher"
    AWAITER = "awaiter"
    REDRIVER = "redriver"
    WORKER = "worker"
    PARQUET = "parquet"
    NOTIFIER = "notifier"
    STORE = "store"
    GATEWAY = "gateway"
    KEEPER = "keeper"
    DRIFT = "drift"
    JUDGE = "judge"
    COMPARER = "comparer"
    REPLAYER = "replayer"


@dataclass(frozen=True, slots=True)
class Grants:
    """Topics that a role reads and writes (which implies describing them, and idempotent writes), and what it does with its groups.

    A consumer that is no member of any group still asks where the coordinator of its `group.id` is, hence DESCRIBE. `transactions`: the
    beginnings of its transactional ids.
    """

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    groups: AclOperation | None = None
    transactions: tuple[str, ...] = ()


def grants(role: Role, topics: Topics) -> Grants:
    """What the role needs. The worker also forwards what is due from the retry topics back to the lanes."""
    lanes, retries = (topics.online, topics.bulk), tuple(topics.retries)
    outcomes = (topics.detections, topics.dead_letters)
    return {
        Role.PUBLISHER: Grants(writes=lanes),
        Role.AWAITER: Grants(outcomes, lanes, groups=AclOperation.DESCRIBE),
        Role.REDRIVER: Grants((topics.dead_letters,), (*lanes, topics.dead_letters), groups=AclOperation.DESCRIBE),
        Role.WORKER: Grants(
            (*lanes, *retries, topics.models, topics.rollouts),
            (*outcomes, *lanes, *retries, topics.progress, topics.shadow, topics.model_status),
            groups=AclOperation.READ,
        ),
        Role.PARQUET: Grants((topics.detections,), (topics.dead_letters,), groups=AclOperation.READ),
        Role.NOTIFIER: Grants(outcomes, groups=AclOperation.DESCRIBE),
        Role.STORE: Grants(
            (*lanes, *outcomes, topics.batches, topics.deletions, topics.progress), groups=AclOperation.READ
        ),
        # It follows the keys and the outcomes, and asks where the lanes end.
        Role.GATEWAY: Grants(
            (*lanes, *outcomes, topics.keys),
            (*lanes, topics.batches, topics.deletions, topics.audit),
            groups=AclOperation.DESCRIBE,
        ),
        Role.KEEPER: Grants((topics.keys,), (topics.keys, topics.audit), groups=AclOperation.DESCRIBE),
        Role.DRIFT: Grants(
            (topics.detections, topics.drift, topics.drift_baselines),
            (topics.drift, topics.drift_baselines),
            groups=AclOperation.DESCRIBE,
            transactions=(topics.drift,),
        ),
        Role.COMPARER: Grants((topics.detections, topics.shadow, topics.replays), groups=AclOperation.DESCRIBE),
        Role.JUDGE: Grants(
            (*outcomes, topics.shadow, topics.models, topics.model_status, topics.rollouts, topics.verdicts),
            (topics.models, topics.rollouts, topics.verdicts),
            groups=AclOperation.DESCRIBE,
            transactions=(topics.rollouts,),
        ),
        # It reads back what it sent; with `--yield-to-online` it asks what the workers have committed.
        Role.REPLAYER: Grants(
            (*lanes, *outcomes, topics.models, topics.replays, topics.replay_progress),
            (topics.bulk, topics.replays, topics.replay_progress),
            groups=AclOperation.DESCRIBE,
        ),
    }[role]


def acls(role: Role, user: str, topics: Topics, group: str) -> Sequence[AclBinding]:
    """The bindings for `AdminClient.create_acls`; `group` is the prefix of the role's consumer groups."""
    needs = grants(role, topics)
    bindings = [_allow(user, AclOperation.READ, ResourceType.TOPIC, name) for name in needs.reads]
    bindings += [_allow(user, AclOperation.WRITE, ResourceType.TOPIC, name) for name in needs.writes]
    bindings += [
        _allow(user, AclOperation.WRITE, ResourceType.TRANSACTIONAL_ID, name, ResourcePatternType.PREFIXED)
        for name in needs.transactions
    ]
    if needs.groups:
        bindings.append(_allow(user, needs.groups, ResourceType.GROUP, group, ResourcePatternType.PREFIXED))
    return bindings


def _allow(
    user: str,
    operation: AclOperation,
    resource: ResourceType,
    name: str,
    pattern: ResourcePatternType = ResourcePatternType.LITERAL,
) -> AclBinding:
    return AclBinding(resource, name, pattern, f"User:{user}", "*", operation, AclPermissionType.ALLOW)
