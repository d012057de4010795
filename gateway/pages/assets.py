"""Scripts, styles and the logo, read once and served from memory under `/assets/<fingerprint>/`.

The path contains one fingerprint over all files. Modules import each other by relative address, so all files
of a page are of the same version, and browsers may cache them without limit.
"""

import gzip
import hashlib
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.http.conditional import matches, strong_etag
from gateway.http.negotiation import accepts_gzip

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_TYPES: Final = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class Asset:
    """A static file as it is served: both encodings, its type and its validator."""

    body: bytes
    gzipped: bytes
    content_type: str
    etag: str


def _read(folder: Path) -> dict[str, Asset]:
    return {file.name: _asset(file) for file in sorted(folder.iterdir()) if file.suffix in _TYPES}


def _asset(file: Path) -> Asset:
    body = file.read_bytes()
    return Asset(body, gzip.compress(body, mtime=0), _TYPES[file.suffix], strong_etag(body))


_ASSETS: Final = _read(Path(__file__).parent / "static")
_NAMES_AND_TAGS: Final = "".join(name + asset.etag for name, asset in _ASSETS.items())
FINGERPRINT: Final = hashlib.sha256(_NAMES_AND_TAGS.encode()).hexdigest()[:12]


def asset_url(name: str) -> str:
    """The address of an asset. A name that does not exist raises KeyError: a typo fails the first render."""
    _ASSETS[name]
    return f"/assets/{FINGERPRINT}/{name}"


def static(path: str) -> tuple[bytes, str, str] | None:
    """Body, content type and ETag of the asset at `path` (`/assets/<fingerprint>/<name>`), or None.

    For an older fingerprint the current file is returned: during a rolling update a page may come from one
    gateway and its scripts from another.
    """
    asset = _find(path)
    return None if asset is None else (asset.body, asset.content_type, asset.etag)


def embed_script() -> tuple[bytes, str, str]:
    """Body, content type and ETag of `/embed.js`, whose address is fixed."""
    asset = _ASSETS["embed.js"]
    return asset.body, asset.content_type, asset.etag


def _find(path: str) -> Asset | None:
    _, mount, _, name = [*path.split("/", 3), "", "", ""][:4]
    return _ASSETS.get(name) if mount == "assets" else None


async def assets_app(scope: Scope, receive: Receive, send: Send) -> None:
    """A bare ASGI app for everything under `/assets/`: GET and HEAD, ETag, gzip, 404, 405."""
    if scope["method"] not in ("GET", "HEAD"):
        await _answer(send, 405, [(b"allow", b"GET, HEAD")], b"")
        return
    asset = _find(scope["path"])
    if asset is None:
        await _answer(send, 404, [(b"content-type", b"text/plain")], b"not found\n")
        return
    asked = {name: value.decode("latin-1") for name, value in scope["headers"]}
    headers = _headers(asset, scope["path"])
    if matches(asked.get(b"if-none-match"), asset.etag):
        await _answer(send, 304, headers, b"")
        return
    zipped = accepts_gzip(asked.get(b"accept-encoding")) and len(asset.gzipped) < len(asset.body)
    body = asset.gzipped if zipped else asset.body
    headers += [(b"content-type", asset.content_type.encode()), (b"content-length", str(len(body)).encode())]
    if zipped:
        headers.append((b"content-encoding", b"gzip"))
    await _answer(send, 200, headers, b"" if scope["method"] == "HEAD" else body)


def _headers(asset: Asset, path: str) -> list[tuple[bytes, bytes]]:
    # Only the current fingerprint always names these bytes.
    lasting = path.startswith(f"/assets/{FINGERPRINT}/")
    return [
        (b"etag", asset.etag.encode()),
        (b"cache-control", b"public, max-age=31536000, immutable" if lasting else b"no-cache"),
        (b"vary", b"accept-encoding"),
        (b"x-content-type-options", b"nosniff"),
    ]


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
