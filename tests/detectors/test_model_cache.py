"""The model cache keeps what the registry says and nothing else; opening a version refuses what is not fit."""

import hashlib
import json
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest

from detectors import rehearsal
from detectors.curve import LatencyCurve, Paced, PacedDetector
from detectors.hosting import Host
from detectors.hosting_policy import ModelsPolicy
from detectors.model_cache import ModelCache
from detectors.model_files import ModelFiles
from detectors.opening import VersionOpener
from detectors.registry import open_detector
from detectors.spec import ModelSpec, read_model
from schemas.errors import BusyError, ConfigurationError, RejectedError
from schemas.models import FileRef, ModelVersion
from tests.support.models import write_tiny_yolo
from tests.support.s3 import s3_server


def ref(path: Path) -> FileRef:
    content = path.read_bytes()
    return FileRef(uri=path.as_uri(), sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return ModelCache(tmp_path / "cache", ModelFiles({}))


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    (tmp_path / "there").mkdir()
    paths = [tmp_path / "there" / name for name in ("m n.xml", "m n.bin")]
    for path in paths:
        path.write_bytes(path.name.encode() * 1000)
    return paths


def test_files_come_under_their_names_and_stay_when_the_original_goes(cache: ModelCache, files: list[Path]) -> None:
    version = ModelVersion(name="m", version="1", files=tuple(map(ref, files)))
    path = cache.fetch(version)
    assert path.name == "m n.xml"
    assert path.with_suffix(".bin").read_bytes() == files[1].read_bytes()
    for file in files:
        file.unlink()
    assert cache.fetch(version) == path
    assert [one.name for one in path.parent.iterdir() if one.name.startswith(".")] == []


def test_a_file_that_rots_in_the_cache_is_fetched_again(cache: ModelCache, files: list[Path]) -> None:
    version = ModelVersion(name="m", version="1", files=(ref(files[0]),))
    path = cache.fetch(version)
    path.write_bytes(b"rotten")
    assert cache.fetch(version).read_bytes() == files[0].read_bytes()


@pytest.mark.parametrize(
    "change", ["other bytes", "longer", "missing", "no digest", "a directory", "host", "scheme", "hidden"]
)
def test_what_is_not_the_file_that_was_added_is_refused_and_not_kept(
    change: str, cache: ModelCache, files: list[Path], tmp_path: Path
) -> None:
    file = ref(files[0])
    match change:
        case "other bytes":
            files[0].write_bytes(b"x" * file.bytes)
        case "longer":
            files[0].write_bytes(files[0].read_bytes() + b"x")
        case "missing":
            files[0].unlink()
        case "no digest":
            file = replace(file, sha256="")
        case "a directory":
            file = replace(file, uri=tmp_path.as_uri())
        case "host":
            file = replace(file, uri="file://elsewhere/m.xml")
        case "scheme":
            file = replace(file, uri="ftp://elsewhere/m.xml")
        case "hidden":
            file = replace(file, uri="file:///tmp/..")
    with pytest.raises(RejectedError):
        cache.fetch(ModelVersion(name="m", version="1", files=(file,)))
    assert list((tmp_path / "cache").glob("*/*")) == []


def test_files_come_from_web_servers(cache: ModelCache, files: list[Path]) -> None:
    handler = partial(QuietHandler, directory=str(files[0].parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        there = replace(ref(files[0]), uri=f"http://127.0.0.1:{server.server_port}/m%20n.xml")
        gone = replace(there, uri=f"http://127.0.0.1:{server.server_port}/gone.xml", sha256="0" * 64)
        try:
            path = cache.fetch(ModelVersion(name="m", version="1", files=(there,)))
            with pytest.raises(RejectedError, match=r"gone\.xml not found"):
                cache.fetch(ModelVersion(name="m", version="2", files=(gone,)))
        finally:
            server.shutdown()
            thread.join()
    assert path.name == "m n.xml"
    assert path.read_bytes() == files[0].read_bytes()


class QuietHandler(SimpleHTTPRequestHandler):
    """Says nothing on stderr."""

    def log_message(self, *_: object) -> None: ...


def test_a_store_that_does_not_answer_is_tried_again_later(cache: ModelCache) -> None:
    file = FileRef(uri="http://127.0.0.1:1/m.onnx", sha256="0" * 64)
    with pytest.raises(BusyError):
        cache.fetch(ModelVersion(name="m", version="1", files=(file,)))


def test_files_come_from_a_bucket_that_a_setting_names(tmp_path: Path, files: list[Path]) -> None:
    with s3_server() as s3:
        s3.client.create_bucket(Bucket="models")
        refs = [replace(ref(file), uri=f"s3://models/codes/{quote(file.name)}") for file in files]
        for file in files:
            s3.client.put_object(Bucket="models", Key=f"codes/{file.name}", Body=file.read_bytes())
        cache = ModelCache(tmp_path / "cache", ModelFiles({"s3://models": s3.options}))
        path = cache.fetch(ModelVersion(name="m", version="1", files=tuple(refs)))
        assert [path.read_bytes(), path.with_suffix(".bin").read_bytes()] == [file.read_bytes() for file in files]
        gone = replace(refs[0], uri="s3://models/none.xml")
        with pytest.raises(RejectedError):
            cache.fetch(ModelVersion(name="m", version="2", files=(gone,)))
        s3.client.put_object(Bucket="models", Key="codes/m n.xml", Body=b"another")
        with pytest.raises(RejectedError, match="not the file that was added"):
            ModelCache(tmp_path / "other", ModelFiles({"s3://models": s3.options})).fetch(
                ModelVersion(name="m", version="1", files=tuple(refs))
            )


def test_a_bucket_that_no_setting_names_is_not_read(cache: ModelCache) -> None:
    file = FileRef(uri="s3://bucket/m.onnx", sha256="0" * 64)
    with pytest.raises(RejectedError, match=r"images\.stores"):
        cache.fetch(ModelVersion(name="m", version="1", files=(file,)))


@pytest.fixture
def tiny(tmp_path: Path) -> ModelVersion:
    path = write_tiny_yolo(tmp_path / "tiny.onnx")
    digest = read_model(ModelSpec(path=str(path))).digest
    return ModelVersion(name="tiny", version="7", digest=digest, files=(ref(path),), precision="f32", confidence=0.5)


@pytest.fixture
def opener(cache: ModelCache, tmp_path: Path) -> VersionOpener:
    def open_spec(spec: ModelSpec) -> Paced:
        return PacedDetector(open_detector(spec), LatencyCurve(((1, 1.0),)))

    return VersionOpener(cache, ModelSpec(path="", device="CPU"), tmp_path / "learnt", open_spec, largest_input=1280)


def test_a_version_is_opened_as_its_record_says(opener: VersionOpener, tiny: ModelVersion) -> None:
    assert opener.prepare(tiny) > 0
    detector = opener.open(tiny)
    model = detector.model
    assert (model.name, model.version, model.digest, model.precision) == ("tiny", "7", tiny.digest, "f32")
    assert detector.model.advice is not None
    detector.close()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"digest": "sha256:" + "0" * 64}, "its files have the digest"),
        ({"labels": ("zebra",)}, "its labels are not those"),
        ({"backend": "nonsense"}, "unknown"),
    ],
)
def test_a_version_that_is_not_what_its_record_says_is_refused(
    opener: VersionOpener, tiny: ModelVersion, change: dict[str, str], why: str
) -> None:
    wrong = replace(tiny, **change)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=why):
        opener.prepare(wrong)
        opener.open(wrong)


