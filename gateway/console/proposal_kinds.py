"""Gifts past the processor, hours and goods, and disbursements: the requests that their forms make."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from gateway.console.client import ServiceCalls
from gateway.console.drive_form import latin, moment_of, money_of
from gateway.console.proposals import Form, Kind, creators_of
from gateway.console.visit import Visit

Json = dict[str, Any]


def _texts(form: Form, *names: str) -> Json:
    """The fields of these names that are filled in."""
    found = {name: form.get(name, "").strip().replace("\r\n", "\n") for name in names}
    return {name: value for name, value in found.items() if value}


def _gift(form: Form, currency: str) -> Json:
    donor: Json = _texts({"name": form.get("donor", "")}, "name")
    if form.get("anonymous") == "yes":
        donor["anonymous"] = True
    return {
        "amount": money_of(form.get("amount", ""), currency),
        "method": form.get("method", ""),
        "received_at": moment_of(form.get("received_at", "")) or "",
        "evidence": form.get("evidence", "").strip(),
        **_texts(form, "creator", "message"),
        **({"donor": donor} if donor else {}),
    }


def _contribution(form: Form, _currency: str) -> Json:
    required = {name: form.get(name, "").strip() for name in ("kind", "unit", "label", "evidence")}
    return {**required, "quantity": latin(form.get("quantity", "")), **_texts(form, "creator")}


def _disbursement(form: Form, currency: str) -> Json:
    required = {name: form.get(name, "").strip() for name in ("beneficiary", "reference", "evidence")}
    return {
        **required,
        "amount": money_of(form.get("amount", ""), currency),
        "paid_at": moment_of(form.get("paid_at", "")) or "",
        **_texts(form, "fund"),
    }


_BASIC: Final = ("pending", "approved", "rejected")
_REVERSIBLE: Final = (*_BASIC, "reversal_requested", "reversed")

OFFLINE: Final = Kind("offline", "offline-gifts", "ofg", ("approve", "reject", "reverse"), _REVERSIBLE, _gift)
CONTRIBUTIONS: Final = Kind(
    "contributions", "contributions", "ctb", ("approve", "reject"), _BASIC, _contribution
)
BENEFICIARIES: Final = Kind(
    "beneficiaries", "disbursements", "dsb", ("approve", "reject", "reverse"), _REVERSIBLE, _disbursement
)


class Owed:
    """What a drive owes to each beneficiary, for the page of disbursements."""

    def __init__(self, calls: ServiceCalls) -> None:
        self._calls = calls

    async def of(self, visit: Visit, drive: Json) -> Json:
        """`statement`: the drive's; `owed`: the amount that is owed, by beneficiary."""
        path = f"/v1/drives/{drive['id']}/statement"
        statement = await self._calls.get(visit.bearer, "payments", path)
        own = next((one for one in statement["currencies"] if one["currency"] == drive["currency"]), None)
        owed = {one["beneficiary"]: one["amount"] for one in (own["owed"] if own else ())}
        shares: dict[str, int] = {}
        for one in drive.get("beneficiaries") or ():
            shares[one["name"]] = shares.get(one["name"], 0) + one["share_bps"]
        return {"statement": own, "owed": owed, "shares": shares}


class Sums:
    """The approved hours and goods of a drive, for the page of contributions."""

    def __init__(self, calls: ServiceCalls) -> None:
        self._calls = calls

    async def of(self, visit: Visit, drive: Json) -> Json:
        """`sums`: by kind and unit; `creators`: those to suggest."""
        path = f"/v1/drives/{drive['id']}/contributions"
        sums, creators = await asyncio.gather(
            self._calls.get(visit.bearer, "payments", path), creators_of(self._calls, visit, drive)
        )
        return {"sums": sums["data"], **creators}
