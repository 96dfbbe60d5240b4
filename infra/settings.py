"""Every setting of the project, and the only place that reads the environment or a TOML file.

Later wins: defaults < the file (`--config`, else `SIGHTSTREAM_CONFIG`, else `./sightstream.toml` if it is there) < the environment
(`SIGHTSTREAM_SECTION_NAME`) < the command line. An unknown name is an error. A section that belongs to a part is the part's own policy
class, imported and checked when it is first asked for (reading the Kafka settings does not load an image decoder); services check all of
them before they start.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from detectors.spec import ModelSpec
from infra.sections import ClientSettings, GeneralSettings, HttpSettings, KafkaSettings, LogSettings, RegistrySettings
from infra.setting_values import Given, environment_name, names_of, structure, unknown
from schemas import failpoints
from schemas.connection import KafkaConnection
from schemas.errors import ConfigurationError
from schemas.topics import Topics

if TYPE_CHECKING:
    from detectors.cache_policy import CachePolicy
    from detectors.hosting_policy import ModelsPolicy
    from detectors.policy import ImagePolicy
    from infra.http.policies import IdentityPolicy, LimitPolicy
    from producers.gateway_policy import GatewayPolicy
    from producers.publisher import PublisherPolicy
    from producers.upload_policy import UploadPolicy
    from sinks.drift_policy import DriftPolicy
    from sinks.notifier import NotifierPolicy
    from sinks.parquet_policy import ParquetPolicy
    from sinks.results_policy import ResultsPolicy
    from sinks.store_policy import StorePolicy
    from sinks.webhook_policy import WebhookPolicy
    from streams.app import WorkerPolicy
    from streams.judge_policy import JudgePolicy
    from streams.replay_policy import ReplayPolicy
    from streams.sizing import Batching
    from streams.tail import TailPolicy

PREFIX = "SIGHTSTREAM_"
DEFAULT_FILE = Path("sightstream.toml")
SECRET_NAMES = (
    "password",
    "secret",
    "token",
    "credential",
    "access_key",
    "account_key",
    "sas_key",
    "redis_url",
    "database_url",
)

Section = TypeVar("Section")


_LIGHT: dict[str, type] = {
    "kafka": KafkaSettings,
    "registry": RegistrySettings,
    "model": ModelSpec,
    "http": HttpSettings,
    "client": ClientSettings,
    "log": LogSettings,
}
_POLICIES: dict[str, tuple[str, str]] = {
    "publisher": ("producers.publisher", "PublisherPolicy"),
    "gateway": ("producers.gateway_policy", "GatewayPolicy"),
    "uploads": ("producers.upload_policy", "UploadPolicy"),
    "images": ("detectors.policy", "ImagePolicy"),
    "cache": ("detectors.cache_policy", "CachePolicy"),
    "models": ("detectors.hosting_policy", "ModelsPolicy"),
    "batching": ("streams.sizing", "Batching"),
    "parquet": ("sinks.parquet_policy", "ParquetPolicy"),
    "store": ("sinks.store_policy", "StorePolicy"),
    "results": ("sinks.results_policy", "ResultsPolicy"),
    "notifier": ("sinks.notifier", "NotifierPolicy"),
    "tail": ("streams.tail", "TailPolicy"),
    "worker": ("streams.app", "WorkerPolicy"),
    "identity": ("infra.http.policies", "IdentityPolicy"),
    "limits": ("infra.http.policies", "LimitPolicy"),
    "webhooks": ("sinks.webhook_policy", "WebhookPolicy"),
    "replay": ("streams.replay_policy", "ReplayPolicy"),
    "drift": ("sinks.drift_policy", "DriftPolicy"),
    "judge": ("streams.judge_policy", "JudgePolicy"),
}
SECTIONS: tuple[str, ...] = (*_LIGHT, *_POLICIES)


@dataclass(frozen=True, slots=True)
class Settings:
    """What was given, over the defaults. Each section is a frozen dataclass; `Settings()` is the defaults alone."""

    _given: tuple[Given, ...] = field(default=(), repr=False)

    @property
    def general(self) -> GeneralSettings:
        """Names without a section."""
        return self._section("", GeneralSettings)

    @property
    def state_dir(self) -> Path:
        """Folder of local state: brokers' data, Parquet files of the demo."""
        return self.general.state_dir

    @property
    def kafka(self) -> KafkaSettings:
        """Section `kafka`."""
        return self._section("kafka", KafkaSettings)

    @property
    def connection(self) -> KafkaConnection:
        """How to reach the brokers, for any client."""
        return KafkaConnection(bootstrap=self.kafka.bootstrap, security=self.kafka.security)

    @property
    def topics(self) -> Topics:
        """The topics' names under `kafka.prefix`."""
        return Topics(self.kafka.prefix)

    @property
    def registry(self) -> RegistrySettings:
        """Section `registry`."""
        return self._section("registry", RegistrySettings)

    @property
    def model(self) -> ModelSpec:
        """Section `model`. Raises ConfigurationError where `model.path` is set to nothing."""
        spec: ModelSpec = self.section("model")
        if not spec.path:
            raise ConfigurationError(
                "model.path is empty: set it (environment SIGHTSTREAM_MODEL_PATH) to a model's file, or to codes"
            )
        return spec

    @property
    def http(self) -> HttpSettings:
        """Section `http`."""
        return self._section("http", HttpSettings)

    @property
    def client(self) -> ClientSettings:
        """Section `client`."""
        return self._section("client", ClientSettings)

    @property
    def log(self) -> LogSettings:
        """Section `log`."""
        return self._section("log", LogSettings)

    @property
    def publisher(self) -> "PublisherPolicy":
        """Section `publisher`."""
        from producers.publisher import PublisherPolicy

        return self._section("publisher", PublisherPolicy)

    @property
    def gateway(self) -> "GatewayPolicy":
        """Section `gateway`."""
        from producers.gateway_policy import GatewayPolicy

        return self._section("gateway", GatewayPolicy)

    @property
    def uploads(self) -> "UploadPolicy":
        """Section `uploads`."""
        from producers.upload_policy import UploadPolicy

        return self._section("uploads", UploadPolicy)

    @property
    def images(self) -> "ImagePolicy":
        """Section `images`."""
        from detectors.policy import ImagePolicy

        return self._section("images", ImagePolicy)

    @property
    def cache(self) -> "CachePolicy":
        """Section `cache`."""
        from detectors.cache_policy import CachePolicy

        return self._section("cache", CachePolicy)

    @property
    def models(self) -> "ModelsPolicy":
        """Section `models`."""
        from detectors.hosting_policy import ModelsPolicy

        return self._section("models", ModelsPolicy)

    @property
    def batching(self) -> "Batching":
        """Section `batching`."""
        from streams.sizing import Batching

        return self._section("batching", Batching)

    @property
    def parquet(self) -> "ParquetPolicy":
        """Section `parquet`."""
        from sinks.parquet_policy import ParquetPolicy

        return self._section("parquet", ParquetPolicy)

    @property
    def store(self) -> "StorePolicy":
        """Section `store`."""
        from sinks.store_policy import StorePolicy

        return self._section("store", StorePolicy)

    @property
    def results(self) -> "ResultsPolicy":
        """Section `results`."""
        from sinks.results_policy import ResultsPolicy

        return self._section("results", ResultsPolicy)

    @property
    def notifier(self) -> "NotifierPolicy":
        """Section `notifier`."""
        from sinks.notifier import NotifierPolicy

        return self._section("notifier", NotifierPolicy)

    @property
    def tail(self) -> "TailPolicy":
        """Section `tail`."""
        from streams.tail import TailPolicy

        return self._section("tail", TailPolicy)

    @property
    def worker(self) -> "WorkerPolicy":
        """Section `worker`."""
        from streams.app import WorkerPolicy

        return self._section("worker", WorkerPolicy)

    @property
    def identity(self) -> "IdentityPolicy":
        """Section `identity`."""
        from infra.http.policies import IdentityPolicy

        return self._section("identity", IdentityPolicy)

    @property
    def limits(self) -> "LimitPolicy":
        """Section `limits`."""
        from infra.http.policies import LimitPolicy

        return self._section("limits", LimitPolicy)

    @property
    def webhooks(self) -> "WebhookPolicy":
        """Section `webhooks`."""
        from sinks.webhook_policy import WebhookPolicy

        return self._section("webhooks", WebhookPolicy)

    @property
    def replay(self) -> "ReplayPolicy":
        """Section `replay`."""
        from streams.replay_policy import ReplayPolicy

        return self._section("replay", ReplayPolicy)

    @property
    def judge(self) -> "JudgePolicy":
        """Section `judge`."""
        from streams.judge_policy import JudgePolicy

        return self._section("judge", JudgePolicy)

    @property
    def drift(self) -> "DriftPolicy":
        """Section `drift`."""
        from sinks.drift_policy import DriftPolicy

        return self._section("drift", DriftPolicy)

    def section(self, section: str) -> Any:
        """A section by name, '' for the names without one. Raises ConfigurationError."""
        return self._section(section, section_type(section))

    def overriding(self, values: Mapping[str, Any], origin: str = "command line") -> Self:
        """These settings with others on top: `{"kafka.bootstrap": "127.0.0.1:9092"}`; None leaves a setting as it is."""
        added = tuple(
            Given(tuple(name.split(".")), value, origin) for name, value in values.items() if value is not None
        )
        return replace(self, _given=(*self._given, *added)).checked()

    def defaulting(self, values: Mapping[str, Any], origin: str = "default") -> Self:
        """These settings with other defaults: whatever anybody gave wins over `values`."""
        base = tuple(Given(tuple(name.split(".")), value, origin) for name, value in values.items())
        return replace(self, _given=(*base, *self._given)).checked()

    def checked(self) -> Self:
        """These settings, once every name belongs to some section and the light sections are sound. Raises ConfigurationError."""
        for entry in self._given:
            if _section_of(entry) is None:
                raise unknown(entry, _names_known(environment=entry.environment))
        for section in ("", *_LIGHT):
            self.section(section)
        return self

    def checked_fully(self) -> Self:
        """Like `checked`, and the parts' sections too, which imports the parts. Services do this before they take work."""
        for section in _POLICIES:
            self.section(section)
        return self.checked()

    def _section(self, section: str, kind: type[Section]) -> Section:
        return structure(section, kind, [entry for entry in self._given if _section_of(entry) == section])


