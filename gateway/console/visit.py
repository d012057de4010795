"""One request of a logged-in person: the session, the language, the form, and the answers of the console."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import structlog

from backbone.http.problems import Overloaded, Problem
from backbone.http.service_client import ServiceUnavailable
from gateway.access.keys import Bearer
from gateway.access.sessions import NoSession, Session, Sessions
from gateway.console.client import NotSaved, Refused, refused_by
from gateway.console.login import login_page
from gateway.console.render import render, text
from gateway.console.translations import TRANSLATIONS
from gateway.console.unsaved import unavailable_page, unsaved_page
from gateway.http.asgi import Request, Response
from gateway.http.forms import read_form
from gateway.http.router import Handler
from gateway.pages.headers import page_headers
from gateway.pages.languages import Voice, choose_voice, localised

log = structlog.get_logger()

_KEPT: Final = ("lang", "digits")
"""Parameters that every link within the console keeps."""
_NO_FORM: Final[Sequence[tuple[str, str]]] = ()


@dataclass(frozen=True, slots=True)
class Visit:
    """A request and who sent it; `fields` are those of the form that was posted."""

    request: Request
    session: Session
    query: Mapping[str, str]
    voice: Voice
    fields: Sequence[tuple[str, str]] = _NO_FORM

    @property
    def bearer(self) -> Bearer:
        return self.session.bearer

    @property
    def param(self) -> str:
        """The first parameter of the path."""
        return self.request.params[0]

    @property
    def form(self) -> dict[str, str]:
        """The fields that occur once."""
        return dict(self.fields)

    @property
    def form_key(self) -> str | None:
        """The Idempotency-Key of the posted form."""
        key = self.form.get("once", "")
        return f"console-{key}" if key.isalnum() and key.isascii() and len(key) <= 64 else None

    def link(self, path: str, **query: str | None) -> str:
        """`path` with `query`, in the language of this page."""
        kept = {name: self.query[name] for name in _KEPT if name in self.query}
        asked = urlencode(kept | {name: value for name, value in query.items() if value})
        return f"{path}?{asked}" if asked else path

    def page(
        self, template: str, *, status: int = 200, section: str = "", once: str = "", **values: object
    ) -> Response:
        """A page of the console with what all of them show; its form has the key `once`, or a new one."""
        other = urlencode({**self.query, "lang": self.voice.other})
        body = render(
            template,
            "console",
            self.voice,
            visit=self,
            section=section,
            csrf=self.session.csrf,
            once=once or secrets.token_hex(16),
            localised=lambda value: localised(value, self.voice.lang),
            money=self._money,
            count=self.voice.count,
            page=_script_data(self.voice),
            done=self.query.get("done") if f"done_{self.query.get('done')}" in _TEXTS else None,
            other_language=f"{self.request.path if self.request.method != 'POST' else '/console'}?{other}",
            **values,
        )
        return Response(status, page_headers("console"), body)

    def _money(self, value: Mapping[str, str]) -> str:
        """An amount as it is shown; from right to left, a minus sign stays before its digits."""
        shown = self.voice.money(value["value"], value["currency"])
        return shown.replace("-", "\u200e-") if self.voice.lang == "ar" else shown

    def back(self, path: str, done: str, **query: str) -> Response:
        """To the page at `path`, which shows that `done` was done. A reload does not repeat it."""
        return self.to(path, done=done, **query)

    def to(self, path: str, **query: str) -> Response:
        """To the page at `path`, in the language of this one."""
        location = self.link(path, **query)
        return Response(303, [(b"location", location.encode()), (b"cache-control", b"no-store")])

    def record(self, action: str, **about: str) -> None:
        """Log who did what: one structured line for each change, after it was made."""
        log.info(
            "console.changed",
            action=action,
            key_id=self.bearer.key_id,
            partner=self.bearer.partner,
            request_id=self.request.request_id,
            **about,
        )

    def refused(self, refused: Refused) -> Response:
        """The page that shows why something was refused."""
        return self.page("refused.html", status=refused.status, **self.explain(refused))

    def key_for(self, refused: Refused | None) -> str:
        """The posted form's key where the form may have been saved: sent again, it is not saved twice."""
        return self.form.get("once", "") if isinstance(refused, NotSaved) else ""

    def again(self, refused: Refused) -> dict[str, Any]:
        """What a page needs to show the posted form again, with its status and the reason of the refusal."""
        return {
            "status": refused.status,
            "once": self.key_for(refused),
            "form": self.form,
            "errors": refused.errors,
            **self.explain(refused),
        }

    def explain(self, refused: Refused) -> dict[str, str]:
        """A refusal in the language of the page, and the service's own detail where it may help."""
        key = f"refused_{refused.slug.replace('-', '_')}"
        known = key if key in _TEXTS else f"refused_{refused.status}"
        reason = text(self.voice, "console", known if known in _TEXTS else "refused")
        return {"reason": reason, "detail": str(refused.problem.get("detail") or "")}


_TEXTS: Final = TRANSLATIONS["console"]["en"]


def _script_data(voice: Voice) -> dict[str, str]:
    return {"lang": voice.lang, "digits": voice.digits}


def pages_of(
    sessions: Sessions, scope: str = "drives"
) -> Callable[[Callable[[Visit], Awaitable[Response]]], Handler]:
    """Turns a function of a visit into a handler that only a session with `scope` reaches.

    A POST reaches it only with the session's CSRF token and from this origin. Whatever is refused is shown as
    a page, with the posted form where no service confirmed it; without a session the login is shown.
    """

    def handler_of(show: Callable[[Visit], Awaitable[Response]]) -> Handler:
        async def handle(request: Request) -> Response:
            fields = await read_form(request) if request.method == "POST" else _NO_FORM
            try:
                session = await sessions.find(request)
            except NoSession:
                return _login(request, fields, sessions)
            except Overloaded:
                return unsaved_page(request, fields) if fields else unavailable_page(request)
            query = dict(parse_qsl(request.query[:2000]))
            voice = choose_voice(query, request.headers.get("accept-language", ""), None)
            visit = Visit(request, session, query, voice, fields)
            try:
                session.bearer.require(scope)
                if request.method == "POST":
                    sessions.check_csrf(request, session, visit.form.get("csrf", ""))
                return await show(visit)
            except Refused as refused:
                return visit.refused(refused)
            except (ServiceUnavailable, Overloaded):
                return unsaved_page(request, fields) if fields else visit.refused(Refused(503, {}))
            except Problem as problem:
                return visit.refused(refused_by(problem))

        return handle

    return handler_of


def _login(request: Request, fields: Sequence[tuple[str, str]], sessions: Sessions) -> Response:
    """The login, which leads to the page that was asked for, or back to the form that was posted."""
    address = f"{request.path}?{request.query}" if request.query else request.path
    if request.method != "POST":
        return login_page(request, address)
    if fields and sessions.is_from_here(request):
        return login_page(request, address, posted=fields)
    return login_page(request, "/console")
