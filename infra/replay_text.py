"""What `sightstream replay` says: plans, summaries and how replays stand, as text and for JSON."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from infra.replaying import Report
from streams.replay_book import Entry
from streams.replay_plan import Plan

_QUIET_S = 15.0  # a replay that runs says how far it has come more often


def planned(plan: Plan) -> dict[str, Any]:
    """A plan, for JSON."""
    manifest = plan.manifest
    ranges = {
        str(one.partition): {"first": one.first, "end": one.end, "references": one.references}
        for one in manifest.ranges
    }
    return {
        "topic": manifest.topic,
        "model": manifest.model,
        "references": manifest.references,
        "records": plan.records,
        "unreadable": plan.unreadable,
        "digest": manifest.digest,
        "ranges": ranges,
    }


def plan_text(plan: Plan) -> str:
    """What would be replayed."""
    manifest = plan.manifest
    lines = [
        f"replay {manifest.id}: {manifest.references} of {plan.records} records of {manifest.topic} for {manifest.model}"
    ]
    lines += [
        f"  partition {one.partition}: offsets {one.first} to {one.end - 1}, {one.references} references"
        for one in manifest.ranges
    ]
    return "\n".join(lines)


def summary(report: Report) -> dict[str, Any]:
    """What a turn did, for JSON."""
    outcome, tally = report.outcome, report.tally
    done = {
        "ok": report.ok,
        "id": report.manifest.id,
        "state": outcome.progress.state,
        "model": report.manifest.model,
        "references": report.manifest.references,
        "sent": outcome.progress.sent,
        "sent_now": outcome.sent,
        "digest": report.manifest.digest,
    }
    if tally is None:
        return done
    return done | {
        "results": tally.results,
        "detections": dict(tally.detections.most_common()),
        "gone": tally.gone,
        "failures": tally.failures,
        "no_outcome": list(report.missing),
    }


def text(report: Report) -> str:
    """What a turn did, and what became of the images."""
    outcome, tally = report.outcome, report.tally
    sent = f"{outcome.progress.sent} of {report.manifest.references} references sent, {outcome.sent} of them now"
    lines = [f"replay {report.manifest.id}: {sent}"]
    if tally is not None:
        lines.append(f"{tally.results} results, {tally.detections.total()} detections")
        lines += [f"  {count:>8}  {label}" for label, count in tally.detections.most_common()]
        counts = Counter({"images are gone": len(tally.gone), "without an outcome in time": len(report.missing)})
        lines += [f"{count} {what}" for what, count in counts.items() if count]
        lines += [f"{count} failed: {code}" for code, count in Counter(tally.failures.values()).most_common()]
    return "\n".join(lines)


def standing(entry: Entry) -> dict[str, Any]:
    """A replay and how far it has come, for JSON."""
    manifest, progress = entry.manifest, entry.progress
    return {
        "id": manifest.id,
        "state": progress.state if progress else "not begun",
        "sent": progress.sent if progress else 0,
        "references": manifest.references,
        "model": manifest.model,
        "topic": manifest.topic,
        "into": manifest.into,
        "notify": manifest.notify,
        "ranges": {str(one.partition): [one.first, one.end] for one in manifest.ranges},
        "digest": manifest.digest,
        "created_by": manifest.created_by,
        "created_at": manifest.created_at.isoformat(),
        "runner": progress.runner if progress else None,
        "at": progress.at.isoformat() if progress else None,
    }


def line(entry: Entry) -> str:
    """A replay in a line."""
    manifest, progress = entry.manifest, entry.progress
    state = progress.state.value if progress else "not begun"
    if progress and state == "running":
        silent_s = (datetime.now(UTC) - progress.at).total_seconds()
        state += f" (silent for {silent_s:.0f} s: killed?)" if silent_s > _QUIET_S else ""
    sent = progress.sent if progress else 0
    begun = f"{manifest.created_at:%Y-%m-%d %H:%M}"
    return f"{manifest.id}  {begun}  {manifest.model}  {sent}/{manifest.references}  {state}"
