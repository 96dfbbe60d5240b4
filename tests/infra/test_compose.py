"""docker-compose.kafka.yml and the Dockerfile, as far as they can be checked without Docker."""

import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from infra.settings import load
from tests.support.command_lines import parse

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.kafka.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
TARGETS = {match[1] for match in re.finditer(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE)}


def _command_line(service: dict[str, Any]) -> list[str]:
    return [*service.get("entrypoint", ["sightstream"])[1:], *service["command"]]


def test_the_services_are_those_of_the_pipeline() -> None:
    assert set(SERVICES) == {"kafka", "registry", "topics", "worker", "sink", "store", "gateway", "keys", "publish"}


@pytest.mark.parametrize("name", ["kafka", "registry"])
def test_foreign_images_have_an_exact_version(name: str) -> None:
    assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+", SERVICES[name]["image"])


def test_kafka_and_registry_are_the_versions_that_the_tests_run() -> None:
    lock = (ROOT / "infra/broker/artifacts.lock.json").read_text(encoding="utf-8")
    for image in (SERVICES["kafka"]["image"], SERVICES["registry"]["image"]):
        assert image.rpartition(":")[2] in lock


@pytest.mark.parametrize("name", OURS)
def test_own_images_are_targets_of_the_dockerfile(name: str) -> None:
    assert SERVICES[name]["build"]["target"] in TARGETS


def test_ports_are_on_loopback_only_and_not_twice() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)
    hosts = [port.split(":")[1] for port in ports]
    assert len(hosts) == len(set(hosts))


def test_kafka_tells_clients_the_addresses_at_which_they_reach_it() -> None:
    listeners = SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert f"INTERNAL://{SERVICES['worker']['environment']['SIGHTSTREAM_KAFKA_BOOTSTRAP']}" in listeners
    assert "HOST://127.0.0.1:9092" in listeners
    assert SERVICES["kafka"]["environment"]["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


@pytest.mark.parametrize("name", OURS)
def test_commands_are_commands_of_the_cli(name: str) -> None:
    assert parse(_command_line(SERVICES[name])).callback is not None


@pytest.mark.parametrize("line", ["notifer", "worker --prot 1", "sink parquet --htp"])
def test_a_wrong_command_would_be_noticed(line: str) -> None:
    with pytest.raises(click.UsageError):
        parse(line.split())


@pytest.mark.parametrize("name", OURS)
def test_environment_names_are_settings(name: str) -> None:
    environ = {variable: str(value) for variable, value in SERVICES[name]["environment"].items()}
    assert all(variable.startswith("SIGHTSTREAM_") for variable in environ)
    load(environ=environ).checked_fully()


def test_environment_names_of_the_images_are_settings() -> None:
    environ = dict(re.findall(r"(SIGHTSTREAM_\w+)=(\S+)", DOCKERFILE))
    settings = load(environ=environ).checked_fully()
    assert settings.http.public
    assert settings.http.port == 8080  # what EXPOSE and the health checks mean


def test_the_images_own_commands_are_commands_of_the_cli() -> None:
    commands = [yaml.safe_load(line) for line in re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)]
    assert len(commands) == 4
    for command in commands:
        if command != ["--help"]:
            parse(command)


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"topics", "keys", "publish"}))
def test_services_that_stay_have_a_health_check(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES[name]["restart"] == "unless-stopped"


def test_whoever_is_waited_for_can_be_waited_for() -> None:
    for service in SERVICES.values():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other]
            else:
                assert SERVICES[other]["restart"] == "no"


def test_the_worker_keeps_what_it_measured_of_its_model() -> None:
    assert any(volume.startswith("worker-state:/state") for volume in SERVICES["worker"]["volumes"])


def test_data_is_in_named_volumes() -> None:
    mounts = [volume for service in SERVICES.values() for volume in service.get("volumes", [])]
    named = {mount.split(":")[0] for mount in mounts if not mount.startswith(("$", "."))}
    assert named == set(COMPOSE["volumes"])
    assert all(mount.endswith(":ro") for mount in mounts if mount.startswith("$"))


def test_no_secret_is_in_either_file() -> None:
    text = (ROOT / "docker-compose.kafka.yml").read_text(encoding="utf-8") + DOCKERFILE
    assert not re.search(r"(password|secret|token|api_?key)\w*\s*[:=]", text, re.IGNORECASE)


@pytest.mark.parametrize("name", OURS)
def test_own_containers_have_no_more_rights_than_they_need(name: str) -> None:
    assert SERVICES[name]["read_only"] is True
    assert SERVICES[name]["cap_drop"] == ["ALL"]


def test_the_images_run_as_an_ordinary_user_with_pinned_versions() -> None:
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)
    assert all("--constraint" in line for line in re.findall(r"^RUN .*pip install.*$", DOCKERFILE, re.MULTILINE))


def test_the_dockerfile_copies_what_there_is_and_what_is_not_ignored() -> None:
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignore


def test_the_grace_that_docker_gives_is_longer_than_our_own() -> None:
    for name in ("worker", "sink", "gateway"):
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > load(environ={}).general.grace_s
