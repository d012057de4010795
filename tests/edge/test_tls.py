"""The example of TLS and HTTP/2 in site/tls.conf.example works as it is, but for its names."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from tests.edge.nginx import SOURCE, need_nginx, running_edge
from tests.edge.scripted_gateway import ScriptedGateway
from tests.ports import free_port
from tests.secure_engines import make_authority


async def test_tls_example_serves_both_versions_of_http(tmp_path: Path) -> None:
    need_nginx()
    authority = make_authority(tmp_path / "authority", "give.example.org")
    certificate, key = authority.signed("give.example.org")
    port = free_port()
    lines = (SOURCE / "site" / "tls.conf.example").read_text().splitlines()
    listen = "\n".join(line for line in lines if not line.startswith("listen [::]"))
    for shown, real in (
        ("listen 443", f"listen 127.0.0.1:8080 backlog=128;\nlisten 127.0.0.1:{port}"),
        ("/etc/ssl/ataa/fullchain.pem", str(certificate)),
        ("/etc/ssl/ataa/key.pem", str(key)),
    ):
        assert shown in listen
        listen = listen.replace(shown, real)
    gateway = ScriptedGateway()
    await gateway.start()
    trusted = ssl.create_default_context(cafile=authority.file)
    try:
        async with running_edge(tmp_path / "edge", gateway.port, site={"listen.conf": listen}):
            for protocol in ("h2", "http/1.1"):
                trusted.set_alpn_protocols([protocol])
                reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusted)
                assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == protocol
                if protocol == "http/1.1":
                    writer.write(b"GET /v1/pledges/plg_1 HTTP/1.1\r\nHost: give.example.org\r\n\r\n")
                    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
                writer.close()
    finally:
        await gateway.stop()
    assert gateway.seen[0].headers["x-forwarded-proto"] == "https"
    assert gateway.seen[0].headers["host"] == "give.example.org"
