"""The knobs of the judge of rollouts, apart from it so that reading settings loads no numpy."""

from dataclasses import dataclass

from schemas.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgePolicy:
    """`lateness_s`: event time that results may come late, by workers' clocks and queues; a window is looked at so long after its end.

    `records`: the most that is taken from Kafka at a time. `remembered_ids`: results of a rollout among which copies are found;
    `waiting_halves`: images of a rollout that wait for the other version's result. `follow_s`: how often it looks whether rollouts changed.
    """

    lateness_s: float = 5.0
    records: int = 1_000
    remembered_ids: int = 200_000
    waiting_halves: int = 10_000
    follow_s: float = 1.0

    def __post_init__(self) -> None:
        if self.lateness_s < 0 or self.follow_s <= 0:
            raise ConfigurationError("judge.lateness_s must not be negative, and judge.follow_s must be positive")
        if min(self.records, self.remembered_ids, self.waiting_halves) < 1:
            raise ConfigurationError("judge.records, judge.remembered_ids and judge.waiting_halves must be at least 1")