def load(
    config: Path | None = None, overrides: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """The settings of this process. Raises ConfigurationError for a file that cannot be read, an unknown name or a wrong value."""
    environment = os.environ if environ is None else environ
    file = config or (Path(environment[f"{PREFIX}CONFIG"]) if environment.get(f"{PREFIX}CONFIG") else None)
    if file is None and DEFAULT_FILE.is_file():
        file = DEFAULT_FILE
    given = [*(_from_file(file) if file else ()), *_from_environment(environment)]
    return Settings(tuple(given)).overriding(overrides or {})


def section_type(section: str) -> type:
    """The dataclass behind a section; imports the part that owns it."""
    if not section:
        return GeneralSettings
    if section in _LIGHT:
        return _LIGHT[section]
    module, name = _POLICIES[section]
    kind: type = getattr(import_module(module), name)
    return kind


def is_secret(name: str) -> bool:
    """Whether the value of this setting must never be shown."""
    return any(word in name.lower() for word in SECRET_NAMES)


def arm_failpoint(settings: Settings) -> None:
    """Arm the failpoint that a test asked for, if any."""
    if settings.general.failpoint:
        name, _, nth = settings.general.failpoint.partition(":")
        if nth and not nth.isdigit():
            raise ConfigurationError(f"{PREFIX}FAILPOINT must be NAME or NAME:NTH")
        failpoints.arm(name, int(nth or 1))


def _from_file(file: Path) -> Iterator[Given]:
    try:
        with file.open("rb") as stream:
            values = tomllib.load(stream)
    except OSError as error:
        raise ConfigurationError(f"cannot read the settings file {file}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{file} is not TOML: {error}") from error
    yield from (Given(path, value, str(file)) for path, value in _flat(values))


def _flat(values: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, (*above, name))
        else:
            yield (*above, name), value


def _from_environment(environ: Mapping[str, str]) -> Iterator[Given]:
    for name, value in sorted(environ.items()):
        if name.startswith(PREFIX) and name != f"{PREFIX}CONFIG":
            yield Given((name.removeprefix(PREFIX),), value, f"environment variable {name}", environment=True)


def _section_of(entry: Given) -> str | None:
    """The section that a name belongs to ('' for names without one), or None."""
    general = names_of("", GeneralSettings)
    if entry.environment:
        found = [section for section in SECTIONS if entry.name.startswith(f"{section.upper()}_")]
        known = {environment_name(dotted, name) for dotted, name in general.items()}
    else:
        found = [section for section in SECTIONS if entry.name.startswith(f"{section}.")]
        known = set(general)
    return found[0] if found else "" if entry.name in known else None


def _names_known(*, environment: bool) -> dict[str, None]:
    """Names to suggest: those of the light sections, and the first word of the others."""
    known = {
        dotted: name for section in ("", *_LIGHT) for dotted, name in names_of(section, section_type(section)).items()
    }
    names = [environment_name(dotted, name) if environment else dotted for dotted, name in known.items()]
    return dict.fromkeys([*names, *(f"{section.upper()}_" if environment else f"{section}." for section in _POLICIES)])
