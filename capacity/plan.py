"""The arithmetic: from a load and the costs to processes, servers, disks, money and bottlenecks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from capacity.inputs import DATABASES, SERVICES, Audience, Inputs, Load

LEAST_REPLICAS: Final = 2
LEAST_BROKERS: Final = 3


@dataclass(frozen=True, slots=True)
class Processes:
    """The cores that one service needs at a load, and its replicas at the planned utilisation."""

    service: str
    cores: float
    replicas: int


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What one part can do: donations a second, whatever the number of replicas; `lifted_by` tells how."""

    name: str
    per_s: float
    arithmetic: str
    lifted_by: str
    outside: bool = False
    """Whether it bounds charging at Stripe only, while pledges are accepted and queued."""


@dataclass(frozen=True, slots=True)
class DonationPlan:
    """What a load needs. Disks are in GB (10^9 bytes), money in dollars."""

    load: Load
    processes: Sequence[Processes]
    postgres_cores: float
    postgres_servers: int
    wal_mb_s: float
    database_gb: float
    kafka_cores: float
    brokers: int
    kafka_gb: float
    partitions: int
    dollars_an_hour: float
    disk_dollars_a_month: float
    bottleneck: Ceiling
    stripe_backlog: float
    stripe_drain_minutes: float
    stripe_rate_needed: float
    burst_backlog: float
    burst_drain_minutes: float


@dataclass(frozen=True, slots=True)
class ReaderPlan:
    """What an audience needs: at the edge, or at a CDN before it."""

    audience: Audience
    reads_s: float
    edge_cores: float
    edge_gbit_s: float
    origin_reads_s: float
    stream_sends_s: float
    nchan_cores: float
    gateway_cores: float
    stream_gbit_s: float
    stream_memory_gib: float
    machines_for_cpu: int
    machines_for_traffic: int
    edge_dollars_an_hour: float
    traffic_dollars_an_hour: float
    cdn_dollars_an_hour: float


def processes_for(inputs: Inputs, rate: float) -> list[Processes]:
    """Cores and replicas of each service."""
    found = []
    for service in SERVICES:
        cores = rate * inputs.cpu_ms(service) / 1000
        replicas = max(LEAST_REPLICAS, math.ceil(cores / inputs.limit("utilisation")))
        found.append(Processes(service, cores, replicas))
    return found


def events_consumed_by_leaderboard(inputs: Inputs) -> float:
    """Events a donation that leaderboard reads: pledges' and payments'."""
    return inputs.get("events_a_donation", "pledges") + inputs.get("events_a_donation", "payments")


def postgres_share(inputs: Inputs, database: str) -> float:
    """A database's share of PostgreSQL's work, taken as its share of the stored bytes."""
    return inputs.get("bytes_a_donation", database) / inputs.bytes_stored


def ceilings(inputs: Inputs, *, one_drive: bool) -> list[Ceiling]:
    """Every bound that more replicas do not lift, the lowest first."""
    found = [
        _stripe(inputs),
        _payments(inputs),
        _leaderboard(inputs, 1 if one_drive else inputs.limit("partitions")),
        _relay(inputs),
        _postgres(inputs),
    ]
    return sorted(found, key=lambda one: one.per_s)


def _stripe(inputs: Inputs) -> Ceiling:
    limit = inputs.limit("stripe_requests_a_second")
    checkouts = inputs.get("events_a_donation", "stripe_checkouts")
    return Ceiling(
        "Stripe's rate limit",
        limit / checkouts,
        f"{limit:g} requests/s / {checkouts:g} checkouts a donation",
        "Stripe, on request; until then pledges wait in the queue",
        outside=True,
    )


def _payments(inputs: Inputs) -> Ceiling:
    return Ceiling(
        "payments: one replica at a time applies webhooks and opens checkouts",
        1000 / inputs.cpu_ms("payments"),
        f"1,000 ms / {inputs.cpu_ms('payments'):g} ms a donation, the whole process",
        "giving each replica the drives of its partitions, as leaderboard does",
    )


def _leaderboard(inputs: Inputs, partitions: float) -> Ceiling:
    events = inputs.get("one_process_a_second", "leaderboard_events")
    consumed = events_consumed_by_leaderboard(inputs)
    one_drive = partitions == 1
    return Ceiling(
        "leaderboard: the partition of one drive" if one_drive else f"leaderboard: {partitions:g} partitions",
        partitions * events / consumed,
        f"{partitions:g} x {events:,.0f} events/s / {consumed:g} events a donation",
        "cheaper events (the bench aims at 20,000 a second)"
        if one_drive
        else "new topics with more partitions",
    )


def _relay(inputs: Inputs) -> Ceiling:
    relayed = inputs.get("one_process_a_second", "relay_events")
    events = inputs.get("events_a_donation", "pledges")
    return Ceiling(
        "pledges: one relay publishes its outbox",
        relayed / events,
        f"{relayed:,.0f} events/s / {events:g} events a donation",
        "a larger batch, or a relay for each partition",
    )


def _postgres(inputs: Inputs) -> Ceiling:
    cores, used = inputs.limit("postgres_server_cores"), inputs.limit("utilisation")
    cost_ms = inputs.cpu_ms("postgres") * postgres_share(inputs, "payments")
    return Ceiling(
        "PostgreSQL: the primary of payments",
        cores * used * 1000 / cost_ms,
        f"{cores:g} cores x {used:g} x 1,000 ms / {cost_ms:.2f} ms a donation",
        "a database for a part of the drives",
    )


