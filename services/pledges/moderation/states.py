"""States of a donor's message, and what is shown in each. No I/O and no HTTP.

A message is the name and the message that a donor sent with a pledge, moderated together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from backbone.contracts.pledges import MessageState
from services.pledges.domain import DomainError
from services.pledges.donor_texts import displayed, visible

HELD, APPROVED = MessageState.HELD, MessageState.APPROVED
HIDDEN, PINNED = MessageState.HIDDEN, MessageState.PINNED


class Action(StrEnum):
    """What a moderator may do with a message. `hold` gives it back to be decided: it undoes a decision."""

    APPROVE = "approve"
    HIDE = "hide"
    PIN = "pin"
    UNPIN = "unpin"
    HOLD = "hold"


class IllegalDecision(DomainError):
    """The message's state does not allow the action."""


class MessageDecided(DomainError):
    """Another decision was made since the moderator read the message."""


NEXT: Final[Mapping[MessageState, Mapping[Action, MessageState | None]]] = {
    HELD: {
        Action.APPROVE: APPROVED,
        Action.HIDE: HIDDEN,
        Action.PIN: PINNED,
        Action.UNPIN: None,
        Action.HOLD: HELD,
    },
    APPROVED: {
        Action.APPROVE: APPROVED,
        Action.HIDE: HIDDEN,
        Action.PIN: PINNED,
        Action.UNPIN: APPROVED,
        Action.HOLD: HELD,
    },
    HIDDEN: {
        Action.APPROVE: APPROVED,
        Action.HIDE: HIDDEN,
        Action.PIN: PINNED,
        Action.UNPIN: None,
        Action.HOLD: HELD,
    },
    PINNED: {
        Action.APPROVE: PINNED,
        Action.HIDE: HIDDEN,
        Action.PIN: PINNED,
        Action.UNPIN: APPROVED,
        Action.HOLD: HELD,
    },
}
"""The next state for each action in each state; None is illegal. The same state is a repeat: a pinned message
is approved already."""


def next_state(state: MessageState, action: Action) -> MessageState:
    """The state after `action`. Raises `IllegalDecision`."""
    after = NEXT[state][action]
    if after is None:
        raise IllegalDecision(f"A message that is {state} is not pinned.")
    return after


class Texts(NamedTuple):
    """A donor's name and message; None where there is none, or none that may be shown."""

    name: str | None
    message: str | None


def shown(texts: Texts, state: str | None, held: Collection[str], version: int) -> Texts:
    """What may be shown of `texts`, the name of an anonymous donor not among them.

    A text without a moderator's decision (`version` 0) is shown if it contains no link, checked at every
    read; so is every text of an earlier version of this service, whose `state` is None. Of a message that the
    filters held, the fields in `held` are not shown; of one that a moderator gave back, none is. A state of a
    newer version shows nothing.
    """
    if state is None or (state == APPROVED and version == 0):
        return Texts(*map(displayed, texts))
    if state in (APPROVED, PINNED):
        return Texts(*map(_visible, texts))
    if state == HELD and held and version == 0:
        withheld = dict.fromkeys(held)
        return Texts(*map(displayed, texts._replace(**withheld)))
    return Texts(None, None)


def _visible(text: str | None) -> str | None:
    return (visible(text) or None) if text else None
