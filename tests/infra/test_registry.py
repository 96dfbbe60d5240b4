"""Ids from a real registry; and what a registry that is down, slow or broken costs: nothing but time."""

import json
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from confluent_kafka.schema_registry import Schema, topic_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from infra.cli import group
from infra.registry import RegistrySchemas, connect, incompatible, subject_of
from infra.sections import RegistrySettings
from infra.settings import load
from infra.wiring import open_codec
from schemas import avro_files
from schemas.codec import FRAME, Codec
from schemas.errors import BusyError, ConfigurationError, Reason, RejectedError
from schemas.records import Detection, DetectionResult, ImageRef
from schemas.topics import Topics
from tests.support.registry import FakeRegistry, fake_registry

REF = ImageRef(id="a", uri="file:///a.jpg", attributes={"site": "north"})
RESULT = DetectionResult(
    id="r", image_id="a", uri="u", detections=(Detection(label="cat", class_id=15, score=0.5, x1=1, y1=2, x2=3, y2=4),)
)
STRATEGY = {"subject.name.strategy": topic_subject_name_strategy}


@pytest.fixture
def own() -> Topics:
    """Names, and so subjects, of this test alone; no topics."""
    return Topics(prefix=f"t{uuid.uuid4().hex[:10]}.")


@pytest.fixture
def registry(registry_url: str) -> RegistrySettings:
    return RegistrySettings(url=registry_url, timeout_s=20)


@pytest.mark.kafka
def test_every_topic_of_the_catalogue_has_its_schema_and_its_guard(registry: RegistrySettings, own: Topics) -> None:
    schemas, client = RegistrySchemas(registry, own), connect(registry)
    for topic in own.catalogue():
        registered = client.get_latest_version(subject_of(topic.name))
        assert registered.schema_id == schemas.id_of(topic.record)
        assert json.loads(registered.schema.schema_str)["name"].rpartition(".")[2] == topic.record
        assert client.get_compatibility(subject_of(topic.name)) == "FULL_TRANSITIVE"
    assert incompatible(registry, own) == []
    client.close()


@pytest.mark.kafka
def test_records_go_round_through_the_registry(registry: RegistrySettings, own: Topics) -> None:
    writer, reader = Codec(RegistrySchemas(registry, own)), Codec(RegistrySchemas(registry, own))
    value = writer.encode(REF)
    assert reader.decode(value, ImageRef) == REF
    run = reader.decode_run([value, writer.encode(RESULT), value], ImageRef)
    assert run.index.tolist() == [0, 2]
    assert writer.encode_run(run.batch, ImageRef) == [value, value]


@pytest.mark.kafka
def test_confluents_serializer_and_ours_read_each_other(registry: RegistrySettings, own: Topics) -> None:
    codec, client = Codec(RegistrySchemas(registry, own)), connect(registry)
    for topic, record in ((own.online, REF), (own.detections, RESULT)):
        kind: Any = type(record)
        text, context = (
            avro_files.text(avro_files.current(kind.__name__)),
            SerializationContext(topic, MessageField.VALUE),
        )
        theirs = AvroDeserializer(client, text, conf=STRATEGY)(codec.encode(record), context)
        conf = {**STRATEGY, "auto.register.schemas": False, "normalize.schemas": True}
        back = AvroSerializer(client, text, conf=conf)(theirs, context)
        assert back == codec.encode(record)
        assert codec.decode(back, kind) == record
    client.close()


@pytest.mark.kafka
def test_two_processes_agree_on_ids(registry: RegistrySettings, own: Topics) -> None:
    code = (
        "import sys; from infra.registry import RegistrySchemas; from infra.sections import RegistrySettings;"
        "from schemas.topics import Topics; s = RegistrySchemas(RegistrySettings(url=sys.argv[1], timeout_s=20), Topics(sys.argv[2]));"
        "print(*(s.id_of(r) for r in ('ImageRef', 'DetectionResult', 'DeadLetter')))"
    )
    command = [sys.executable, "-c", code, str(registry.url), own.prefix]
    root = Path(__file__).parents[2]
    others = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) for _ in range(2)]
    outputs = [other.communicate(timeout=100)[0].split() for other in others]
    mine = RegistrySchemas(registry, own)
    assert outputs == [[str(mine.id_of(r)) for r in ("ImageRef", "DetectionResult", "DeadLetter")]] * 2


@pytest.mark.kafka
def test_an_incompatible_schema_stops_the_start(registry: RegistrySettings, own: Topics) -> None:
    subject, client = subject_of(own.online), connect(registry)
    other = avro_files.parsed(avro_files.current("ImageRef"))
    for field in other["fields"]:
        if field["name"] == "uri":
            field.update(type="long", default=0)
    client.register_schema(subject, Schema(json.dumps(other), "AVRO"))
    client.set_compatibility(subject, "FULL_TRANSITIVE")
    assert incompatible(registry, own) == [f"{subject}: {version}" for version in avro_files.versions("ImageRef")]
    with pytest.raises(ConfigurationError, match="register schemas"):
        RegistrySchemas(registry, own)
    client.close()


@pytest.mark.kafka
def test_an_unknown_id_is_rejected(registry: RegistrySettings, own: Topics) -> None:
    schemas = RegistrySchemas(registry, own, sleep=lambda _: None)
    with pytest.raises(RejectedError) as caught:
        Codec(schemas).decode(FRAME.pack(0, 2**31 - 1) + b"\x00", ImageRef)
    assert caught.value.reason is Reason.SCHEMA_UNKNOWN


