"""Where Stripe's page leads a donor back to who does not pay."""

from __future__ import annotations

import pytest

from services.payments.stripe.return_addresses import unpaid_address

FORM = "https://ataa.example/donate/winter"
SHOP = "https://shop.example"


@pytest.mark.parametrize(
    ("return_url", "left"),
    [
        (None, FORM),
        (
            f"{FORM}/thanks?creator=crt_1&platform=tiktok&lang=ar",
            f"{FORM}?creator=crt_1&platform=tiktok&lang=ar",
        ),
        (f"{FORM}/thanks", FORM),
        ("http://localhost:8000/donate/winter/thanks?lang=en", "http://localhost:8000/donate/winter?lang=en"),
        (f"{SHOP}/watch?stream=7&ataa=winter#chat", f"{SHOP}/watch?stream=7#chat"),
        (f"{SHOP}/?ataa=winter.nour&page=2", f"{SHOP}/?page=2"),
        (f"{SHOP}/?ataa=winter", f"{SHOP}/"),
        # A partner's own thank-you, which an unpaid gift must not open.
        (f"{SHOP}/thanks", FORM),
        (f"{SHOP}/thanks?data=1#ataa=winter", FORM),
        (f"{SHOP}/donate/spring/thanks?lang=ar", FORM),
        (f"{SHOP}/?", FORM),
    ],
)
def test_a_donor_who_does_not_pay_returns_to_the_form_they_left(return_url: str | None, left: str) -> None:
    assert unpaid_address(return_url, FORM, "winter") == left
