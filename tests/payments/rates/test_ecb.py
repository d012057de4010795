"""Reading lists of rates in the ECB's format: from files and URLs, without trusting either."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from services.payments.rates import ecb
from services.payments.rates.ecb import MAX_BYTES, UnreadableRates, parse_list, read_list

LIST = b"""<?xml version="1.0" encoding="UTF-8"?>
<gesmes:Envelope xmlns:gesmes="http://www.gesmes.org/xml/2002-08-01"
 xmlns="http://www.ecb.int/vocabulary/2002-08-01/eurofxref">
<gesmes:subject>Reference rates</gesmes:subject>
<gesmes:Sender><gesmes:name>European Central Bank</gesmes:name></gesmes:Sender>
<Cube><Cube time='2030-01-07'><Cube currency='USD' rate='1.1000'/><Cube currency='JPY' rate='170.25'/>
<Cube currency='XQQ' rate='4'/></Cube><Cube time='2030-01-06'><Cube currency='USD' rate='9'/></Cube></Cube>
</gesmes:Envelope>"""

BOMB = b"""<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "1"><!ENTITY b "&a;&a;&a;&a;">]>
<x><Cube><Cube time='2030-01-07'><Cube currency='USD' rate='&b;'/></Cube></Cube></x>"""
FILE = b"""<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>
<x><Cube time='2030-01-07'><Cube currency='USD' rate='1'/></Cube>&a;</x>"""


def cubes(inner: str) -> bytes:
    return f"<x><Cube><Cube time='2030-01-07'>{inner}</Cube></Cube></x>".encode()


def test_the_newest_day_of_known_currencies_is_read() -> None:
    found = parse_list(LIST)
    assert found.rates == {"USD": "1.1000", "JPY": "170.25"}
    assert found.as_of == datetime(2030, 1, 7, 12, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    "document",
    [
        BOMB, BOMB.decode().encode("utf-16"), FILE, b"", b"{}", b"<x/>", LIST[:-5], b" " * (MAX_BYTES + 1),
        cubes("<Cube currency='USD' rate='-1'/>"), cubes("<Cube currency='USD' rate='1e9'/>"),
        cubes("<Cube currency='USD'/>"),
        cubes("<Cube currency='USD' rate='1'/><Cube currency='USD' rate='2'/>"),
        b"<?xml version='1.0' encoding='shift_jis'?>" + FILE, b"<?xml version='1.0' encoding='none'?><x/>",
        cubes(""), b"<x><Cube currency='USD' rate='1'/></x>",
        b"<x><Cube time='yesterday'><Cube currency='USD' rate='1'/></Cube></x>",
    ],
)  # fmt: skip
def test_what_is_no_list_is_refused_whole(document: bytes) -> None:
    with pytest.raises(UnreadableRates):
        parse_list(document)


async def test_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "eurofxref.xml"
    with pytest.raises(UnreadableRates, match="No such file"):
        await read_list(str(file))
    file.write_bytes(LIST)
    assert (await read_list(str(file))).rates["USD"] == "1.1000"


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async def endless(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        try:
            while True:
                await answer.write(b" " * 65_536)
        except ConnectionError:
            return answer

    async def never(_request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async def listed(_request: web.Request) -> web.Response:
        return web.Response(body=LIST, content_type="text/xml")

    async def moved(_request: web.Request) -> web.Response:
        raise web.HTTPFound("/list")

    app = web.Application()
    app.add_routes(
        [
            web.get("/list", listed), web.get("/endless", endless), web.get("/never", never),
            web.get("/moved", moved),
        ]
    )  # fmt: skip
    server = TestServer(app)
    await server.start_server()
    yield str(server.make_url("")).rstrip("/")
    await server.close()


async def test_a_url_is_read(url: str) -> None:
    assert (await read_list(f"{url}/list")).rates["JPY"] == "170.25"


@pytest.mark.parametrize("path", ["/endless", "/never", "/moved", "/missing"])
async def test_a_server_that_misbehaves_gives_no_rates(
    url: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ecb, "TIMEOUT_S", 0.5)
    with pytest.raises(UnreadableRates):
        await read_list(url + path)


async def test_an_unreachable_server_gives_no_rates() -> None:
    with pytest.raises(UnreadableRates):
        await read_list("http://127.0.0.1:1/list")
