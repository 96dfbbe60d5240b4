"""Requests made from the OpenAPI document, good and bad ones, against a whole system: `make fuzz-api` makes many more."""

from pathlib import Path

import pytest

from schemas.connection import KafkaConnection
from schemas.topics import Topics
from tests.support.fuzzing import fuzz
from tests.support.system import system

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]


def test_every_answer_is_one_that_the_document_promises(
    connection: KafkaConnection, topics: Topics, tmp_path: Path
) -> None:
    with system(connection, topics, tmp_path / "system", {"IDENTITY_MODE": "required"}) as running:
        running.start()
        found = fuzz(running.url, running.create_key("admin"), tmp_path, 2, phases="examples,coverage,fuzzing")
        running.check_running()
    assert found.cases > 200
    assert found.sound, found.report
