"""How the page's files are served, and what is in them."""

import gzip
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from infra.page.routes import STATIC, add_routes, is_page

FILES = sorted(STATIC.iterdir())
SCRIPTS = [path for path in FILES if path.suffix == ".js"]
NAMESPACE = "http://www.w3.org/2000/svg"


@pytest.fixture
async def server() -> AsyncIterator[TestServer]:
    app = web.Application()
    add_routes(app)
    server = TestServer(app)
    async with server:
        yield server


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(auto_decompress=False, skip_auto_headers={"Accept-Encoding"}) as session:
        yield session


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/page/base.css", "/page/icon.svg"])
async def test_every_file_comes_with_a_strict_policy(
    server: TestServer, session: aiohttp.ClientSession, path: str
) -> None:
    async with session.get(server.make_url(path)) as answer:
        assert answer.status == 200
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "camera=(self)" in answer.headers["Permissions-Policy"]


@pytest.mark.parametrize("accepted", ["gzip", "br, gzip;q=0.5", "identity", "", "gzip;q=0", "gzip;q=0.0"])
async def test_files_are_zipped_for_whom_can_read_that(
    server: TestServer, session: aiohttp.ClientSession, accepted: str
) -> None:
    zipped = accepted in {"gzip", "br, gzip;q=0.5"}
    async with session.get(server.make_url("/page/main.js"), headers={"Accept-Encoding": accepted}) as answer:
        body = await answer.read()
        assert answer.headers.get("Content-Encoding") == ("gzip" if zipped else None)
        assert answer.headers["Vary"] == "Accept-Encoding"
    assert (gzip.decompress(body) if zipped else body) == (STATIC / "main.js").read_bytes()


@pytest.mark.parametrize("accepted", ["gzip", "identity"])
async def test_what_a_browser_has_is_not_sent_again(
    server: TestServer, session: aiohttp.ClientSession, accepted: str
) -> None:
    headers = {"Accept-Encoding": accepted}
    async with session.get(server.make_url("/"), headers=headers) as answer:
        tag = answer.headers["ETag"]
    for known, status in ((tag, 304), (f'"other", W/{tag}', 304), ('"other"', 200)):
        async with session.get(server.make_url("/"), headers={**headers, "If-None-Match": known}) as answer:
            assert answer.status == status
            assert answer.headers["ETag"] == tag
            assert bool(await answer.read()) == (status == 200)


@pytest.mark.parametrize("name", ["none.js", "..%2Froutes.py", "%2e%2e/routes.py", "routes.py", "", "%00"])
async def test_nothing_else_is_served(server: TestServer, session: aiohttp.ClientSession, name: str) -> None:
    async with session.get(server.make_url("/page/").human_repr() + name) as answer:
        assert answer.status == 404


def test_everybody_may_have_the_page_and_nothing_else() -> None:
    assert is_page("/")
    assert is_page("/page/main.js")
    assert not is_page("/v1/images")
    assert not is_page("/pages")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_names_another_host(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace(NAMESPACE, "")
    assert "//" not in re.sub(r"(?m)(^|\s)//.*$", "", text) if path.suffix == ".js" else "//" not in text


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_module_that_is_imported_exists_and_gives_what_is_asked_of_it(path: Path) -> None:
    for names, source in re.findall(r'^import \{([^}]*)\} from "\./([\w.]+)";', path.read_text(), re.MULTILINE):
        text = (STATIC / source).read_text(encoding="utf-8")
        exported = set(re.findall(r"^export (?:async )?(?:const|class|function) (\w+)", text, re.MULTILINE))
        assert {name.strip() for name in names.split(",")} <= exported


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_script_makes_markup_or_code_from_strings(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|localStorage.*key", text
    )


def test_the_document_has_no_script_and_no_style_of_its_own() -> None:
    text = (STATIC / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text)
    for name in re.findall(r'(?:href|src)="/page/([^"]+)"', text):
        assert (STATIC / name).is_file()
    scripts = "".join(path.read_text(encoding="utf-8") for path in SCRIPTS)
    ids = set(re.findall(r'\sid="([\w-]+)"', text))
    assert set(re.findall(r'byId\("([\w-]+)"\)', scripts)) <= ids


def test_scripts_stay_small() -> None:
    assert max(len(path.read_text(encoding="utf-8").splitlines()) for path in SCRIPTS) <= 180