def test_an_input_larger_than_images_are_kept_is_refused(opener: VersionOpener, tiny: ModelVersion) -> None:
    opener.largest_input = 16
    with pytest.raises(ConfigurationError, match=r"models\.largest_input"):
        opener.open(tiny)


def test_beside_a_model_that_works_a_version_is_rehearsed_in_a_process_of_its_own(
    opener: VersionOpener, tiny: ModelVersion
) -> None:
    opener.beside = True
    assert opener.prepare(tiny) > 0
    assert [path.name.split("-")[0] for path in opener.learnt.iterdir()] == ["curve"], "what it measured is kept"
    opener.open(tiny).close()
    garbage = opener.cache.fetch(tiny)
    garbage.write_bytes(b"no model")
    wrong = replace(tiny, digest="", files=(ref(garbage),))
    with pytest.raises(ConfigurationError):
        opener.prepare(wrong)


def test_a_model_that_crashes_does_so_elsewhere() -> None:
    with pytest.raises(ConfigurationError, match=r"ended the process that tried \(-11\): last words"):
        rehearsal._read("", "first\nlast words\n", -11)
    assert rehearsal._read(json.dumps({"memory_bytes": 5}), "", 0) == 5


def test_a_rehearsal_ends_with_the_worker(opener: VersionOpener, tiny: ModelVersion) -> None:
    opener.stop.set()
    with pytest.raises(ConfigurationError, match="not opened in time"):
        rehearsal.rehearse(ModelSpec(path=str(opener.cache.fetch(tiny))), opener.learnt, opener.stop)


def test_stand_ins_need_no_files(opener: VersionOpener) -> None:
    versions = {"f@1": ModelVersion(name="f", version="1", backend="fake")}
    host = Host(versions.get, opener, ModelsPolicy())
    assert host.load("f@1").detector.model.name == "f"
    host.close()
