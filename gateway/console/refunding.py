"""A refund that the console asks for, repeated with the same key while its outcome is not known."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from backbone.http.problems import Overloaded
from backbone.http.service_client import ServiceUnavailable
from backbone.idempotency import RequestInProgress
from gateway.console.client import Refused, ServiceCalls
from gateway.console.visit import Visit

REFUND_PAUSES_S: Final = (1.0, 3.0)
"""Between two attempts to learn what became of a refund."""

Json = dict[str, Any]


async def refunded(calls: ServiceCalls, visit: Visit, path: str, body: Json) -> Any:
    """The refund that was made under the form's key. Repeated while its outcome is not known.

    Raises `Refused`, and `ServiceUnavailable` or `Overloaded` where it is still not known in the end.
    """
    for pause_s in REFUND_PAUSES_S:
        try:
            return await _refund(calls, visit, path, body)
        except (ServiceUnavailable, Overloaded):
            await asyncio.sleep(pause_s)
    return await _refund(calls, visit, path, body)


async def _refund(calls: ServiceCalls, visit: Visit, path: str, body: Json) -> Any:
    try:
        return await calls.send(visit.bearer, "payments", "POST", path, body, visit.form_key)
    except Refused as refused:
        if refused.slug != RequestInProgress.slug:
            raise
        raise ServiceUnavailable("the refund is still being made") from refused
