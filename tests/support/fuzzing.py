"""Schemathesis against a gateway that runs: requests made from the OpenAPI document, good and bad ones, and answers held against it."""

import copy
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.contract import document

# Streams do not end by themselves, and the page is no API: both have tests of their own.
_LEFT_OUT = ("/", "/v1/stream", "/v1/events")
# What no worker tries to fetch: addresses for documentation are not public.
_NOWHERE = "http://192.0.2.1/"
_CONFIGURATION = """
[checks.positive_data_acceptance]
# What is right by form may still be refused: random bytes are no picture, a random URI is none of ours, a cursor is not made up.
expected-statuses = ["2xx", "304", "400", "401", "403", "404", "409", "410", "413", "415", "422", "424", "429", "503"]

[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "406", "410", "411", "413", "415", "422", "426", "429", "431", "503"]
"""


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """What came of it: `cases` requests were made; `sound` if no answer was other than promised. `report` is for people."""

    sound: bool
    cases: int
    report: str


def fuzz(
    url: str,
    token: str,
    folder: Path,
    examples: int,
    *,
    seed: int = 1,
    phases: str = "examples,coverage,fuzzing,stateful",
) -> Fuzzed:
    """`examples`: the most requests for each operation and phase."""
    (folder / "openapi.json").write_text(json.dumps(_fit_for_fuzzing()), "utf-8")
    (folder / "schemathesis.toml").write_text(_CONFIGURATION, "utf-8")
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("schemathesis"), "--config-file", folder / "schemathesis.toml", "run"),
            *(folder / "openapi.json", "--url", url, "--header", f"Authorization: Bearer {token}"),
            *("--checks", "all", "--phases", phases, "--max-examples", str(examples), "--seed", str(seed)),
            *(
                "--generation-database",
                "none",
                "--no-color",
                "--continue-on-failure",
                "--request-timeout",
                "90",
                "--warnings",
                "off",
            ),
            *("--suppress-health-check", "all", "--generation-with-security-parameters", "false"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    cases = sum(int(count.replace(",", "")) for count in re.findall(r"([\d,]+) generated", done.stdout))
    return Fuzzed(done.returncode == 0, cases, done.stdout + done.stderr)


def _fit_for_fuzzing() -> dict[str, Any]:
    """The document, without what a fuzzer cannot use, and with a credential asked for, as the gateway under test does."""
    fitting = copy.deepcopy(document())
    for path in _LEFT_OUT:
        del fitting["paths"][path]
    for operations in fitting["paths"].values():
        for operation in operations.values():
            if isinstance(operation, dict) and operation.get("security"):
                operation["security"] = [scheme for scheme in operation["security"] if scheme]
    for name, response in fitting["components"]["responses"].items():
        if "bad_request" in name:
            # What the server's parser refuses, such as a request line of more than 8 KiB, never reaches what writes problems.
            response["content"]["text/plain"] = {"schema": {"type": "string"}}
    fitting.pop("webhooks")
    text = json.dumps(fitting).replace("https://example.org/", _NOWHERE)
    whole: dict[str, Any] = json.loads(text)
    return whole
