"""Models of the registry in a worker on a real Kafka: switched under load without a gap, refused without harm, side by side."""

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from infra.commands.models import command
from infra.settings import Settings
from producers.publisher import Publisher
from schemas.connection import KafkaConnection
from schemas.records import ImageRef, new_image_id
from schemas.topics import Topics
from tests.support.deliveries import eventually
from tests.support.models import write_tiny_yolo
from tests.support.pipeline import Outcomes, await_outcomes, pictures, publish, worker_process

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]
_PAUSE_S = 0.05


class Keeper:
    """Whoever keeps the registry: the commands, as they are typed."""

    def __init__(self, connection: KafkaConnection, topics: Topics, state: Path) -> None:
        given = {"kafka.bootstrap": connection.bootstrap, "kafka.prefix": topics.prefix, "state_dir": str(state)}
        self._settings = Settings().overriding(given)

    def __call__(self, *arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(command, arguments, obj=self._settings)
        assert done.exit_code == code, (done.output, done.exception)
        return done.output

    def states(self, reference: str) -> dict[str, str]:
        """What each worker made of a version, and why."""
        return {one["state"]: one["reason"] for one in json.loads(self("show", reference))["workers"]}


@contextmanager
def trickle(publisher: Publisher, photos: list[Path], refs: list[ImageRef]) -> Iterator[None]:
    """References one after the other as long as the block lasts, noted in `refs`."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(_PAUSE_S):
            uri = photos[len(refs) % len(photos)].as_uri()
            refs.append(ImageRef(id=new_image_id(), uri=uri, key=f"camera-{len(refs) % 4}"))
            publisher.publish(refs[-1]).result(60)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_worker_switches_refuses_and_hosts_several(
    connection: KafkaConnection, topics: Topics, publisher: Publisher, group: str, tmp_path: Path
) -> None:
    photos = pictures(tmp_path / "photos")
    (tmp_path / "files").mkdir()
    model = write_tiny_yolo(tmp_path / "files" / "tiny.onnx")
    keep = Keeper(connection, topics, tmp_path / "keeper")
    keep("add", str(model), "--stable", "--precision", "f32", "--metric", "map=0.37", "--licence", "none")
    settings = {
        "IMAGES_ROOTS": str(tmp_path / "photos"),
        "MODELS_DEFAULT": "tiny",
        "STATE_DIR": str(tmp_path / "state"),
    }
    log, refs = tmp_path / "worker.log", list[ImageRef]()
    with worker_process(connection, topics, group, log, settings) as worker:
        worker.start()
        with trickle(publisher, photos, refs):
            seen = _await_version(connection, topics, "1")
            keep("add", str(model), "--precision", "f32", "--confidence", "0.9")
            keep("promote", "tiny@2")
            seen = _await_version(connection, topics, "2")
            assert seen == {"1", "2"}
            _refuse_a_third(keep, model)
            publish(publisher, [*_asking(photos, refs, "tiny@1", "tiny@2", "tiny@stable", "tiny@9")])
        assert worker.running
        outcomes = await_outcomes(connection, topics, refs)
        assert keep.states("tiny@2").keys() == {"loaded"}
        assert worker.end(signal.SIGTERM) == 0
    _check(outcomes, refs)
    assert keep.states("tiny@2") == {}, "a worker that ended has nothing loaded"


def _refuse_a_third(keep: Keeper, model: Path) -> None:
    """A version whose file is another one by the time that the worker fetches it."""
    third = write_tiny_yolo(model.with_name("third.onnx"))
    keep("add", str(third), "--name", "tiny", "--precision", "f32")
    third.write_bytes(b"nothing that was added")
    assert "NOT RIGHT" in keep("verify", "tiny@3", code=1)
    assert "right" in keep("verify", "tiny@1", "tiny@2")
    keep("promote", "tiny@3")
    eventually(lambda: "refused" in keep.states("tiny@3"), "the worker says that it refuses", timeout_s=90, pause_s=0.5)
    assert "is not the file that was added" in keep.states("tiny@3")["refused"]
    keep("promote", "tiny@2")


def _asking(photos: list[Path], refs: list[ImageRef], *models: str) -> Iterator[ImageRef]:
    for name in models:
        ref = ImageRef(id=f"asks-{name}", uri=photos[0].as_uri(), model=name)
        refs.append(ref)
        yield ref


def _await_version(connection: KafkaConnection, topics: Topics, version: str) -> set[str]:
    """Wait until results are of that version, and say of which there are."""
    seen: set[str] = set()

    def there() -> bool:
        seen.update(result.model_version for result in Outcomes.read(connection, topics).results)
        return version in seen

    eventually(there, f"results of version {version}", timeout_s=120, pause_s=0.5)
    return seen


def _check(outcomes: Outcomes, refs: list[ImageRef]) -> None:
    """One outcome each, none of them late by a retry; who asked for a version got it, the others a switch and no way back."""
    assert outcomes.duplicates() == {}
    (letter,) = outcomes.letters
    assert (letter.image_id, letter.code) == ("asks-tiny@9", "model_unknown")
    by_id = {result.image_id: result for result in outcomes.results}
    asked = {name: by_id[f"asks-{name}"].model_version for name in ("tiny@1", "tiny@2", "tiny@stable")}
    assert asked == {"tiny@1": "1", "tiny@2": "2", "tiny@stable": "2"}
    for camera in range(4):
        served = [by_id[ref.id].model_version for ref in refs if ref.key == f"camera-{camera}"]
        assert served == sorted(served)
    assert {result.source_topic.rpartition(".")[2] for result in outcomes.results} == {"online"}
    one, two = (next(r for r in outcomes.results if r.model_version == version) for version in ("1", "2"))
    assert one.model_digest == two.model_digest
    assert (one.rollout, one.arm, two.rollout, two.arm) == (None,) * 4