@pytest.mark.kafka
def test_the_command_registers_and_checks(registry_url: str, own: Topics) -> None:
    environ = {"SIGHTSTREAM_REGISTRY_URL": registry_url, "SIGHTSTREAM_KAFKA_PREFIX": own.prefix}
    for _ in range(2):
        done = CliRunner().invoke(group, ["schemas", "register"], env=environ)
        assert done.exit_code == 0, done.output
        assert f"{own.prefix}images.online-value: ImageRef" in done.output
    assert CliRunner().invoke(group, ["schemas", "check"], env=environ).exit_code == 0
    settings = load(environ={**environ, "SIGHTSTREAM_REGISTRY_TIMEOUT_S": "20"})
    assert open_codec(settings).decode(open_codec(settings).encode(REF), ImageRef) == REF


@pytest.fixture
async def fake() -> AsyncIterator[FakeRegistry]:
    async with fake_registry() as fake:
        yield fake


def quick(fake: FakeRegistry) -> RegistrySettings:
    return RegistrySettings(url=fake.url, timeout_s=0.3)


async def opened(fake: FakeRegistry) -> RegistrySchemas:
    return await fake.call(RegistrySchemas, quick(fake), Topics(), sleep=fake.slept.append)


@pytest.mark.parametrize("trouble", ["hung", "500", "503", "429", "reset", "nonsense", "list", "empty", "401"])
async def test_a_registry_in_trouble_costs_no_record(fake: FakeRegistry, trouble: str) -> None:
    schemas = await opened(fake)
    codec = Codec(schemas)
    value = codec.encode(REF)
    later = fake.add(avro_files.text(avro_files.current("ImageRef")))
    fake.trouble = trouble
    assert codec.decode(value, ImageRef) == REF
    assert codec.decode_run([value, codec.encode(RESULT)], ImageRef).index.tolist() == [0]
    foreign = FRAME.pack(0, later) + value[5:]
    for read in (lambda: codec.decode(foreign, ImageRef), lambda: codec.decode_run([value, foreign], ImageRef)):
        with pytest.raises(BusyError) as caught:
            await fake.call(read)
        assert caught.value.retry_after_s > 0
    fake.trouble = None
    assert await fake.call(codec.decode, foreign, ImageRef) == REF
    fake.trouble = trouble
    assert codec.decode(foreign, ImageRef) == REF


@pytest.mark.parametrize("trouble", ["hung", "500", "reset", "nonsense"])
async def test_a_start_without_an_answer_may_be_tried_again(fake: FakeRegistry, trouble: str) -> None:
    fake.trouble = trouble
    with pytest.raises(BusyError):
        await opened(fake)


async def test_a_rule_that_another_process_makes_at_the_same_moment_is_as_good(fake: FakeRegistry) -> None:
    fake.raced = True
    codec = Codec(await opened(fake))
    assert codec.decode(codec.encode(REF), ImageRef) == REF


@pytest.mark.parametrize("trouble", ["401", "409", "422"])
async def test_a_start_that_the_registry_refuses_is_for_the_operator(fake: FakeRegistry, trouble: str) -> None:
    fake.trouble = trouble
    with pytest.raises(ConfigurationError, match=trouble):
        await opened(fake)


async def test_nobody_there(fake: FakeRegistry) -> None:
    schemas = await opened(fake)
    await fake.stop()
    with pytest.raises(BusyError):
        await fake.call(schemas.schema_of, 99)


async def test_an_unknown_id_is_asked_for_twice_and_then_remembered(fake: FakeRegistry) -> None:
    schemas = await opened(fake)
    for _ in range(3):
        with pytest.raises(RejectedError):
            await fake.call(schemas.schema_of, 99)
    assert fake.asked["GET /schemas/ids/99"] == 2
    with pytest.raises(RejectedError):
        await fake.call(schemas.schema_of, 98)
    assert len(fake.slept) == 1


async def test_a_follower_that_learns_late(fake: FakeRegistry) -> None:
    schemas = await fake.call(
        RegistrySchemas,
        quick(fake),
        Topics(),
        sleep=lambda _: fake.add(avro_files.text(avro_files.current("ImageRef")), 99),
    )
    assert await fake.call(schemas.schema_of, 99) == avro_files.text(avro_files.current("ImageRef"))


async def test_credentials_are_sent_and_not_shown(fake: FakeRegistry) -> None:
    settings = replace(quick(fake), username="me", password="s3cret")
    await fake.call(RegistrySchemas, settings, Topics())
    assert fake.authorization == {"Basic bWU6czNjcmV0"}
    assert "s3cret" not in repr(settings)


async def test_two_ids_for_one_schema_are_told(fake: FakeRegistry, caplog: pytest.LogCaptureFixture) -> None:
    fake.id_per_subject = True
    await opened(fake)
    assert "two ids" in caplog.text


@pytest.mark.parametrize(
    "settings",
    [
        RegistrySettings(),
        RegistrySettings(url="ftp://registry"),
        RegistrySettings(url="https://registry", ca_location="/nowhere.pem"),
        RegistrySettings(url="http://a:b@registry", username="me", password="x"),
    ],
)
def test_settings_that_cannot_be(settings: RegistrySettings) -> None:
    with pytest.raises(ConfigurationError):
        connect(settings)