def bottleneck(inputs: Inputs, *, one_drive: bool) -> Ceiling:
    """The lowest bound inside Ataa."""
    return next(one for one in ceilings(inputs, one_drive=one_drive) if not one.outside)


def backlog(rate: float, seconds: float, per_s: float) -> tuple[float, float]:
    """Donations that wait after `seconds` at `rate` if `per_s` are done, and the minutes until none waits."""
    waiting = max(0.0, rate - per_s) * seconds
    return waiting, waiting / per_s / 60


def plan_donations(inputs: Inputs, load: Load) -> DonationPlan:
    """What a load needs, one viral drive assumed."""
    processes = processes_for(inputs, load.rate)
    used = inputs.limit("utilisation")
    postgres = load.rate * inputs.cpu_ms("postgres") / 1000
    kafka = load.rate * inputs.cpu_ms("kafka") / 1000
    brokers = max(
        LEAST_BROKERS, math.ceil(kafka * inputs.limit("replication") / used / inputs.limit("broker_cores"))
    )
    database_gb = load.donations * inputs.bytes_stored / 1e9
    kafka_gb = load.donations * inputs.get("bytes_a_donation", "kafka") * inputs.limit("replication") / 1e9
    first = bottleneck(inputs, one_drive=True)
    stripe = next(one for one in ceilings(inputs, one_drive=True) if one.outside)
    stripe_waiting, stripe_minutes = backlog(load.rate, load.minutes * 60, stripe.per_s)
    burst_waiting, burst_minutes = backlog(load.burst_rate, load.burst_s, first.per_s)
    copies = inputs.limit("postgres_copies")
    replicas = sum(one.replicas for one in processes)
    cores = replicas + copies * math.ceil(postgres / used) + brokers * inputs.limit("broker_cores")
    memory = (
        replicas * inputs.limit("memory_gib_a_process")
        + copies * math.ceil(postgres / used) * inputs.limit("memory_gib_a_postgres_core")
        + brokers * inputs.limit("memory_gib_a_broker")
    )
    return DonationPlan(
        load=load,
        processes=processes,
        postgres_cores=postgres,
        postgres_servers=max(1, math.ceil(postgres / used / inputs.limit("postgres_server_cores"))),
        wal_mb_s=load.rate * inputs.get("bytes_a_donation", "wal") / 1e6,
        database_gb=database_gb,
        kafka_cores=kafka,
        brokers=brokers,
        kafka_gb=kafka_gb,
        partitions=max(int(inputs.limit("partitions")), *(one.replicas for one in processes[1:])),
        dollars_an_hour=cores * inputs.price("core_hour") + memory * inputs.price("gib_memory_hour"),
        disk_dollars_a_month=(database_gb * copies + kafka_gb) * inputs.price("gb_disk_month"),
        bottleneck=first,
        stripe_backlog=stripe_waiting,
        stripe_drain_minutes=stripe_minutes,
        stripe_rate_needed=load.rate * inputs.get("events_a_donation", "stripe_checkouts"),
        burst_backlog=burst_waiting,
        burst_drain_minutes=burst_minutes,
    )


def plan_readers(inputs: Inputs, audience: Audience) -> ReaderPlan:
    """What an audience needs at the edge, and what the same reads cost at a CDN."""

    def given(name: str) -> float:
        return inputs.get("readers", name)

    reads = audience.viewers / given("poll_s")
    same = given("not_modified_share")
    read_us = given("edge_cpu_us_a_read") * (1 - same) + given("edge_cpu_us_a_304") * same
    read_bytes = given("bytes_a_read") * (1 - same) + given("bytes_a_304") * same
    sends = audience.overlays * given("stream_frames_a_second")
    stream_bytes = sends * given("stream_frame_bytes")
    edge_cores = reads * read_us / 1e6
    nchan_cores = sends * given("nchan_cpu_us_a_send") / 1e6
    egress_gb_h = (reads * read_bytes + stream_bytes) * 3600 / 1e9
    used = inputs.limit("utilisation")
    provisioned = math.ceil((edge_cores + nchan_cores) / used)
    traffic_dollars = egress_gb_h * inputs.price("gb_egress")
    read_gb_h = reads * read_bytes * 3600 / 1e9
    cdn = reads * 3600 / 1e6 * inputs.price("million_cdn_requests") + read_gb_h * inputs.price("gb_cdn")
    return ReaderPlan(
        audience=audience,
        reads_s=reads,
        edge_cores=edge_cores,
        edge_gbit_s=reads * read_bytes * 8 / 1e9,
        origin_reads_s=given("origin_reads_a_second"),
        stream_sends_s=sends,
        nchan_cores=nchan_cores,
        gateway_cores=sends * given("gateway_cpu_us_a_send") / 1e6,
        stream_gbit_s=stream_bytes * 8 / 1e9,
        stream_memory_gib=audience.overlays * given("nchan_kib_a_client") / 1024**2,
        machines_for_cpu=math.ceil(provisioned / inputs.limit("edge_machine_cores")),
        machines_for_traffic=math.ceil(egress_gb_h * 8 / 3600 / used / inputs.limit("edge_machine_gbit_s")),
        edge_dollars_an_hour=provisioned * inputs.price("core_hour") + traffic_dollars,
        traffic_dollars_an_hour=traffic_dollars,
        cdn_dollars_an_hour=cdn,
    )


def database_sizes(inputs: Inputs, donations: int) -> dict[str, float]:
    """GB of each database after so many donations."""
    return {name: donations * inputs.get("bytes_a_donation", name) / 1e9 for name in DATABASES}
