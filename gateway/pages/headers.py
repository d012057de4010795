"""The response headers of each kind of page.

No page allows inline script, and only overlays allow inline style, so that text from a donor or a drive's
owner cannot run as code. With Trusted Types the browser refuses any string that reaches an HTML sink, so this
does not depend on the scripts alone. Source: CSP Level 3 and Trusted Types, W3C.

An overlay allows inline style, because OBS writes its Custom CSS into a style element of the page
(obs-browser, browser-client.cpp, OnLoadEnd), and one Trusted Types policy, that of trusted.js.
"""

from typing import Final, Literal

PageKind = Literal["overlay", "donate", "thanks", "problem", "root", "console"]
Headers = list[tuple[bytes, bytes]]

_STRICT: Final = "style-src 'self'; trusted-types 'none'; frame-ancestors 'none'"
# Streaming tools frame overlays, which have nothing to click. The form must not be framed (clickjacking).
_OVERLAY: Final = "style-src 'self' 'unsafe-inline'; trusted-types default; frame-ancestors *"


def _policy(kind: PageKind) -> bytes:
    own = _OVERLAY if kind == "overlay" else _STRICT
    return (
        "default-src 'none'; script-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; "
        f"base-uri 'none'; form-action 'self'; require-trusted-types-for 'script'; {own}"
    ).encode("ascii")


# The form contains a token, the thanks page a pledge, the console a session's data: none may be cached.
_CACHED: Final[dict[PageKind, bytes]] = {
    "overlay": b"no-cache",
    "donate": b"private, no-store",
    "thanks": b"private, no-store",
    "problem": b"no-cache",
    "root": b"no-cache",
    "console": b"private, no-store",
}


def page_headers(kind: PageKind) -> Headers:
    """All headers of an HTML page of this kind, except Content-Length."""
    return [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", _policy(kind)),
        (b"cache-control", _CACHED[kind]),
        (b"x-content-type-options", b"nosniff"),
        # Same-origin: a thanks page's address may contain a pledge's token, which Stripe must not receive.
        (b"referrer-policy", b"same-origin"),
        (b"permissions-policy", b"camera=(), microphone=(), geolocation=(), payment=()"),
    ]
