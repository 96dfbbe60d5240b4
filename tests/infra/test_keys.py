"""API keys: their text, which of them count, and that every gateway knows soon, on a real Kafka."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import hypothesis
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from infra.commands.keys import command
from infra.key_follower import KeyFollower
from infra.key_ledger import KeyLedger
from infra.key_ring import KeyRing, merged, state_of
from infra.keys import looks_like_key, make_key, parse_key
from infra.settings import Settings
from producers.publisher import Publisher
from schemas.codec import Codec
from schemas.connection import KafkaConnection
from schemas.control import ApiKey, AuditEvent
from schemas.errors import ConfigurationError
from schemas.identity import Principal, Scope
from schemas.topics import Topics
from tests.support.deliveries import eventually
from tests.support.kafka import read_topic

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MOMENTS = st.none() | st.datetimes(timezones=st.just(UTC))


def test_a_key_is_found_by_its_id_and_proved_by_its_secret() -> None:
    made, ring = make_key("acme", ["read", "submit"], "ci", NOW, NOW + HOUR), KeyRing()
    ring.fold(made.record)
    assert looks_like_key(made.text)
    assert ring.verify(made.text, NOW) == Principal(
        tenant="acme",
        subject=made.record.id,
        scopes=frozenset({Scope.READ, Scope.SUBMIT}),
        expires_at=NOW + HOUR,
    )


def test_the_record_does_not_give_the_secret_away() -> None:
    made = make_key("acme", ["read"], "", NOW, None)
    secret = made.text.rsplit("_", 1)[1]
    assert len(secret) == 51
    assert secret[:43] not in str(made.record)
    assert made.record.secret_sha256 not in made.text


def test_no_two_keys_are_alike() -> None:
    assert len({make_key("acme", ["read"], "", NOW, None).text for _ in range(100)}) == 100


@pytest.mark.parametrize("at", [0, 12, 20, 28, 29, 60, 71, 72, 79])
def test_a_mistyped_key_is_known_to_be_none_without_looking_it_up(at: int) -> None:
    text = make_key("acme", ["read"], "", NOW, None).text
    assert len(text) == 80
    assert parse_key(text) is not None
    assert parse_key(f"{text[:at]}{'x' if text[at] != 'x' else 'y'}{text[at + 1 :]}") is None


@hypothesis.settings(max_examples=50)
@given(st.text(max_size=120))
def test_no_text_breaks_it(text: str) -> None:
    assert parse_key(text) is None
    assert KeyRing().verify(f"sightstream_{text}", NOW) is None


@pytest.mark.parametrize(
    "change",
    [
        {"revoked_at": NOW},
        {"revoked_at": NOW + HOUR},  # a clock that is ahead does not delay it
        {"expires_at": NOW},
        {"secret_sha256": ""},
        {"secret_sha256": "0" * 64},
    ],
)
def test_a_key_that_ended_or_is_another_opens_nothing(change: dict[str, object]) -> None:
    made, ring = make_key("acme", ["read"], "", NOW - HOUR, None), KeyRing()
    ring.fold(replace(made.record, **change))  # type: ignore[arg-type]
    assert ring.verify(made.text, NOW) is None


def test_scopes_of_a_later_release_give_nothing() -> None:
    made, ring = make_key("acme", ["read"], "", NOW, None), KeyRing()
    ring.fold(replace(made.record, scopes=("read", "fly")))
    found = ring.verify(made.text, NOW)
    assert found is not None
    assert found.scopes == {Scope.READ}


@pytest.mark.parametrize(
    ("tenant", "scopes", "ends"),
    [("a/b", ["read"], None), ("", ["read"], None), ("a", [], None), ("a", ["fly"], None), ("a", ["read"], NOW)],
)
def test_what_makes_no_sense_is_not_made(tenant: str, scopes: list[str], ends: datetime | None) -> None:
    with pytest.raises(ConfigurationError):
        make_key(tenant, scopes, "", NOW, ends)


@hypothesis.settings(max_examples=50)
@given(st.lists(st.tuples(MOMENTS, MOMENTS), min_size=1, max_size=5))
def test_in_whatever_order_operators_write_the_strictest_end_counts(
    ends: list[tuple[datetime | None, datetime | None]],
) -> None:
    records = [ApiKey(id="k", expires_at=expires, revoked_at=revoked) for expires, revoked in ends]
    known: ApiKey | None = None
    for record in records:
        known = merged(known, record)
    assert known is not None
    assert known.expires_at == min((one for one, _ in ends if one), default=None)
    assert known.revoked_at == min((one for _, one in ends if one), default=None)


def test_connections_that_last_end_with_what_opened_them() -> None:
    made, ring = make_key("acme", ["read"], "", NOW, NOW + HOUR), KeyRing()
    ring.fold(made.record)
    caller = ring.verify(made.text, NOW)
    token = Principal(tenant="acme", subject="someone", scopes=frozenset(), expires_at=NOW + HOUR)
    assert caller is not None
    assert ring.still_allows(caller, NOW)
    assert ring.still_allows(token, NOW)
    assert not ring.still_allows(token, NOW + HOUR)
    ring.fold(replace(made.record, revoked_at=NOW))
    assert not ring.still_allows(caller, NOW)


@contextmanager
def following(connection: KafkaConnection, codec: Codec, topic: str) -> Iterator[KeyFollower]:
    follower, stop = KeyFollower(connection, codec, topic), threading.Event()
    thread = threading.Thread(target=follower.run, args=(stop,))
    thread.start()
    try:
        yield follower
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def ledger(connection: KafkaConnection, publisher: Publisher) -> KeyLedger:
    return KeyLedger(connection, publisher)


@pytest.mark.kafka
def test_every_gateway_knows_a_key_and_its_end_within_a_second(
    connection: KafkaConnection, codec: Codec, topics: Topics, ledger: KeyLedger
) -> None:
    before = ledger.create("acme", ["read"], "", datetime.now(UTC))
    with following(connection, codec, topics.keys) as one, following(connection, codec, topics.keys) as other:
        assert one.complaint() == "has not read the API keys" or one.age_s is not None
        eventually(lambda: one.complaint() is None and other.complaint() is None, "both have read all keys")
        assert one.ring.find(before.record.id) == before.record
        made = ledger.create("acme", ["read"], "", datetime.now(UTC))
        _soon(lambda: all(ring.verify(made.text, datetime.now(UTC)) for ring in (one.ring, other.ring)))
        ledger.revoke(made.record.id, datetime.now(UTC))
        _soon(lambda: not any(ring.verify(made.text, datetime.now(UTC)) for ring in (one.ring, other.ring)))


def _soon(condition: Callable[[], bool]) -> None:
    """Within a second, by the time at which the writer returned; ten where the machine has other things to do."""
    eventually(condition, "the gateways know", timeout_s=10, pause_s=0.005)


@pytest.mark.kafka
def test_a_rotated_key_and_its_successor_both_count_until_the_overlap_is_over(ledger: KeyLedger) -> None:
    now = datetime.now(UTC)
    old = ledger.create("acme", ["read"], "ci", now)
    new, ended = ledger.rotate(old.record.id, now, HOUR, None)
    ring = ledger.read()
    assert (new.record.tenant, new.record.scopes, new.record.name) == ("acme", ("read",), "ci")
    assert new.record.id != old.record.id
    assert ring.verify(old.text, now) is not None
    assert ring.verify(new.text, now) is not None
    assert ended.expires_at == now + HOUR
    assert ring.verify(old.text, now + HOUR) is None
    assert ring.verify(new.text, now + HOUR) is not None
    ledger.revoke(old.record.id, now)
    with pytest.raises(ConfigurationError, match="is revoked"):
        ledger.rotate(old.record.id, now, HOUR, None)


@pytest.mark.kafka
def test_an_unreadable_record_and_a_tombstone_cost_no_other_key(
    connection: KafkaConnection, codec: Codec, topics: Topics, publisher: Publisher, ledger: KeyLedger
) -> None:
    gone = ledger.create("acme", ["read"], "", datetime.now(UTC))
    publisher.send(topics.keys, b"broken", b"not Avro", lambda *_: None)
    publisher.send(topics.keys, gone.record.id.encode(), None, lambda *_: None)
    publisher.flush(30)
    kept = ledger.create("acme", ["read"], "", datetime.now(UTC))
    with following(connection, codec, topics.keys) as follower:
        eventually(lambda: follower.complaint() is None, "all was read")
        assert [key.id for key in follower.ring.all()] == [kept.record.id]


@pytest.mark.kafka
def test_how_old_the_knowledge_is_shows_while_the_brokers_are_away(codec: Codec) -> None:
    with following(KafkaConnection(bootstrap="127.0.0.1:1"), codec, "keys") as follower:
        assert follower.age_s is None
        assert follower.complaint() == "has not read the API keys"


@pytest.mark.kafka
def test_what_another_operator_wrote_meanwhile_is_not_undone(
    connection: KafkaConnection, codec: Codec, topics: Topics, publisher: Publisher, ledger: KeyLedger
) -> None:
    made = ledger.create("acme", ["read"], "", datetime.now(UTC))
    ledger.revoke(made.record.id, datetime.now(UTC))
    # Somebody who had read the key before its revocation writes it back with another end.
    stale = replace(made.record, expires_at=datetime.now(UTC) + HOUR)
    publisher.send(topics.keys, stale.id.encode(), codec.encode(stale), lambda *_: None)
    publisher.flush(30)
    found = ledger.read().find(made.record.id)
    assert found is not None
    assert state_of(found, datetime.now(UTC)) == "revoked"


@pytest.mark.kafka
def test_the_commands_hand_out_list_rotate_and_revoke(
    connection: KafkaConnection, topics: Topics, codec: Codec
) -> None:
    settings = Settings().overriding({"kafka.bootstrap": connection.bootstrap, "kafka.prefix": topics.prefix})

    def run(*arguments: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(command, arguments, obj=settings)
        return done.exit_code, done.stdout, done.stderr

    code, text, said = run("create", "--tenant", "acme", "--scope", "read", "--name", "page", "--expires-in", "90d")
    assert code == 0, said
    parsed = parse_key(text.strip())
    assert parsed is not None
    assert parsed[0] in said
    code, listed, _ = run("list", "--json")
    (fields,) = map(json.loads, listed.splitlines())
    assert (fields["id"], fields["tenant"], fields["state"]) == (parsed[0], "acme", "live")
    assert "secret_sha256" not in listed
    assert text.strip() not in listed
    code, rotated, said = run("rotate", parsed[0], "--overlap", "1h", "--json")
    assert code == 0, said
    assert run("revoke", parsed[0])[0] == 0
    assert [line.split()[0] for line in run("list")[1].splitlines()] == [json.loads(rotated)["id"]]
    assert "revoked" in run("list", "--all")[1]
    assert run("list", "--tenant", "other")[1] == ""
    with pytest.raises(ConfigurationError, match="there is no key nobody"):
        CliRunner().invoke(command, ["revoke", "nobody"], obj=settings, catch_exceptions=False)
    told = [codec.decode(message.value(), AuditEvent) for message in read_topic(connection, topics.audit)]
    successor = json.loads(rotated)["id"]
    assert [(event.action, event.target, event.tenant) for event in told] == [
        ("keys create", parsed[0], "acme"),
        ("keys create", successor, "acme"),
        ("keys rotate", parsed[0], "acme"),
        ("keys revoke", parsed[0], "acme"),
    ]
