"""The routes of images: `/d/{drive}/og.png`, `/d/{drive}/qr.svg` and `/d/{drive}/{creator}/qr.svg`."""

from __future__ import annotations

from typing import Final

from backbone.http.problems import NotFound
from gateway.access.keys import Bearer
from gateway.access.limits import RateLimits
from gateway.http.asgi import Header, Request, Response
from gateway.http.conditional import not_modified, strong_etag
from gateway.http.router import Route
from gateway.pages.languages import choose_voice
from gateway.reach.drawer import Drawer
from gateway.reach.picture import picture_svg
from gateway.reach.pictures import INTERVAL_S, Pictures
from gateway.reach.public_page import PublicPage
from gateway.reach.qr_codes import QrCodes
from gateway.reach.site import ReachSite, query_of
from gateway.reach.sources import Source, source_of

QR: Final = "qr"
"""The platform of a QR code whose address names none: scans are a source of their own."""

_PICTURE_CACHE: Final = f"public, max-age={INTERVAL_S:.0f}, stale-while-revalidate=60, stale-if-error=600"
_QR_CACHE: Final = "public, max-age=86400"


class Images:
    """Serves the images of public pages."""

    def __init__(self, site: ReachSite, drawer: Drawer, public: Bearer, limits: RateLimits) -> None:
        self._site = site
        self._pictures = Pictures(drawer)
        self._qr_codes = QrCodes(drawer)
        self._public = public
        self._limits = limits

    def routes(self) -> list[Route]:
        """The picture of a drive, and the QR codes of its and its creators' donate links."""
        return [
            Route("GET", "/d/{drive}/og.png", self.picture),
            Route("GET", "/d/{drive}/qr.svg", self.qr_code),
            Route("GET", "/d/{drive}/{creator}/qr.svg", self.qr_code),
        ]

    async def picture(self, request: Request) -> Response:
        """The drive's Open Graph picture: `?lang=`, `?digits=`; other parameters are ignored.

        Raises `NotFound` for an unknown drive or a draft, and `Overloaded` while the figures are read.
        """
        drive, _ = await self._site.shown([request.params[0].lower()])
        query = query_of(request)
        voice = choose_voice(query, request.headers.get("accept-language", ""), drive.get("title"))
        totals = await self._site.totals(drive["id"], request.address)
        page = PublicPage(drive, totals, self._site.origin(request), voice, Source())
        png = await self._pictures.of(drive["id"], f"{voice.lang}-{voice.digits}", lambda: picture_svg(page))
        vary: Header = (b"vary", b"Accept-Language")
        return _image(request, png, "image/png", _PICTURE_CACHE, vary)

    async def qr_code(self, request: Request) -> Response:
        """A QR code of the donate link, with the source of the query.

        Raises `NotFound` as `picture`, for an unknown creator, and where the gateway knows no address of
        its own; `TooManyRequests` for an address that asks for too many new codes; `Overloaded`.
        """
        drive, creator = await self._site.shown([part.lower() for part in request.params])
        origin = self._site.origin(request)
        if not origin:
            raise NotFound("The request names no usable Host.")
        source = source_of(query_of(request))
        credited = {"creator": str(creator["slug"])} if creator else {}
        link = source._replace(platform=source.platform or QR).address(
            f"{origin}/donate/{drive['slug']}", **credited
        )
        if not self._qr_codes.knows(link):
            self._limits.spend(self._public, request.address)
        return _image(request, await self._qr_codes.of(link), "image/svg+xml", _QR_CACHE)


def _image(request: Request, body: bytes, kind: str, cache: str, *more: Header) -> Response:
    etag = strong_etag(body)
    kept: list[Header] = [(b"etag", etag.encode()), (b"cache-control", cache.encode()), *more]
    headers: list[Header] = [
        (b"content-type", kind.encode()),
        (b"content-security-policy", b"default-src 'none'"),
        (b"x-content-type-options", b"nosniff"),
        *kept,
    ]
    return not_modified(request, etag, kept) or Response(200, headers, body)
