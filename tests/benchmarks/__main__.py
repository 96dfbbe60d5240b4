"""All benchmarks in one run, side by side: `python -m tests.benchmarks [NAME...]`.

Prints tables, writes the figures to `var/bench.json` and into `docs/benchmarks.md`, and pictures beside that. Figures of a busy machine say
little: the ratios within one run say more.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from tests.benchmarks.races import benchmark_kafka
from tests.benchmarks.report import Section, keep, now, publish
from tests.benchmarks.stage import Backstage, Stage, load, machine
from tests.support.data import ROOT

BENCHMARKS = {
    "pipeline": "pipeline",
    "images": "images",
    "latency": "latency",
    "parquet": "lake",
    "notifier": "notifier",
    "memory": "memory",
    "takeover": "takeover",
    "live": "live",
}
# The way in over HTTP, on Kafka as well: `make bench-gateway`.
GATEWAY = {"gateway": "gateway", "gateway-memory": "gateway_memory", "submission": "submission"}
# The detection engine alone. These need no Kafka, and each takes a while: `make bench-engine`.
ENGINE = {
    "engine": "engine",
    "engine-latency": "engine_latency",
    "engine-codes": "engine_codes",
    "engine-memory": "engine_memory",
    "engine-gpu": "engine_gpu",
    "decoders": "decoders",
}
# The detector that ships, on real pictures. Neither need these Kafka.
CODES = {"codes": "codes", "codes-reading": "codes_reading"}
STORE = {"store": "store"}
ON_KAFKA = BENCHMARKS | GATEWAY
ALONE = ENGINE | CODES | STORE


def main() -> None:
    """Run what was asked for, and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(BENCHMARKS)}, which are the default, and {', '.join(GATEWAY | ALONE)}",
    )
    parser.add_argument(
        "--model", default="codes", help="for codes, codes-reading and engine-codes: another than the one that ships"
    )
    parser.add_argument("--no-docs", action="store_true", help="leave docs/ as it is")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in ON_KAFKA | ALONE]:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(ON_KAFKA | ALONE)}")
    where, docs = machine(), ROOT / "docs"
    with tempfile.TemporaryDirectory(prefix="sightstream-bench-") as folder:
        scratch = Path(folder)
        pictures = scratch / "pictures" if options.no_docs else docs / "pictures"
        backstage = Backstage(scratch=scratch, pictures=pictures, model=options.model)
        sections = _run(options.names or list(BENCHMARKS), backstage)
    for name, value in where.items():
        print(f"{name}: {value}")
    for section in sections:
        print(f"\n{section.text()}")
    keep(sections, where, ROOT / "var" / "bench.json")
    if not options.no_docs:
        publish(sections, where, docs / "benchmarks.md")


def _run(names: list[str], backstage: Backstage) -> list[Section]:
    sections = {name: _play(ALONE[name], backstage) for name in names if name in ALONE}
    if on_kafka := [name for name in names if name in ON_KAFKA]:
        with benchmark_kafka(backstage.scratch / "kafka") as connection:
            stage = Stage(scratch=backstage.scratch, pictures=backstage.pictures, connection=connection)
            sections |= {name: _play(ON_KAFKA[name], stage) for name in on_kafka}
    return [sections[name] for name in names]


def _play(module: str, stage: Backstage) -> Section:
    print(f"{module} ...", flush=True)
    began, measured = time.monotonic(), f"{now()}, load before it {load()}"
    section: Section = import_module(f"tests.benchmarks.{module}").run(stage)
    stage.say(f"took {time.monotonic() - began:.0f} s")
    return replace(section, measured=measured)


if __name__ == "__main__":
    main()
