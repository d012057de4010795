"""`expand[]`: ids replaced by their objects (https://docs.stripe.com/api/expanding_objects)."""

from __future__ import annotations

from typing import Any, Final

from sandbox import forms
from sandbox.account import Account
from sandbox.api_call import ApiCall
from sandbox.balance import retrieve_balance_transaction
from sandbox.checkout import list_line_items
from sandbox.disputes import retrieve_dispute
from sandbox.errors import invalid
from sandbox.payment_intents import retrieve_payment_intent
from sandbox.payouts import retrieve_payout
from sandbox.records import Json
from sandbox.refunds import retrieve_charge, retrieve_refund

RETRIEVE: Final = {
    "pi": retrieve_payment_intent,
    "ch": retrieve_charge,
    "re": retrieve_refund,
    "dp": retrieve_dispute,
    "po": retrieve_payout,
    "txn": retrieve_balance_transaction,
}
MAX_DEPTH: Final = 4


def expand(account: Account, call: ApiCall, obj: Json) -> Json:
    """Replace the ids that `expand[]` names by their objects. Raises ApiError (400) for other properties."""
    for path in forms.entries(call.params, "expand"):
        steps = str(path).split(".")
        if len(steps) > MAX_DEPTH:
            raise invalid("You cannot expand more than 4 levels of a property.", "expand")
        _expand(account, obj, steps)
    return obj


def _expand(account: Account, obj: Any, steps: list[str]) -> None:
    if isinstance(obj, list):
        for each in obj:
            _expand(account, each, steps)
        return
    if not steps or obj is None:
        return
    name = steps[0]
    if name == "line_items" and obj.get("object") == "checkout.session":
        obj[name] = list_line_items(account, ApiCall({}, obj["id"]))
        return
    if name not in obj:
        raise invalid(f"This property cannot be expanded ({name}).", "expand")
    value = obj[name]
    if isinstance(value, str):
        retrieve = RETRIEVE.get(value.partition("_")[0])
        if retrieve is None:
            raise invalid(f"This property cannot be expanded ({name}).", "expand")
        value = obj[name] = retrieve(account, ApiCall({}, value))
    _expand(account, value, steps[1:])
