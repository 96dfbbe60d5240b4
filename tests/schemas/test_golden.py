"""Today's readers read yesterday's records.

`golden/<Record>.v<N>.<case>.bin` is a framed value as that version wrote it (with the packaged ids), `.json` beside it what it must be
read as. They are written once and never changed. With a new version N of a record: append it to `avro_files.ORDER`, make the fields in
`records.py`, and write its files with `python -m tests.schemas.golden_files`, which leaves those that exist alone. Where a version adds
a field, its default appears in what older files are read as: the JSON holds what was written, and the test fills in nothing that it has.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from schemas import avro_files
from schemas.codec import Codec, PackagedSchemas
from schemas.records import DetectionResult, ImageRef
from tests.schemas.golden_files import CASES, FOLDER, plain

CODEC = Codec(PackagedSchemas())
FILES = sorted(FOLDER.glob("*.bin"))


def test_every_version_has_golden_files() -> None:
    assert {file.name.rsplit(".", 2)[0] for file in FILES} == set(avro_files.ORDER)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_record_of_yesterday_is_read_as_it_was_meant(file: Path) -> None:
    kind: Any = CASES[file.name.partition(".")[0]][0]
    expected = json.loads(file.with_suffix(".json").read_text("utf-8"))
    value = file.read_bytes()
    record = CODEC.decode(value, kind)
    read = plain(record)
    assert {name: read[name] for name in expected if name in read} == {n: v for n, v in expected.items() if n in read}
    assert set(expected) & set(read)
    if kind in (ImageRef, DetectionResult):
        run = CODEC.decode_run([value, value], kind)
        assert run.index.tolist() == [0, 1]
        assert CODEC.encode_run(run.batch, kind) == [CODEC.encode(record)] * 2
