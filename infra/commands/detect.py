"""`sightstream detect`: pictures through a gateway, and what was found in them."""

from typing import TYPE_CHECKING, Any

import click

from infra.command_values import PAIR, SPAN
from infra.settings import Settings

if TYPE_CHECKING:
    from producers.client_forms import SubmitOptions


@click.command("detect")
@click.argument("sources", nargs=-1, required=True, metavar="FILE|DIR|GLOB|URL|MANIFEST...")
@click.option("--server", help="The gateway's URL, over client.server.")
@click.option(
    "--save",
    "folder",
    type=click.Path(file_okay=False, writable=True),
    metavar="DIR",
    help="Write each picture with its boxes drawn, and what was found as JSON.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["jpeg", "webp"]),
    default="jpeg",
    show_default=True,
    help="Of saved pictures.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line instead of text.")
@click.option("--key", default="", help="What orders: images of one key (a camera, say) keep their order.")
@click.option("--lane", type=click.Choice(["online", "bulk"]), default="online", show_default=True)
@click.option("--model", help="The model that is wanted. Default: the worker's.")
@click.option("--confidence", type=click.FloatRange(0, 1), help="Lowest score of a detection.")
@click.option("--iou", type=click.FloatRange(0, 1), help="Overlap above which the lesser of two boxes goes.")
@click.option("--max-detections", type=click.IntRange(1), help="Most detections an image.")
@click.option("--class", "classes", type=click.IntRange(0), multiple=True, help="Only this class id. Repeatable.")
@click.option("--attribute", "attributes", type=PAIR, multiple=True, help="NAME=VALUE, copied to results. Repeatable.")
@click.option("--timeout", type=SPAN, default="60s", show_default=True, help="Give an image up after so long.")
@click.option("--concurrency", type=click.IntRange(1, 256), default=16, show_default=True, help="Images at once.")
@click.pass_context
def command(context: click.Context, /, **given: Any) -> None:
    """Detect objects in pictures: files and directories are uploaded, URLs are fetched by the workers.

    The credential is the setting client.token, best given as SIGHTSTREAM_CLIENT_TOKEN. Whatever is interrupted on the way is tried
    again; nothing is submitted twice.

    Exit code 1: some picture has no result, and stderr says which and why, or the gateway does not answer. 2: it does not let you in.
    """
    settings = context.ensure_object(Settings).overriding({"client.server": given["server"]})
    import asyncio
    from pathlib import Path

    from infra.detecting import Job, detect

    job = Job(
        sources=given["sources"],
        options=_options(given),
        folder=Path(given["folder"]) if given["folder"] else None,
        picture_format=given["kind"],
        as_json=given["as_json"],
        timeout_s=given["timeout"].total_seconds(),
        concurrency=given["concurrency"],
    )
    if asyncio.run(detect(settings.client, job)):
        context.exit(1)


def _options(given: dict[str, Any]) -> "SubmitOptions":
    from producers.client_forms import SubmitOptions
    from schemas.records import DetectParameters, Lane

    return SubmitOptions(
        key=given["key"],
        model=given["model"],
        parameters=DetectParameters(
            confidence=given["confidence"],
            iou=given["iou"],
            max_detections=given["max_detections"],
            classes=given["classes"] or None,
        ),
        lane=Lane(given["lane"]),
        attributes=dict(given["attributes"]),
    )
