"""The funnel of a drive: how many saw its pages, opened the form, pledged and paid, by source.

`POST /d/{drive}/visits` counts a view, which the pages' script reports; programs that run no script are not
counted. `GET /v1/drives/{drive}/funnel` puts the views and the money together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qsl

from pydantic import TypeAdapter, ValidationError

from backbone.clock import Clock, rfc3339
from backbone.http.caller import NotYourDrive
from backbone.http.fields import Timestamp
from backbone.http.problems import Forbidden, Invalid, NotFound
from backbone.http.service_client import ServiceClient, post_internal
from backbone.money import as_json
from gateway.access.keys import Bearer
from gateway.access.same_origin import is_own_origin
from gateway.http.asgi import Request, Response, json_response
from gateway.http.router import Route
from gateway.proxy.forwarding import Forwarder, refuse_publishable
from gateway.reach.funnel_counts import Counts, FunnelCounts, Period
from gateway.reach.site import MAX_QUERY, ReachSite, query_of
from gateway.reach.sources import Source, source_of
from gateway.reach.visits import OTHER, STEPS, Visits, hour_of

PERIOD: Final = timedelta(hours=24)
MAX_PERIOD: Final = timedelta(days=31)
HOUR: Final = timedelta(hours=1)

_TIMESTAMP: Final[TypeAdapter[datetime]] = TypeAdapter(Timestamp)
_YEARS: Final = range(2000, 2201)

Json = Mapping[str, Any]


class Funnel:
    """Counts views, and reads funnels."""

    def __init__(
        self,
        site: ReachSite,
        visits: Visits,
        forwarder: Forwarder,
        clients: Mapping[str, ServiceClient],
        secret: str,
        public_url: str,
        clock: Clock,
    ) -> None:
        self._site = site
        self._visits = visits
        self._forwarder = forwarder
        self._clients = clients
        self._secret = secret
        self._counts = FunnelCounts(visits, clients, secret)
        self._public_url = public_url
        self._clock = clock

    def routes(self) -> list[Route]:
        """The route of the pages' script, and the one of a drive's owner."""
        return [
            Route("POST", "/d/{drive}/visits", self.count),
            Route("GET", "/v1/drives/{drive}/funnel", self.read),
        ]

    async def count(self, request: Request) -> Response:
        """Count a view of a page; 204. A browser that asks not to be tracked is not counted.

        Raises `Forbidden` for a request from another origin, `TooManyRequests`, `NotFound`, and `Invalid`
        for an unknown step.
        """
        self._forwarder.limits.spend(self._forwarder.key_ring.public, request.address)
        if not is_own_origin(request.headers.get("origin", ""), request, self._public_url):
            raise Forbidden("Views are reported by the pages themselves.")
        query = query_of(request)
        step = next((one for one in STEPS if one == query.get("step")), None)
        if step is None:
            raise _invalid("step", f"must be {' or '.join(STEPS)}")
        drive, _ = await self._site.shown([request.params[0].lower()])
        if "1" not in (request.headers.get("dnt"), request.headers.get("sec-gpc")):
            self._visits.count(drive["id"], source_of(query), step)
        return Response(204, [(b"cache-control", b"no-store")])

    async def read(self, request: Request) -> Response:
        """The funnel of a drive, by source, for its owner and for admins.

        Raises `Unauthorized`, `Invalid` for the period, and as `of`.
        """
        bearer = self._forwarder.authenticate(request)
        refuse_publishable(bearer)
        bearer.require("drives")
        since, until = self._period(dict(parse_qsl(request.query[:MAX_QUERY], keep_blank_values=True)))
        body = json.dumps(await self.of(bearer, request.params[0], since, until), ensure_ascii=False).encode()
        return json_response(body, headers=[(b"cache-control", b"private, no-store")])

    async def of(self, bearer: Bearer, ref: str, since: datetime, until: datetime) -> Json:
        """The funnel of whole hours as the route answers it, at most ten seconds old.

        Raises `NotYourDrive`, `Forbidden`, `NotFound`, `PeriodTooLong`, `Overloaded`, `ServiceUnavailable`.
        """
        with self._forwarder.concurrency_limits["reads"]:
            drive = await self._drive(ref, bearer)
        counts = await self._counts.of(Period(drive["id"], since, until))
        return {
            "drive": drive["id"],
            "since": rfc3339(since),
            "until": rfc3339(until),
            "data": _rows(counts, drive["currency"]),
        }

    def _period(self, query: Mapping[str, str]) -> tuple[datetime, datetime]:
        """The whole hours around what is asked for; by default the last 24."""
        until = _moment(query, "until") or hour_of(self._clock.now()) + HOUR
        since = _moment(query, "since") or until - PERIOD
        since, until = hour_of(since), hour_of(until + HOUR - timedelta(microseconds=1))
        if not since < until <= since + MAX_PERIOD + HOUR:
            raise _invalid("since", f"must be before `until`, by {MAX_PERIOD.days} days at most")
        return since, until

    async def _drive(self, ref: str, bearer: Bearer) -> Json:
        reply = await post_internal(
            self._clients["pledges"], self._secret, "/internal/drives", {"refs": [ref]}
        )
        drive: Json | None = reply["data"].get(ref)
        if drive is None:
            raise NotFound("No such drive.")
        if bearer.kind != "admin" and drive.get("partner") != bearer.partner:
            raise NotYourDrive
        if bearer.mode == "test" and not drive.get("test"):
            raise Forbidden("A test key works on test drives only.")
        return drive


def _rows(counts: Mapping[str, Counts], currency: str) -> list[Json]:
    """One row a source, those with most money first."""
    return [_row(key, counted, currency) for key, counted in counts.items()]


def _row(key: str, counted: Counts, currency: str) -> Json:
    source = Source() if key == OTHER else Source.of_key(key)
    return {
        "source": key or None,
        **source._asdict(),
        "seen": counted.seen,
        "opened": counted.opened,
        "pledged": counted.pledged,
        "paid": counted.paid,
        "raised": as_json(counted.raised, currency),
    }


def _moment(query: Mapping[str, str], name: str) -> datetime | None:
    if name not in query:
        return None
    try:
        moment = _TIMESTAMP.validate_python(query[name])
    except ValidationError:
        raise _invalid(name, "must be a timestamp such as 2026-01-31T18:00:00Z") from None
    if moment.year not in _YEARS:
        raise _invalid(name, f"must be in the years {_YEARS[0]} to {_YEARS[-1]}")
    return moment


def _invalid(name: str, detail: str) -> Invalid:
    return Invalid("The query is invalid.", errors=[{"pointer": f"/query/{name}", "detail": detail}])
