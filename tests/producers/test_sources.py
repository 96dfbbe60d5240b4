"""What a source names, in which order, and that both depend on nothing but the source."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.items import file_uri, is_url
from producers.manifests import read
from producers.sources import directory, items, matching
from schemas.errors import ConfigurationError


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names(root: Path, *arguments: str) -> list[str]:
    return [item.uri.removeprefix(file_uri(root) + "/") for item in items(arguments)]


def test_a_directory_is_read_to_its_leaves_in_code_point_order_whatever_the_order_of_creation(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a/2.PNG", "a/10.webp", "Z.jpeg", "a/.hidden.jpg", ".git/x.jpg", "notes.md", "é.jpg")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "linked.jpg").symlink_to(tmp_path / "b.jpg")
    assert names(tmp_path, str(tmp_path)) == ["Z.jpeg", "a/10.webp", "a/2.PNG", "b.jpg", "linked.jpg", "%C3%A9.jpg"]


def test_a_glob_is_sorted_level_by_level_and_takes_any_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "day2/c.jpg", "day1/b.raw", "day1/a.jpg", "day1/deep/d.jpg", "top.jpg", ".h/e.jpg")
    assert names(tmp_path, f"{tmp_path}/day?/*") == ["day1/a.jpg", "day1/b.raw", "day2/c.jpg"]
    assert names(tmp_path, f"{tmp_path}/**/*.jpg") == [
        "top.jpg",
        "day1/a.jpg",
        "day1/deep/d.jpg",
        "day2/c.jpg",
    ]
    assert [item.uri for item in matching(f"{tmp_path}/[d]ay1/d*/*.jpg")] == [file_uri(tmp_path / "day1/deep/d.jpg")]


def test_a_file_called_like_a_glob_is_that_file(tmp_path: Path) -> None:
    touch(tmp_path, "a[1].jpg", "a1.jpg")
    assert names(tmp_path, f"{tmp_path}/a[1].jpg") == ["a%5B1%5D.jpg"]


def test_paths_become_absolute_percent_encoded_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "ein Bild #1?.jpg")
    monkeypatch.chdir(tmp_path)
    assert [item.uri for item in items(["ein Bild #1?.jpg"])] == [f"file://{tmp_path}/ein%20Bild%20%231%3F.jpg"]
    assert file_uri(os.fsdecode(b"/x/\xff.jpg")) == "file:///x/%FF.jpg"


def test_urls_pass_as_they_are_and_unknown_schemes_are_refused() -> None:
    urls = ["https://h/a.jpg?x=1", "s3://bucket/k", "gs://b/k", "az://c/k", "file:///x.jpg"]
    assert [item.uri for item in items(urls)] == urls
    with pytest.raises(ConfigurationError, match="ftp"):
        list(items(["ftp://h/a.jpg"]))


@pytest.mark.parametrize("text", ["a:b.jpg", "dir/x.jpg", "/s3:/x", "*.jpg"])
def test_paths_are_not_taken_for_urls(text: str) -> None:
    assert not is_url(text)


@pytest.mark.parametrize("argument", ["missing.jpg", "missing/*.jpg", "*.nothing"])
def test_what_names_nothing_is_said(tmp_path: Path, argument: str) -> None:
    with pytest.raises(ConfigurationError, match=r"missing|nothing"):
        list(items([f"{tmp_path}/{argument}"]))


def test_text_manifest(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("\ufeff# shop\n\nsub/a b.jpg\n https://h/c.jpg \r\nhttps://h/c.jpg\n", encoding="utf-8")
    found = list(items([str(path)]))
    assert [item.uri for item in found] == [file_uri(tmp_path / "sub/a b.jpg"), "https://h/c.jpg", "https://h/c.jpg"]
    assert len({item.name for item in found}) == 3


def test_json_and_csv_manifests_say_the_same(tmp_path: Path) -> None:
    digest = "AB" * 32
    (tmp_path / "l.jsonl").write_text(
        f'{{"uri": "s3://b/1", "id": "i1", "key": "cam", "sha256": "{digest}", "attributes": {{"shelf": 7}}}}\n'
        '\n{"uri": "s3://b/2", "shelf": "8", "tenant": "acme", "key": null}\n'
    )
    (tmp_path / "l.csv").write_text(
        f"uri,id,key,sha256,shelf,tenant\ns3://b/1,i1,cam,{digest},7,\ns3://b/2,,,,8,acme\n"
    )
    for name in ("l.jsonl", "l.csv"):
        first, second = items([str(tmp_path / name)])
        assert (first.id, first.key, first.sha256, first.attributes) == ("i1", "cam", digest.lower(), {"shelf": "7"})
        assert (second.id, second.key, second.tenant, second.attributes) == (None, None, "acme", {"shelf": "8"})


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        ("m.jsonl", '{"uri": "s3://b/1"}\n{"uri": 3}\n', "m.jsonl:2: no uri"),
        ("m.jsonl", "[1]\n", "m.jsonl:1: not a JSON object"),
        ("m.jsonl", '{"uri": "s3://b/1"\n', "m.jsonl:1: Expecting"),
        ("m.jsonl", '{"uri": "s3://b/1", "attributes": {"a": []}}\n', "m.jsonl:1: a must be"),
        ("m.jsonl", '{"uri": "s3://b/1", "attributes": 5}\n', "m.jsonl:1: attributes must be"),
        ("m.jsonl", '{"uri": "s3://b/1", "a": "\\ud800"}\n', "m.jsonl:1: 'utf-8'"),
        ("m.jsonl", '{"uri": "s3://b/1", "sha256": "zz"}\n', "m.jsonl:1: sha256"),
        ("m.csv", "url,key\nx,y\n", "no column uri"),
        ("m.csv", "uri,key\nx,y,z\n", "m.csv:2: more fields"),
        ("m.txt", "ftp://x/y\n", "m.txt:1: ftp"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, name: str, text: str, where: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        list(items([str(tmp_path / name)]))
    assert where in str(caught.value)


def test_bytes_that_are_not_text_are_said(tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"m\.txt"):
        list(items([str(tmp_path / "m.txt")]))


def test_an_image_is_no_manifest_and_a_manifest_is_read_line_by_line(tmp_path: Path) -> None:
    assert read(tmp_path / "a.jpg") is None
    (tmp_path / "m.jsonl").write_text('{"uri": "s3://b/1"}\nbroken\n')
    assert next(items([str(tmp_path / "m.jsonl")])).uri == "s3://b/1"


FILES = st.lists(st.text("ab/.", min_size=1, max_size=6).map(lambda name: f"r/{name}x.jpg"), max_size=8)


@given(files=FILES, seed=st.randoms())
def test_order_does_not_depend_on_how_the_files_came_to_be(
    files: list[str], seed: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    safe = [name for name in files if ".." not in name]
    first, second = tmp_path_factory.mktemp("a"), tmp_path_factory.mktemp("b")
    touch(first, "r/x.jpg", *safe)
    touch(second, *reversed(safe), "r/x.jpg")
    one, other = ([item.uri.removeprefix(file_uri(root)) for item in directory(root)] for root in (first, second))
    assert one == other
    assert len(set(one)) == len(one)
