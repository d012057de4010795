"""The console's page of exchange rates: the newest of each pair, and the form that sets one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from backbone.clock import Clock, rfc3339
from backbone.stripe_amounts import SUPPORTED_CURRENCIES
from gateway.console.client import FAILURES, Refused, ServiceCalls, refusal_of
from gateway.console.drive_form import latin, moment_of
from gateway.console.visit import Visit
from gateway.http.asgi import Response

RATES: Final = "/console/rates"
_REFUSED: Final = "rate-refused"
_UNKNOWN: Final = "must be a currency that the processor takes, such as KWD"

Json = dict[str, Any]


class RatesPage:
    """The page `/console/rates`; only an admin's shows the form."""

    def __init__(self, calls: ServiceCalls, clock: Clock) -> None:
        self._calls = calls
        self._clock = clock

    async def show(self, visit: Visit) -> Response:
        """The rates by pair, and a form for the pair that `from` and `to` name."""
        asked = {"source": visit.query.get("from", "")[:3], "target": visit.query.get("to", "")[:3]}
        return await self._page(visit, form={name: code for name, code in asked.items() if code})

    async def set(self, visit: Visit) -> Response:
        """Set the rate of the form. One that is not plausible is shown again, with the reason."""
        form = visit.form
        source, target = (code_of(form.get(name, "")) for name in ("source", "target"))
        body: Json = {
            "rate": latin(form.get("rate", "")),
            "as_of": moment_of(form.get("as_of", "")) or rfc3339(self._clock.now()),
            "confirm": form.get("confirm") == "yes",
        }
        try:
            check_pair(source, target)
            await self._calls.send(visit.bearer, "payments", "PUT", f"/v1/rates/{source}/{target}", body)
        except FAILURES as failure:
            refused = refusal_of(failure)
            if refused.slug != _REFUSED:
                return await self._page(visit, **visit.again(refused))
            kind = "old" if "as_of" in refused.errors else "jump"
            told = {**visit.again(Refused(409, {"type": f"/problems/rate-{kind}"})), "errors": refused.errors}
            return await self._page(visit, **told, jump=kind == "jump", known=True)
        visit.record("exchange_rate.set", pair=f"{source}/{target}", confirmed=str(body["confirm"]).lower())
        return visit.back(RATES, "rate_set")

    async def _page(self, visit: Visit, *, status: int = 200, **told: Any) -> Response:
        page = await self._calls.get(visit.bearer, "payments", "/v1/rates")
        now = self._clock.now()
        rates = [{**one, "age_days": age_days(one, now)} for one in page["data"]]
        given = {"reason": "", "detail": "", "form": {}, "errors": {}, "jump": False, "known": False, **told}
        return visit.page("rates.html", status=status, section="rates", rates=rates, **given)


def code_of(text: str) -> str:
    """A currency's code as the API takes it."""
    return text.strip().upper()


def check_pair(source: str, target: str) -> None:
    """Raises `Refused` for codes that are no part of the API's path."""
    codes: Sequence[tuple[str, str]] = (("source", source), ("target", target))
    unknown = [name for name, code in codes if code not in SUPPORTED_CURRENCIES]
    errors = [{"pointer": f"/{name}", "detail": _UNKNOWN} for name in unknown]
    if not errors and source == target:
        errors = [{"pointer": "/target", "detail": "the two currencies must differ"}]
    if errors:
        raise Refused(422, {"type": "/problems/invalid-request", "errors": errors})


def age_days(rate: Mapping[str, Any], now: datetime) -> int | None:
    """Whole days since the moment for which a rate was published; None without a rate."""
    if rate["as_of"] is None:
        return None
    return max(0, (now - datetime.fromisoformat(rate["as_of"])).days)
