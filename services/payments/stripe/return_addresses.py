"""Where a donor goes who leaves Stripe's page: after paying, and without having paid."""

from __future__ import annotations

from typing import Final

_MARK: Final = "ataa="
"""The parameter with which the form in a partner's page (`/embed.js`) finds that its gift is paid."""


def unpaid_address(return_url: str | None, form: str, slug: str) -> str:
    """The page that a donor left for the checkout, found from the address to which a paid gift returns.

    A thanks page of ours belongs to the form beside it, and a page with the mark of a form in it shows that
    form without the mark. Both keep the rest of the address. Any other page may be a thank-you, which an
    unpaid gift must not open: the donor goes to `form`, our form of the drive.
    """
    address, _, fragment = (return_url or "").partition("#")
    path, _, query = address.partition("?")
    if path.endswith(f"/donate/{slug}/thanks"):
        return path.removesuffix("/thanks") + (f"?{query}" if query else "")
    parameters = query.split("&")
    unmarked = [one for one in parameters if not one.startswith(_MARK)]
    if unmarked == parameters:
        return form
    return path + (f"?{'&'.join(unmarked)}" if unmarked else "") + (f"#{fragment}" if fragment else "")
