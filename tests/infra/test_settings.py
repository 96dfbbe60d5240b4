"""Settings: precedence, types, names, secrets."""

from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest

from detectors.policy import FetchTimeouts, ImagePolicy
from infra.settings import SECTIONS, Settings, load
from schemas import failpoints
from schemas.connection import SECURITY_NAMES
from schemas.errors import ConfigurationError


def _toml(directory: Path, text: str) -> Path:
    file = directory / "sightstream.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_defaults_stand_without_a_file_or_an_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load(environ={})
    assert settings.kafka.bootstrap == "127.0.0.1:9092"
    assert settings.state_dir == Path("var")
    assert settings.images == ImagePolicy()


def test_command_line_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    file = _toml(tmp_path, '[kafka]\nbootstrap = "file:1"\nprefix = "file."\ngroup = "file"')
    environ = {"SIGHTSTREAM_KAFKA_PREFIX": "env.", "SIGHTSTREAM_KAFKA_GROUP": "env"}
    kafka = load(file, {"kafka.group": "cli"}, environ).kafka
    assert (kafka.bootstrap, kafka.prefix, kafka.group, kafka.partitions) == ("file:1", "env.", "cli", 4)


def test_the_file_is_the_one_given_else_that_of_the_environment_else_the_one_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _toml(tmp_path, 'git_sha = "here"')
    other = tmp_path / "other.toml"
    other.write_text('git_sha = "other"')
    given = tmp_path / "given.toml"
    given.write_text('git_sha = "given"')
    environ = {"SIGHTSTREAM_CONFIG": str(other)}
    assert load(environ={}).general.git_sha == "here"
    assert load(environ=environ).general.git_sha == "other"
    assert load(given, environ=environ).general.git_sha == "given"


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("SIGHTSTREAM_IMAGES_ROOTS", "/a,/b", (Path("/a"), Path("/b"))),
        ("SIGHTSTREAM_IMAGES_ROOTS", '["/a,b"]', (Path("/a,b"),)),
        ("SIGHTSTREAM_IMAGES_PORTS", "80, 8080", frozenset({80, 8080})),
        ("SIGHTSTREAM_IMAGES_EXTRA_NETWORKS", "10.0.0.0/8", (ip_network("10.0.0.0/8"),)),
        ("SIGHTSTREAM_IMAGES_MAX_BYTES", "1000", 1000),
    ],
)
def test_the_environment_gives_typed_values(variable: str, value: str, expected: object) -> None:
    images = load(environ={variable: value}).images
    assert getattr(images, variable.removeprefix("SIGHTSTREAM_IMAGES_").lower()) == expected


def test_a_nested_policy_keeps_its_other_defaults() -> None:
    images = load(environ={"SIGHTSTREAM_IMAGES_TIMEOUTS_TOTAL_S": "3"}).images
    assert images.timeouts == FetchTimeouts(total_s=3.0)


def test_a_table_of_free_keys_comes_through(tmp_path: Path) -> None:
    file = _toml(tmp_path, '[images.stores."s3://shop.eu"]\nendpoint = "http://127.0.0.1:9000"\nregion = "eu"')
    stores = load(file, environ={}).images.stores
    assert stores == {"s3://shop.eu": {"endpoint": "http://127.0.0.1:9000", "region": "eu"}}


@pytest.mark.parametrize("text", ['[kafka.security]\n"sasl.username" = "w"', '[kafka]\nsecurity.sasl.username = "w"'])
def test_kafka_security_in_the_file_under_librdkafkas_names(tmp_path: Path, text: str) -> None:
    assert load(_toml(tmp_path, text), environ={}).connection.security == {"sasl.username": "w"}


