"""The judge of rollouts: reads what both arms of a rollout did, compares, and lets it go on or ends it."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from schemas.arms import candidate_share
from schemas.errors import BusyError, ConfigurationError, FatalError
from schemas.models import ModelStatus
from schemas.moments import to_us
from schemas.rollouts import Decision, Rollout, Verdict
from sinks.base import Partition
from streams import judge_metrics as metrics
from streams.fold import Latest
from streams.judge_clock import EventClock
from streams.judge_log import JudgeLog, Stretch
from streams.judge_policy import JudgePolicy
from streams.judge_records import JudgeReader
from streams.judge_rules import judge, refusals_of
from streams.judge_windows import Windows
from streams.rollout_ledger import Change, Known, RolloutLedger
from streams.rollouts import settled

log = logging.getLogger(__name__)

_LOOK_AT_PARTITIONS_S = 60.0
_POLL_S = 0.5
_PAUSE_S = 1.0


class Judge:
    """Follows the rollouts that are live, and judges window after window of each.

    It keeps nothing: up to when a rollout was judged stands in its record. So a restart reads the window that was being filled again and
    decides the same, and of several judges each window is judged by the first to come to its end. `default`: what a reference gets that
    asks for no model. Time passes by the records alone; `now` is written down, and bounds what clocks of workers may say.
    """

    def __init__(
        self,
        ledger: RolloutLedger,
        policy: JudgePolicy | None = None,
        default: str = "",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._ledger, self._policy, self._now = ledger, policy or JudgePolicy(), now
        self._rollouts, self._statuses = Latest(Rollout), Latest(ModelStatus)
        self._follower = ledger.follower(self._rollouts, self._statuses)
        self._reader = JudgeReader(ledger.codec, self._watched, default)
        self._windows: dict[str, Windows] = {}
        self._ended: set[str] = set()
        self._partitions: frozenset[Partition] = frozenset()
        self._clock = EventClock((), 0)
        self._lateness_us = round(self._policy.lateness_s * 1e6)
        self._look_at = 0.0
        self._held_for: str | None = None

    def complaint(self) -> str | None:
        """What stands in its way, in one line, or None: a readiness probe."""
        return self._held_for or self._follower.complaint()

    def run(self, stop: threading.Event) -> None:
        """Judge until `stop`; on a thread of its own."""
        follower = threading.Thread(target=self._follower.run, args=(stop,), name="judge-rollouts", daemon=True)
        follower.start()
        with JudgeLog(self._ledger.connection, self._ledger.topics, self._ledger.group) as records:
            while not stop.is_set():
                if not follower.is_alive():
                    raise FatalError("nobody follows the rollouts any more")
                self._try_to_step(records, stop)
        follower.join()

    def _try_to_step(self, records: JudgeLog, stop: threading.Event) -> None:
        try:
            self._step(records, stop)
            self._held_for = None
        except (BusyError, ConfigurationError) as error:  # the latter also while nobody answers what topics there are
            if self._held_for != str(error):
                log.warning("judge: waits: %s", error)
            self._held_for = str(error)
            self._windows.clear()  # begins anew where the rollouts say
            stop.wait(_PAUSE_S)

    def _step(self, records: JudgeLog, stop: threading.Event) -> None:
        self._follow(records)
        if not self._windows:
            stop.wait(self._policy.follow_s)
            return
        for stretch in records.stretches(self._policy.records, min(_POLL_S, self._policy.follow_s)):
            self._take(stretch)
        for windows in list(self._windows.values()):
            while self._is_over(windows) and self._judge(windows):
                pass

    def _follow(self, records: JudgeLog) -> None:
        """Take note of what became of the rollouts. Where one is new, or a partition, begin to read again where they say."""
        live = {each.id: each for each in self._rollouts.all().values() if each.live and each.id not in self._ended}
        for gone in self._windows.keys() - live.keys():
            del self._windows[gone]
        for key, windows in self._windows.items():
            if live[key].judged_until >= windows.rollout.judged_until and live[key] != windows.rollout:
                windows.follow(live[key])
        if not live:
            records.stop_reading()
        elif live.keys() - self._windows.keys() or self._has_grown(records):
            self._begin(records, live)

    def _watched(self) -> dict[str, Rollout]:
        return {key: windows.rollout for key, windows in self._windows.items()}

    def _begin(self, records: JudgeLog, live: dict[str, Rollout]) -> None:
        self._partitions = records.partitions()
        self._clock = EventClock(self._partitions, self._lateness_us)
        # One window more, for the halves of pairs whose other half comes after it.
        since = min(each.window_start - timedelta(seconds=each.guard.window_s) for each in live.values())
        records.read_from(self._partitions, since)
        self._windows = {key: Windows(rollout, self._policy) for key, rollout in live.items()}
        log.info("judge: reads from %s for %s", since.isoformat(), ", ".join(each.name for each in live.values()))

    def _has_grown(self, records: JudgeLog) -> bool:
        if time.monotonic() < self._look_at:
            return False
        self._look_at = time.monotonic() + _LOOK_AT_PARTITIONS_S
        return records.partitions() != self._partitions

    def _take(self, stretch: Stretch) -> None:
        if stretch.values:
            is_letters = stretch.partition.topic == self._ledger.topics.dead_letters
            taken = (self._reader.letters if is_letters else self._reader.results)(stretch.values)
            # A worker whose clock is far ahead must not end windows that others are still filling.
            horizon_us = to_us(self._now()) + self._lateness_us
            self._clock.read(stretch.partition, min(taken.newest_us, horizon_us))
            for key, outcome in taken.outcomes:
                if outcome.at_us > horizon_us:
                    metrics.UNCOUNTED.labels("early").inc()
                elif not self._windows[key].take(outcome):
                    metrics.UNCOUNTED.labels("late").inc()
        if stretch.at_end:
            self._clock.read_to_end(stretch.partition)

    def _is_over(self, windows: Windows) -> bool:
        end = windows.next_end
        return end is not None and self._clock.has_passed(to_us(end))

    def _judge(self, windows: Windows) -> bool:
        """Judge the next window, unless another judge has. Whether the rollout is live after that."""
        end, before = windows.next_end, windows.rollout
        if end is None:
            return False

        def decide(known: Known) -> Change:
            current = known.rollouts.get(before.name)
            if current is None or current.id != before.id or not current.live:
                return Change()
            windows.follow(current)
            if current.judged_until != before.judged_until:
                return Change()
            refusals = refusals_of(current, self._statuses.all().values())
            after, verdict = judge(current, windows.figures(end), self._now(), refusals)
            return Change(after, settled(after, known.versions, self._now()), verdict)

        change = self._ledger.change(decide)
        if change.rollout is not None and change.verdict is not None:
            windows.follow(change.rollout)
            _tell(change.rollout, change.verdict)
        elif windows.rollout == before:
            return False  # it has ended otherwise; the follower hears of it
        if not windows.rollout.live:
            self._ended.add(before.id)
            del self._windows[before.id]
        return windows.rollout.live


def _tell(rollout: Rollout, verdict: Verdict) -> None:
    metrics.VERDICTS.labels(rollout.name, verdict.decision).inc()
    metrics.DISAGREEMENT.labels(rollout.name).set(verdict.disagreement)
    metrics.SHARE.labels(rollout.name).set(candidate_share(rollout))
    level = logging.WARNING if verdict.decision is Decision.ROLL_BACK else logging.INFO
    why = "; ".join(verdict.reasons) or "all is well"
    numbers = {"rollout": rollout.id, "pairs": verdict.pairs, "disagreement": verdict.disagreement}
    log.log(level, "%s: %s (%s)", rollout.candidate, verdict.decision, why, extra=numbers)
