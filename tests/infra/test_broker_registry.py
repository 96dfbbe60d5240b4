"""The local registry speaks Confluent's API, as far as this project needs it."""

import json
import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka.schema_registry import (
    Schema,
    SchemaRegistryClient,
    SchemaRegistryError,
    topic_subject_name_strategy,
)
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from schemas import avro_files

pytestmark = pytest.mark.kafka

_STRATEGY = {"subject.name.strategy": topic_subject_name_strategy}


@pytest.fixture
def client(registry_url: str) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient.new_client({"url": registry_url, "timeout": 10}) as client:
        yield client


@pytest.fixture
def topic() -> str:
    return f"t{uuid.uuid4().hex[:10]}.images"


def _schema(*fields: dict[str, object]) -> Schema:
    record = {
        "type": "record",
        "name": "Thing",
        "namespace": "test",
        "fields": [{"name": "id", "type": "string", "default": ""}],
    }
    return Schema(json.dumps({**record, "fields": [*record["fields"], *fields]}), "AVRO")


def test_every_packaged_schema_registers_and_comes_back(client: SchemaRegistryClient, topic: str) -> None:
    for name in avro_files.ORDER:
        schema_id = client.register_schema(f"{topic}.{name}-value", Schema(avro_files.text(name), "AVRO"))
        assert json.loads(client.get_schema(schema_id).schema_str) == json.loads(avro_files.text(name))


def test_an_incompatible_schema_is_refused(client: SchemaRegistryClient, topic: str) -> None:
    subject = f"{topic}-value"
    first = client.register_schema(subject, _schema())
    client.set_compatibility(subject, "FULL_TRANSITIVE")
    wanting = _schema({"name": "size", "type": "long"})  # no default: old records cannot be read
    assert not client.test_compatibility_all_versions(subject, wanting)
    with pytest.raises(SchemaRegistryError):
        client.register_schema(subject, wanting)
    grown = _schema({"name": "size", "type": "long", "default": 0})
    assert client.test_compatibility_all_versions(subject, grown)
    assert client.register_schema(subject, grown) != first


def test_records_go_round_through_confluents_serdes(client: SchemaRegistryClient, topic: str) -> None:
    schema = _schema({"name": "size", "type": "long", "default": 0})
    client.register_schema(f"{topic}-value", schema)
    conf = {**_STRATEGY, "auto.register.schemas": False, "normalize.schemas": True}
    context = SerializationContext(topic, MessageField.VALUE)
    value = AvroSerializer(client, schema.schema_str, conf=conf)({"id": "a", "size": 3}, context)
    reader = AvroDeserializer(client, _schema().schema_str, conf=_STRATEGY)
    assert value is not None
    assert value[0] == 0
    assert reader(value, context) == {"id": "a"}