@pytest.mark.parametrize("name", SECURITY_NAMES)
def test_kafka_security_in_the_environment(name: str) -> None:
    variable = f"SIGHTSTREAM_KAFKA_{name.upper().replace('.', '_')}"
    assert load(environ={variable: "x"}).connection.librdkafka()[name] == "x"


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"SIGHTSTREAM_KAFKA_BOOTSTRP": "x"}, "did you mean 'KAFKA_BOOTSTRAP'"),
        ({"SIGHTSTREAM_KAFAK_BOOTSTRAP": "x"}, "did you mean 'KAFKA_BOOTSTRAP'"),
        ({"SIGHTSTREAM_KAFKA_SASL_PASSWRD": "x"}, "did you mean 'KAFKA_SASL_PASSWORD'"),
        ({"SIGHTSTREAM_KAFKA_PARTITIONS": "many"}, "kafka.partitions must be a whole number"),
        ({"SIGHTSTREAM_HTTP_PUBLIC": "perhaps"}, "http.public must be true or false"),
        ({"SIGHTSTREAM_LOG_LEVEL": "loud"}, "log.level must be"),
    ],
)
def test_unknown_names_and_wrong_values_are_errors_that_help(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load(environ=environ)


@pytest.mark.parametrize("name", ["kafka.bootstrp", "kafkabootstrap", "kafka.security.sasl.pasword", "images"])
def test_unknown_names_in_a_file_or_on_the_command_line_are_errors(name: str) -> None:
    with pytest.raises(ConfigurationError, match="there is no setting"):
        load(overrides={name: "x"}, environ={})


def test_a_parts_own_names_are_checked_when_the_part_is_asked_for() -> None:
    settings = load(environ={"SIGHTSTREAM_IMAGES_MAX_BITES": "1"})
    with pytest.raises(ConfigurationError, match="did you mean 'IMAGES_MAX_BYTES'"):
        _ = settings.images
    with pytest.raises(ConfigurationError, match="IMAGES_MAX_BITES"):
        settings.checked_fully()


def test_every_section_has_defaults_that_hold() -> None:
    settings = Settings()
    for section in SECTIONS:
        assert settings.section(section) is not None


def test_secrets_are_in_no_repr_and_no_message(tmp_path: Path) -> None:
    settings = load(environ={"SIGHTSTREAM_KAFKA_SASL_PASSWORD": "hush"})
    assert "hush" not in f"{settings!r}{settings.kafka!r}{settings.connection!r}{settings._given!r}"
    with pytest.raises(ConfigurationError) as caught:
        load(_toml(tmp_path, '[kafka.security]\n"sasl.password" = ["hush"]'), environ={})
    assert "hush" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_missing_and_a_broken_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read the settings file"):
        load(tmp_path / "none.toml", environ={})
    with pytest.raises(ConfigurationError, match="is not TOML"):
        load(_toml(tmp_path, "kafka ="), environ={})


def test_the_model_is_the_one_that_comes_with_it_until_another_is_named() -> None:
    assert Settings().model.path == "codes"
    with pytest.raises(ConfigurationError, match=r"model\.path is empty.*SIGHTSTREAM_MODEL_PATH"):
        _ = load(environ={"SIGHTSTREAM_MODEL_PATH": ""}).model
    assert load(environ={"SIGHTSTREAM_MODEL_PATH": "m.onnx"}).model.path == "m.onnx"


def test_overriding_wins_and_none_changes_nothing() -> None:
    settings = load(environ={"SIGHTSTREAM_KAFKA_GROUP": "a"}).overriding({"kafka.group": None, "kafka.prefix": "p."})
    assert (settings.kafka.group, settings.topics.online) == ("a", "p.images.online")


def test_a_default_of_a_command_gives_way_to_whatever_was_said(tmp_path: Path) -> None:
    file = _toml(tmp_path, "[http]\nport = 1234")
    assert load(file, environ={}).defaulting({"http.port": 8090}).http.port == 1234
    assert Settings().defaulting({"http.port": 8090}).http.port == 8090


def test_group_and_instance_id_are_said_once() -> None:
    for name in ("worker.group", "worker.instance_id", "tail.group"):
        with pytest.raises(ConfigurationError, match="there is no setting"):
            load(overrides={name: "x"}, environ={}).checked_fully()


def test_a_failpoint_is_armed_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from infra.settings import arm_failpoint

    armed: list[tuple[str, int]] = []
    monkeypatch.setattr(failpoints, "arm", lambda name, nth: armed.append((name, nth)))
    arm_failpoint(load(environ={"SIGHTSTREAM_FAILPOINT": "parquet.claimed:3"}))
    arm_failpoint(load(environ={}))
    assert armed == [("parquet.claimed", 3)]


def test_seconds_become_time_spans() -> None:
    from infra.setting_values import _CONVERTER

    assert _CONVERTER.structure("1.5", timedelta) == timedelta(seconds=1.5)
