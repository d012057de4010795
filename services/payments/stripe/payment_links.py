"""Payment Links at Stripe: the parameters that create one, and its address for a donor.

https://docs.stripe.com/api/payment-link/create and https://docs.stripe.com/payment-links/url-parameters
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from services.payments.processor import LinkRequest
from services.payments.stripe.marks import LINK

PATH: Final = "/v1/payment_links"


def link_parameters(request: LinkRequest, stripe_units: int, donor_url: str) -> dict[str, Any]:
    """The parameters of a link of a fixed price, which returns donors to our thanks page of the drive."""
    metadata = {"ataa_drive": request.drive_id, LINK: request.key}
    price = {
        "currency": request.amount.currency.lower(),
        "unit_amount": stripe_units,
        "product_data": {"name": request.title[:200]},
    }
    thanks = f"{donor_url}/donate/{request.slug}/thanks"
    return {
        "line_items": [{"price_data": price, "quantity": 1}],
        "submit_type": "donate",
        "metadata": metadata,
        "payment_intent_data": {"metadata": metadata},
        "after_completion": {"type": "redirect", "redirect": {"url": thanks}},
    }


def link_address(url: str, reference: str, locale: str | None) -> str:
    """The address of a link with a reference, in a locale of Stripe's page (None: the browser's)."""
    query = ({"locale": locale} if locale else {}) | {"client_reference_id": reference}
    return f"{url}{'&' if '?' in url else '?'}{urlencode(query)}"
