"""What the judge of rollouts counts; names as in docs/operations.md."""

from prometheus_client import Counter, Gauge

VERDICTS = Counter("sightstream_rollout_verdicts_total", "Windows of rollouts judged.", ["model", "decision"])
DISAGREEMENT = Gauge(
    "sightstream_rollout_disagreement_ratio",
    "Share of objects in the last window that both arms do not agree on.",
    ["model"],
)
SHARE = Gauge("sightstream_rollout_share_ratio", "Share of keys that get the candidate.", ["model"])
UNCOUNTED = Counter(
    "sightstream_rollout_uncounted_results_total",
    "Outcomes whose window was judged before, or is still to come.",
    ["why"],
)
