"""The addresses of Payment Links, `/c/link/{link}`: each visit makes a session and leads to its page."""

from __future__ import annotations

from typing import Final

from sandbox import forms
from sandbox.account import Account
from sandbox.controls import json_of
from sandbox.errors import ApiError, invalid, unknown_url
from sandbox.http_server import Reply
from sandbox.pay_pages import PREFIX, PayPages
from sandbox.payment_links import open_link
from sandbox.stripe_objects import to_json

LINK_PREFIX: Final = "/c/link/"
_PAY: Final = "/pay"


class LinkPages:
    """Opens Payment Links; a program may pay in the same request."""

    def __init__(self, account: Account, pages: PayPages) -> None:
        self._account = account
        self._pages = pages

    async def answer(self, method: str, target: str, body: bytes) -> Reply:
        """Redirect a visitor to the page of a new session; charge a program's card for one."""
        pays = method == "POST" and target.endswith(_PAY)
        path, _, query = (target.removesuffix(_PAY) if pays else target).partition("?")
        path = path.removesuffix(_PAY) if pays else path
        try:
            if not pays and method != "GET":
                raise unknown_url(method, path)
            reference = forms.text(forms.decode(query), "client_reference_id")
            if pays and reference is None:
                reference = _reference_in(body)
            session = open_link(self._account, path.removeprefix(LINK_PREFIX), reference)
        except ApiError as api_error:
            unpaid = {"payment_status": "unpaid", **api_error.body()}
            return Reply(api_error.status, to_json(unpaid).encode())
        page = f"{PREFIX}{session.id}"
        if pays:
            return await self._pages.answer("POST", f"{page}{_PAY}", "", "application/json", body)
        await self._account.journal.durable()
        return Reply(303, b"", {"Location": f"{self._account.base_url}{page}"})


def _reference_in(body: bytes) -> str | None:
    requested = json_of(body)
    if not isinstance(requested, dict):
        raise invalid("Expected a JSON object.")
    found = requested.get("client_reference_id")
    return found if isinstance(found, str) else None
