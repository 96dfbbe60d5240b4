"""The tour in `docs/http.md`: its Python runs, its requests are those of the OpenAPI document, its codes exist."""

import asyncio
import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.support.contract import deref, document
from tests.support.data import ROOT
from tests.support.fake_gateway import FakeGateway
from tests.support.images import encode, photograph

GUIDE = (ROOT / "docs" / "http.md").read_text("utf-8")
CURLS = re.findall(r"^curl .*?$", GUIDE, re.MULTILINE)


async def test_its_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    for name in re.findall(r'"(\w+\.jpg)"', code):
        (tmp_path / name).write_bytes(encode(photograph(1, 64, 48), "JPEG"))
    monkeypatch.chdir(tmp_path)
    async with FakeGateway().serving() as gateway:
        await asyncio.to_thread(exec, code.replace("http://127.0.0.1:8080", gateway.url), {})
    assert "completed [('qr', 0.9)]" in capsys.readouterr().out


@pytest.mark.parametrize("curl", CURLS)
def test_its_requests_are_in_the_document(curl: str) -> None:
    (address,) = re.findall(r"\$S(/[^\s\"]*)", curl)
    parts = urlsplit(re.sub(r"(?<=/)(ID|BATCH)(?=[/?]|$)", "{id}", address))
    posts = re.search(r" -F | -d | --data-binary ", curl)
    method = "delete" if "-X DELETE" in curl else "post" if posts else "get"
    path = document()["paths"][parts.path]
    parameters = [deref(one) for one in (*path.get("parameters", []), *path[method].get("parameters", []))]
    assert {name for name, _ in parse_qsl(parts.query)} <= {one["name"] for one in parameters if one["in"] == "query"}
    form = deref(document()["components"]["schemas"]["ImageForm"])["properties"]
    assert set(re.findall(r"-F (\w+)=", curl)) <= set(form)


def test_the_codes_that_it_names_exist() -> None:
    codes = set(document()["components"]["schemas"]["ProblemCode"]["enum"])
    assert set(re.findall(r"`(idempotency_\w+|deleted|expired)`", GUIDE)) <= codes
