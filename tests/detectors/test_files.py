"""Local files: what lies truly under a root is read, and nothing else."""

import errno
import os
import socket
from pathlib import Path

import pytest

from detectors.files import FileReader, map_os_error
from schemas.errors import BusyError, Reason, RejectedError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "sub").mkdir(parents=True)
    (tmp_path / "root" / "sub" / "a photo.jpg").write_bytes(b"photo")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    return tmp_path / "root"


def read(root: Path, uri: str, max_bytes: int = 100) -> bytes:
    return FileReader([root], max_bytes).read(uri)


def refusal(root: Path, uri: str, max_bytes: int = 100) -> Reason:
    with pytest.raises(RejectedError) as caught:
        read(root, uri, max_bytes)
    return caught.value.reason


def test_a_file_under_a_root_is_read(root: Path) -> None:
    assert read(root, (root / "sub" / "a photo.jpg").as_uri()) == b"photo"
    assert read(root, f"file://localhost{root}/sub/a%20photo.jpg") == b"photo"
    assert read(root, f"file:{root}/sub/a photo.jpg") == b"photo"


def test_names_that_are_not_text_are_read(root: Path) -> None:
    (root / os.fsdecode(b"\xff\xfe.jpg")).write_bytes(b"odd")
    assert read(root, f"file://{root}/%ff%fe.jpg") == b"odd"


def test_a_link_within_the_root_is_followed(root: Path) -> None:
    (root / "link").symlink_to("sub")
    assert read(root, (root / "link" / "a photo.jpg").as_uri()) == b"photo"


@pytest.mark.parametrize(
    "tail",
    [
        "/../secret.jpg",
        "/sub/../../secret.jpg",
        "/%2e%2e/secret.jpg",
        "/..%2fsecret.jpg",
        "/a\0b",
        "/a%00b",
        "/a?b",
        "/a#b",
        "",
    ],
)
def test_ways_out_of_the_root_are_refused(root: Path, tail: str) -> None:
    assert refusal(root, f"file://{root}{tail}") is Reason.URI_FORBIDDEN


@pytest.mark.parametrize(
    "uri", ["file:relative.jpg", "file://host/a.jpg", "file:", "file:///etc/passwd", "file:////etc/passwd"]
)
def test_other_places_are_refused(root: Path, uri: str) -> None:
    assert refusal(root, uri) is Reason.URI_FORBIDDEN


def test_links_out_of_the_root_are_refused(root: Path) -> None:
    (root / "file.jpg").symlink_to("../secret.jpg")
    (root / "directory").symlink_to("..")
    assert refusal(root, (root / "file.jpg").as_uri()) is Reason.URI_FORBIDDEN
    assert refusal(root, f"file://{root}/directory/secret.jpg") is Reason.URI_FORBIDDEN


def test_a_root_s_namesake_is_not_the_root(root: Path) -> None:
    (root.parent / "rooted").mkdir()
    (root.parent / "rooted" / "a.jpg").write_bytes(b"a")
    assert refusal(root, f"file://{root.parent}/rooted/a.jpg") is Reason.URI_FORBIDDEN


def test_without_roots_the_message_says_what_to_set(root: Path) -> None:
    with pytest.raises(RejectedError, match="no directory of images is allowed"):
        FileReader([], 100).read((root / "sub" / "a photo.jpg").as_uri())


@pytest.mark.timeout(10)
def test_what_is_no_regular_file_is_refused_without_waiting(root: Path) -> None:
    os.mkfifo(root / "pipe.jpg")
    assert refusal(root, (root / "pipe.jpg").as_uri()) is Reason.URI_FORBIDDEN
    assert refusal(root, (root / "sub").as_uri()) is Reason.URI_FORBIDDEN
    here = Path.cwd()
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(root)
        try:
            listener.bind("socket.jpg")
        finally:
            os.chdir(here)
        assert refusal(root, (root / "socket.jpg").as_uri()) is Reason.URI_FORBIDDEN


def test_missing_files_are_not_found(root: Path) -> None:
    assert refusal(root, (root / "none.jpg").as_uri()) is Reason.IMAGE_NOT_FOUND
    assert refusal(root, (root / "none" / "none.jpg").as_uri()) is Reason.IMAGE_NOT_FOUND
    assert refusal(root, f"file://{root}/{'n' * 300}.jpg") is Reason.IMAGE_NOT_FOUND


def test_the_bound_on_bytes_is_exact(root: Path) -> None:
    uri = (root / "sub" / "a photo.jpg").as_uri()
    assert read(root, uri, 5) == b"photo"
    assert refusal(root, uri, 4) is Reason.IMAGE_TOO_LARGE


def test_every_error_of_the_system_has_a_remedy() -> None:
    permanent = {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ENAMETOOLONG,
        errno.EACCES,
        errno.EPERM,
        errno.ELOOP,
        errno.ENXIO,
        errno.EISDIR,
    }
    for code in errno.errorcode:
        expected = RejectedError if code in permanent else BusyError
        assert type(map_os_error(OSError(code, os.strerror(code)))) is expected
