"""The response headers of each kind of page.

No page allows inline script, and only overlays allow inline style, so that text from a donor or a drive's
owner cannot run as code. With Trusted Types the browser refuses any string that reaches an HTML sink, so this
does not depend on the scripts alone. Source: CSP Level 3 and Trusted Types, W3C.

An overlay allows inline style, because OBS writes its Custom CSS into a style element of the page
(obs-browser, browser-client.cpp, OnLoadEnd), and one Trusted Types policy, that of trusted.js.
"""

from collections.abc import Sequence
from typing import Final, Literal

PageKind = Literal["overlay", "setup", "donate", "thanks", "problem", "root", "console", "public", "pay"]
Headers = list[tuple[bytes, bytes]]

_STRICT: Final = "style-src 'self'; trusted-types 'none'; frame-ancestors "
# Streaming tools frame overlays, which have nothing to click. The form must not be framed (clickjacking),
# except by the origins of a publishable key (`gateway.pages.frames`).
_OVERLAY: Final = "style-src 'self' 'unsafe-inline'; trusted-types default; frame-ancestors * file:"


# The page of Stripe's embedded Checkout runs Stripe's script, and shows no text of donors. It lists the hosts
# that https://docs.stripe.com/security/guide#content-security-policy names for Stripe.js and Checkout. It
# does not require Trusted Types, because Stripe does not document that its script works with them.
_STRIPE_HOSTS: Final = "https://js.stripe.com https://*.js.stripe.com https://checkout.stripe.com"
_STRIPE: Final = (
    f"default-src 'none'; script-src 'self' {_STRIPE_HOSTS}; "
    f"frame-src {_STRIPE_HOSTS} https://hooks.stripe.com; "
    "connect-src 'self' https://api.stripe.com https://checkout.stripe.com; "
    "img-src 'self' https://*.stripe.com; style-src 'self'; font-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors "
)
_NO_PAYMENT: Final = b"camera=(), microphone=(), geolocation=(), payment=()"
_PAYMENT: Final = b'camera=(), microphone=(), geolocation=(), payment=(self "https://js.stripe.com" "https://checkout.stripe.com")'


def _policy(kind: PageKind, ancestors: Sequence[str]) -> bytes:
    framed_by = " ".join(ancestors) or "'none'"
    if kind == "pay":
        return f"{_STRIPE}{framed_by}".encode("ascii")
    setup = f"frame-src 'self'; {_STRICT}{framed_by}"  # its preview is an overlay
    own = {"overlay": _OVERLAY, "setup": setup}.get(kind, _STRICT + framed_by)
    return (
        "default-src 'none'; script-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; "
        f"base-uri 'none'; form-action 'self'; require-trusted-types-for 'script'; {own}"
    ).encode("ascii")


# The form contains a token, the thanks page a pledge, the console a session's data: none may be cached.
_CACHED: Final[dict[PageKind, bytes]] = {
    "overlay": b"no-cache",
    "setup": b"no-cache",
    "donate": b"private, no-store",
    "thanks": b"private, no-store",
    "problem": b"no-cache",
    "root": b"no-cache",
    "console": b"private, no-store",
    "public": b"public, max-age=2, stale-while-revalidate=10, stale-if-error=60",
    "pay": b"private, no-store",
}


def page_headers(kind: PageKind, ancestors: Sequence[str] = ()) -> Headers:
    """All headers of an HTML page of this kind, except Content-Length.

    `ancestors` are the origins whose pages may frame the form; no page may without them.
    """
    return [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", _policy(kind, ancestors)),
        (b"cache-control", _CACHED[kind]),
        (b"x-content-type-options", b"nosniff"),
        # Same-origin: a thanks page's address may contain a pledge's token, which Stripe must not receive.
        (b"referrer-policy", b"same-origin"),
        (b"permissions-policy", _PAYMENT if kind == "pay" else _NO_PAYMENT),
    ]
