"""How items become references: ids that repeat, keys by rule, what a batch shares."""

from datetime import UTC, datetime, timedelta

import pytest

from producers.items import Item
from producers.references import Batch, image_id, key_rule, references
from schemas.errors import ConfigurationError
from schemas.records import DetectParameters, Lane

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ITEM = Item(uri="file:///shop/cam%207/a.jpg", name="file:///shop/cam%207/a.jpg", attributes={"shelf": "7"})


def test_the_same_item_of_the_same_batch_has_the_same_id_for_ever() -> None:
    assert image_id("b1", ITEM) == image_id("b1", ITEM) == "1d20c144a1cb51a9bb3102f5b5d58b92"
    assert image_id("b2", ITEM) != image_id("b1", ITEM)
    assert image_id("b1", Item(uri=ITEM.uri, name="other")) != image_id("b1", ITEM)
    assert image_id("b1", Item(uri=ITEM.uri, name="other", id="mine")) == "mine"


@pytest.mark.parametrize(
    ("rule", "key"),
    [
        ("none", ""),
        ("filename", "a.jpg"),
        ("parent", "cam 7"),
        ("column:shelf", "7"),
        (r"regex:cam (\d+)", "7"),
        (r"regex:cam \d+", "cam 7"),
        (r"regex:dog", ""),
        (r"regex:(dog)?cam", ""),
    ],
)
def test_key_rules(rule: str, key: str) -> None:
    assert key_rule(rule)(ITEM) == key


def test_bad_rules_and_missing_columns_are_said() -> None:
    for text in ("name", "column:", "regex:", "regex:("):
        with pytest.raises(ConfigurationError):
            key_rule(text)
    with pytest.raises(ConfigurationError, match="no column camera"):
        key_rule("column:camera")(ITEM)


def test_a_short_url_has_no_parent() -> None:
    assert key_rule("parent")(Item(uri="s3://b/k", name="")) == ""


def test_a_reference_has_what_the_batch_shares_and_what_the_item_says_wins() -> None:
    own = Item(uri="s3://b/k", name="n", id="i", key="k", tenant="t", sha256="0" * 64, attributes={"a": "own"})
    batch = Batch(
        id="b1",
        lane=Lane.BULK,
        tenant="acme",
        model="shelf",
        parameters=DetectParameters(confidence=0.4),
        attributes={"a": "batch", "b": "batch"},
        deadline=timedelta(minutes=5),
        key_rule=key_rule("filename"),
    )
    first, second = references(iter([own, ITEM]), batch, now=lambda: NOW)
    assert (first.id, first.key, first.tenant, first.sha256) == ("i", "k", "t", "0" * 64)
    assert first.attributes == {"a": "own", "b": "batch"}
    assert (second.key, second.tenant, second.lane, second.batch_id) == ("a.jpg", "acme", Lane.BULK, "b1")
    assert (second.model, second.parameters.confidence) == ("shelf", 0.4)
    assert (second.submitted_at, second.deadline) == (NOW, NOW + timedelta(minutes=5))
