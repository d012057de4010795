"""`expand[]`: ids replaced by their objects on request (https://docs.stripe.com/api/expanding_objects)."""

from __future__ import annotations

from typing import Any, Final

from sandbox import forms
from sandbox.account import Account
from sandbox.call import Call
from sandbox.checkout import list_line_items
from sandbox.paying import retrieve_payment_intent
from sandbox.records import Json
from sandbox.refunds import retrieve_charge
from sandbox.refusals import invalid

RETRIEVE: Final = {"pi_": retrieve_payment_intent, "ch_": retrieve_charge}
MOST_DEEP: Final = 4


def expand(account: Account, call: Call, thing: Json) -> Json:
    """The object with what `expand[]` names put in place. Raises Refusal for what cannot be expanded."""
    for path in forms.entries(call.params, "expand"):
        steps = str(path).split(".")
        if len(steps) > MOST_DEEP:
            raise invalid("You cannot expand more than 4 levels of a property.", "expand")
        _expand(account, thing, steps)
    return thing


def _expand(account: Account, thing: Any, steps: list[str]) -> None:
    if isinstance(thing, list):
        for each in thing:
            _expand(account, each, steps)
        return
    if not steps or thing is None:
        return
    name = steps[0]
    if name == "line_items" and thing.get("object") == "checkout.session":
        thing[name] = list_line_items(account, Call({}, thing["id"]))
        return
    if name not in thing:
        raise invalid(f"This property cannot be expanded ({name}).", "expand")
    value = thing[name]
    if isinstance(value, str):
        if value[:3] not in RETRIEVE:
            raise invalid(f"This property cannot be expanded ({name}).", "expand")
        value = thing[name] = RETRIEVE[value[:3]](account, Call({}, value))
    _expand(account, value, steps[1:])
