"""Fuzz the API of a whole system that this starts: `python -m tests.fuzz_api [--cases 10000]`. Exit code 1: some answer was wrong."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.support.fuzzing import fuzz
from tests.support.kafka import Run
from tests.support.load import own_topics
from tests.support.system import System, system

_PER_EXAMPLE = 14  # operations; each is tried in several phases, so that this errs on the side of more


def main() -> None:
    """Fuzz, and say what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz_api", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="at least so many requests (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    run = Run.begin()
    try:
        with run.private(nodes=1) as kafka, tempfile.TemporaryDirectory(prefix="sightstream-fuzz-") as folder:
            connection, topics = own_topics(kafka)
            with system(connection, topics, Path(folder) / "system", {"IDENTITY_MODE": "required"}) as running:
                running.start()
                done = _fuzz(running, Path(folder), options.cases, options.seed)
    finally:
        run.end()
    print(f"{done:,} cases, every answer as the document says")


def _fuzz(running: System, folder: Path, cases: int, seed: int) -> int:
    """Again and again with another seed until there were so many cases; returns how many there were."""
    token, done = running.create_key("admin"), 0
    while done < cases:
        found = fuzz(running.url, token, folder, max(1, (cases - done) // _PER_EXAMPLE), seed=seed)
        print(found.report, flush=True)
        running.check_running()
        if not found.sound:
            sys.exit(1)
        done, seed = done + found.cases, seed + 1
    return done


if __name__ == "__main__":
    main()
