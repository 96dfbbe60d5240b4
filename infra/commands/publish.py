"""`sightstream publish`: references to images onto their lane, and their outcomes back if wanted."""

import json
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from infra.command_values import PAIR, SPAN
from infra.settings import Settings

if TYPE_CHECKING:
    from infra.publishing import Report
    from producers.references import Batch
    from streams.awaiting import Tally

_SHOWN = 20

_OPTIONS = [
    click.argument("sources", nargs=-1, required=True, metavar="DIR|FILE|GLOB|URL|MANIFEST..."),
    click.option("--lane", type=click.Choice(["online", "bulk"]), default="online", show_default=True),
    click.option("--rate", type=click.FloatRange(0, min_open=True), help="At most so many images a second."),
    click.option(
        "--key-from",
        default="none",
        show_default=True,
        metavar="none|filename|parent|column:NAME|regex:PATTERN",
        help="What orders images: those of one key keep their order. A manifest's column key wins.",
    ),
    click.option(
        "--batch-id", help="Name of the batch; with it, publishing again gives images the same ids. Default: new."
    ),
    click.option("--model", help="The model that is wanted. Default: the worker's."),
    click.option("--confidence", type=click.FloatRange(0, 1), help="Lowest score of a detection."),
    click.option("--iou", type=click.FloatRange(0, 1), help="Overlap above which the lesser of two boxes goes."),
    click.option("--max-detections", type=click.IntRange(1), help="Most detections an image."),
    click.option("--class", "classes", type=click.IntRange(0), multiple=True, help="Only this class id. Repeatable."),
    click.option("--tenant", default="default", show_default=True),
    click.option(
        "--attribute", "attributes", type=PAIR, multiple=True, help="NAME=VALUE, copied to results. Repeatable."
    ),
    click.option("--deadline", type=SPAN, help="Nobody wants the result so long after publishing: 30s, 5m, 2h."),
    click.option("--wait", is_flag=True, help="Until every image has a result or a dead letter."),
    click.option(
        "--timeout",
        type=SPAN,
        default="15m",
        show_default=True,
        help="With --wait: give up when nothing came for so long (retries alone may take 11m).",
    ),
    click.option("--resume", is_flag=True, help="Go on after what an earlier run of the batch has confirmed."),
    click.option("--json", "as_json", is_flag=True, help="The summary as JSON."),
]


def _options(function: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@click.command("publish")
@_options
@click.pass_context
def command(context: click.Context, /, as_json: bool, **given: Any) -> None:
    """Publish references to images.

    A directory is searched for images (by suffix, hidden ones left out); a manifest is a .txt, .lst, .jsonl, .ndjson or .csv
    file that lists them; a URL is http, https, s3, gs, az or file. Workers fetch the images, so they must be able to reach
    them under the same names.

    Exit code 1: some image was not confirmed by Kafka, or with --wait has no result; which ones is said on stderr.
    """
    if given["resume"] and not given["batch_id"]:
        raise click.UsageError("--resume needs the --batch-id of the run that is to go on")
    settings = context.ensure_object(Settings)
    from infra.connections import check_connection
    from infra.publishing import Request, publish

    request = Request(
        sources=given["sources"],
        batch=_batch(given),
        rate=given["rate"],
        patience=given["timeout"] if given["wait"] else None,
        resume=given["resume"],
    )
    check_connection(settings.connection)
    report = publish(settings, request)
    _say_which(report)
    click.echo(json.dumps(_summary(report)) if as_json else _text(report))
    if not report.ok:
        context.exit(1)


def _batch(given: dict[str, Any]) -> "Batch":
    from producers.references import Batch, key_rule
    from schemas.records import DetectParameters, Lane

    return Batch(
        id=given["batch_id"] or uuid.uuid4().hex,
        lane=Lane(given["lane"]),
        tenant=given["tenant"],
        model=given["model"],
        parameters=DetectParameters(
            confidence=given["confidence"],
            iou=given["iou"],
            max_detections=given["max_detections"],
            classes=given["classes"] or None,
        ),
        attributes=dict(given["attributes"]),
        deadline=given["deadline"],
        key_rule=key_rule(given["key_from"]),
    )


def _say_which(report: "Report") -> None:
    """Name on stderr the images that did not make it, the first few one by one."""
    outcome = report.outcome
    if outcome.failed:
        click.echo(f"Kafka did not confirm {len(outcome.failed)} images: {outcome.error}", err=True)
        _name("not confirmed", outcome.failed)
        click.echo(f"to go on: the same command with --batch-id {report.batch_id} --resume", err=True)
    _name("refused, too large for a record", outcome.rejected)
    if report.tally is not None:
        _name("failed", [f"{image_id} ({code})" for image_id, code in report.tally.failures.items()])
    _name("no outcome", report.missing)


def _name(what: str, images: Sequence[str]) -> None:
    for image in images[:_SHOWN]:
        click.echo(f"{what}: {image}", err=True)
    if len(images) > _SHOWN:
        click.echo(f"{what}: {len(images) - _SHOWN} more", err=True)


def _summary(report: "Report") -> dict[str, Any]:
    outcome, tally = report.outcome, report.tally
    published = {
        "ok": report.ok,
        "batch_id": report.batch_id,
        "published": outcome.confirmed,
        "published_before": outcome.skipped,
        "refused": len(outcome.rejected),
        "not_confirmed": len(outcome.failed),
    }
    if tally is None:
        return published
    return published | {
        "results": tally.results,
        "detections": dict(tally.detections.most_common()),
        "failures": dict(Counter(tally.failures.values()).most_common()),
        "no_outcome": len(report.missing),
        "latency_p50_ms": tally.latency_ms(0.5),
        "latency_p95_ms": tally.latency_ms(0.95),
    }


def _text(report: "Report") -> str:
    outcome = report.outcome
    counts = {
        "published before": outcome.skipped,
        "refused": len(outcome.rejected),
        "not confirmed": len(outcome.failed),
    }
    others = "".join(f", {count} {name}" for name, count in counts.items() if count)
    lines = [f"batch {report.batch_id}: {outcome.confirmed} images published{others}"]
    return "\n".join(lines if report.tally is None else lines + _outcome_lines(report.tally, len(report.missing)))


def _outcome_lines(tally: "Tally", missing: int) -> list[str]:
    lines = [f"{tally.results} results, {tally.detections.total()} detections", *_counted(tally.detections)]
    if tally.failures:
        lines += [f"{len(tally.failures)} failed", *_counted(Counter(tally.failures.values()))]
    if missing:
        lines.append(f"{missing} without an outcome in time")
    if tally.results:
        lines.append(f"latency p50 {tally.latency_ms(0.5):.0f} ms, p95 {tally.latency_ms(0.95):.0f} ms")
    return lines


def _counted(counts: Counter[str]) -> list[str]:
    return [f"  {count:>8}  {name}" for name, count in counts.most_common()]
