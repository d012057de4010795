"""Composition of the audit: its routes and its worker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from fastapi import APIRouter

from backbone.clock import Clock
from backbone.database.database import Database
from backbone.http.service_client import InProcessServiceClient, ServiceClient
from backbone.service import Work
from services.payments.drive_lookup import DriveLookup
from services.payments.processor import Processor
from services.payments.proof.api import audit_routes
from services.payments.proof.processor_side import ProcessorSide, processor_routes
from services.payments.proof.steps import Audit
from services.payments.proof.tracing import trace_routes
from services.payments.proof.worker import Auditor


@dataclass(frozen=True, slots=True)
class Proofs:
    """The audit's routes, and its work for one process at a time: none without a client of leaderboard."""

    routes: APIRouter
    work: Mapping[str, Work]


def compose_proofs(
    database: Database,
    processor: Processor,
    drives: DriveLookup,
    leaderboard: ServiceClient | None,
    secret: str,
    clock: Clock,
    outbox_empty: Callable[[], Awaitable[bool]],
) -> Proofs:
    """The audit of the drives in payments' `database`, which leaderboard counts."""
    audit = Audit(database, leaderboard or InProcessServiceClient(), secret, clock, outbox_empty)
    auditor = Auditor(database, audit, drives, clock)
    routes = audit_routes(database, auditor, audit, drives, clock)
    routes.include_router(processor_routes(ProcessorSide(database, processor, clock)))
    routes.include_router(trace_routes(database))
    return Proofs(routes, {"payments.audit": auditor.run} if leaderboard is not None else {})
