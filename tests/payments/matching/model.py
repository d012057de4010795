"""A plain model of matching pools: gifts as numbers, no tables, no versions, nothing stored but shares."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ModelPool:
    drive: int
    cap: int
    ratio: int
    per_gift_cap: int | None
    starts_at: int
    ends_at: int | None


@dataclass
class ModelGift:
    drive: int
    units: int
    at: int
    refunds: dict[str, int] = field(default_factory=dict)
    disputed: bool = False
    held: bool = True
    is_known: bool = False
    """Whether it ever counted."""
    net: int = 0
    """What counted of it when it was last restated; 0 while it is held."""
    firsts: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By pool: its first share, and the net that it was computed from."""
    shares: dict[int, int] = field(default_factory=dict)

    def left(self) -> int:
        """What is left of it, whether or not it is held."""
        left = self.units - sum(self.refunds.values())
        return left - max(0, left) if self.disputed else left


@dataclass
class Model:
    """Drives are numbers, and `currencies` says in which a drive is; gifts are in USD."""

    pools: list[ModelPool] = field(default_factory=list)
    gifts: dict[int, ModelGift] = field(default_factory=dict)
    currencies: dict[int, str] = field(default_factory=lambda: {0: "USD", 1: "USD"})

    def used(self, pool: int) -> int:
        return sum(gift.shares.get(pool, 0) for gift in self.gifts.values())

    def settle(self, numbers: set[int]) -> None:
        """Match the gifts that changed together."""
        changed = sorted((self.gifts[number] for number in numbers), key=lambda gift: gift.at)
        nets = []
        for gift in changed:
            gift.held = self.currencies[gift.drive] != "USD"
            nets.append(0 if gift.held else max(0, gift.left()))
        for gift, net in zip(changed, nets, strict=True):
            for pool, (first, base) in gift.firsts.items():
                gift.shares[pool] = min(gift.shares[pool], first * min(net, base) // base)
        for gift, net in zip(changed, nets, strict=True):
            for pool, (first, base) in gift.firsts.items():
                due = first * min(net, base) // base
                restored = due - first * min(gift.net, base) // base
                remains = self.pools[pool].cap - self.used(pool)
                gift.shares[pool] += max(0, min(restored, due - gift.shares[pool], remains))
        for gift, net in zip(changed, nets, strict=True):
            if not gift.held and not gift.is_known:
                gift.is_known = True
                self._match(gift, net)
            gift.net = net

    def _match(self, gift: ModelGift, net: int) -> None:
        for number, pool in enumerate(self.pools):
            is_open = pool.starts_at <= gift.at and (pool.ends_at is None or gift.at < pool.ends_at)
            if pool.drive != gift.drive or not is_open:
                continue
            share = min(net * pool.ratio // 10_000, pool.cap - self.used(number))
            if pool.per_gift_cap is not None:
                share = min(share, pool.per_gift_cap)
            if share > 0:
                gift.firsts[number], gift.shares[number] = (share, net), share
