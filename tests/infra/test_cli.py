"""The command line: instant help, every command there, errors as one line."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from infra.cli import COMMANDS, group
from infra.setting_values import names_of
from infra.settings import SECTIONS, section_type
from schemas.connection import SECURITY_NAMES

HEAVY = (
    "torch",
    "faust",
    "aiokafka",
    "pyarrow",
    "numpy",
    "confluent_kafka",
    "openvino",
    "cv2",
    "aiohttp",
    "ultralytics",
)


def _imports_of(*arguments: str) -> set[str]:
    """Top-level modules that a run of the command loads."""
    code = (
        "import sys\nfrom infra.cli import group\n"
        f"try:\n    group({list(arguments)!r})\nfinally:\n    print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return {name.partition(".")[0] for name in done.stderr.split()}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    assert not _imports_of(*arguments) & set(HEAVY)


def test_help_costs_little_more_than_starting_python() -> None:
    def median_s(*command: str) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run([sys.executable, *command], capture_output=True, check=True)
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    assert median_s("-m", "infra.cli", "--help") < 20 * median_s("-c", "pass")


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_is_there_and_explains_itself(name: str) -> None:
    result = CliRunner().invoke(group, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert isinstance(group.get_command(click.Context(group), name), click.Command)


def test_an_unknown_command_is_an_error() -> None:
    assert CliRunner().invoke(group, ["wrok"]).exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [["worker"], ["sink", "parquet"], ["notifier"], ["up", "--model", "fake"], ["demo", "--model", "fake"]],
    ids=lambda arguments: arguments[0],
)
def test_a_service_refuses_a_misspelt_setting_of_any_part(arguments: list[str]) -> None:
    environ = {"SIGHTSTREAM_IMAGES_MAX_BITES": "1", "SIGHTSTREAM_KAFKA_BOOTSTRAP": "127.0.0.1:1"}
    result = CliRunner().invoke(group, arguments, env=environ)
    assert result.exit_code == 2
    assert "did you mean 'IMAGES_MAX_BYTES'" in result.stderr


def test_what_the_user_can_mend_is_one_line_on_stderr_and_exit_code_2(tmp_path: Path) -> None:
    result = CliRunner().invoke(group, ["--set", "kafka.bootstrp=x", "settings"])
    assert result.exit_code == 2
    assert (
        result.stderr
        == "sightstream: command line: there is no setting 'kafka.bootstrp'; did you mean 'kafka.bootstrap'?\n"
    )


def test_settings_shows_every_name_that_there_is() -> None:
    shown = {line.partition(" = ")[0] for line in CliRunner().invoke(group, ["settings"]).stdout.splitlines()}
    names = {name for section in ("", *SECTIONS) for name in names_of(section, section_type(section))}
    security = {f"kafka.security.{key}" for key in SECURITY_NAMES}  # shown once they are given
    assert names - security == shown


def test_settings_shows_values_and_hides_secrets() -> None:
    result = CliRunner().invoke(group, ["settings"], env={"SIGHTSTREAM_KAFKA_SASL_PASSWORD": "hush"})
    assert result.exit_code == 0, result.output
    assert "kafka.security.sasl.password = (not shown)" in result.stdout
    assert "http.port = 8080" in result.stdout
    assert "hush" not in result.output
