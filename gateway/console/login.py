"""The login of the console and the moderation page: a form that exchanges an API key for a session.

The form posts to `/session`, which sets the cookie and returns the browser to the page it wanted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from backbone.http.problems import Forbidden, Overloaded, Problem, TooManyRequests, Unauthorized
from gateway.access.same_origin import CrossOrigin
from gateway.access.sessions import NoSession, Sessions
from gateway.console.kept_form import carried, carried_in
from gateway.console.render import render
from gateway.console.unsaved import resumed_page
from gateway.http.asgi import Request, Response
from gateway.http.forms import read_form
from gateway.http.router import Route
from gateway.pages.headers import page_headers
from gateway.pages.languages import choose_voice

HOME: Final = "/console"
_PAGE: Final = re.compile(
    r"/(console|moderate/[a-z0-9_-]+)(/[a-z0-9_-]+)*(\?[A-Za-z0-9_.~%=&+-]*)?", re.ASCII
)


def login_page(
    request: Request, to: str, problem: Problem | None = None, posted: Sequence[tuple[str, str]] = ()
) -> Response:
    """The form, after which the browser is sent to `to`; 401, or the status of the `problem` it shows.

    A `to` that is no page of a session is replaced by the console. `posted` are the fields of a form that was
    sent to `to` without a session: after the login it is shown again instead.
    """
    hidden = carried(posted)
    address = _known_page(to if hidden or not posted else HOME)
    query = dict(parse_qsl(urlsplit(address).query))
    voice = choose_voice(query, request.headers.get("accept-language", ""), None)
    path = urlsplit(address).path
    body = render(
        "login.html",
        "login",
        voice,
        page_name="moderation" if path.startswith("/moderate/") else "console",
        scope=_scope(path),
        to=address,
        carried=hidden,
        error=_error(problem),
        from_elsewhere=request.headers.get("sec-fetch-site") == "cross-site",
        other_language=f"{path}?{urlencode({**query, 'lang': voice.other})}",
    )
    status = problem.status if problem is not None else NoSession.status
    headers = {} if problem is None else problem.headers
    more = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    return Response(status, [*page_headers("console"), *more], body)


def _known_page(address: str) -> str:
    """`address` if it is a page of a session, else the console: the login must not redirect elsewhere."""
    return address if len(address) <= 500 and _PAGE.fullmatch(address) else HOME


def _scope(path: str) -> str:
    """The scope that a key needs for the page at `path`."""
    return "moderation" if path.startswith("/moderate/") else "drives"


_ERRORS: Final[Mapping[type[Problem], str]] = {
    CrossOrigin: "origin",
    TooManyRequests: "slow",
    Overloaded: "busy",
    Unauthorized: "wrong",
    Forbidden: "forbidden",
}


def _error(problem: Problem | None) -> str | None:
    return next((text for kind, text in _ERRORS.items() if isinstance(problem, kind)), None)


class Login:
    """The routes that open and end a session."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def routes(self) -> list[Route]:
        """POST /session with `key` and `to`; POST /session/end with `csrf` and `to`."""
        return [Route("POST", "/session", self._open), Route("POST", "/session/end", self._end)]

    async def _open(self, request: Request) -> Response:
        fields = await read_form(request)
        form, posted = dict(fields), carried_in(fields)
        address = _known_page(form.get("to", HOME))
        try:
            opened = await self._sessions.login(request, form.get("key", ""), _scope(address))
        except CrossOrigin as problem:
            return login_page(request, HOME, problem)
        except (Unauthorized, Forbidden, TooManyRequests, Overloaded) as problem:
            return login_page(request, address, problem, posted)
        if posted:
            return resumed_page(request, address, [("csrf", opened.csrf), *posted], opened.cookie)
        headers = [(b"location", address.encode()), (b"cache-control", b"no-store"), *opened.cookie]
        return Response(303, headers)

    async def _end(self, request: Request) -> Response:
        form = dict(await read_form(request))
        address = _known_page(form.get("to", HOME))
        try:
            session = await self._sessions.find(request)
        except NoSession:
            return Response(303, [(b"location", address.encode())])
        self._sessions.check_csrf(request, session, form.get("csrf", ""))
        cookie = await self._sessions.logout(request)
        return Response(303, [(b"location", address.encode()), (b"cache-control", b"no-store"), *cookie])
