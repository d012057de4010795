"""The translation of domain errors into problem documents."""

from __future__ import annotations

import inspect

import pytest

from services.pledges import domain
from services.pledges.problems import problem_of

ERRORS = [
    kind
    for _, kind in inspect.getmembers(domain, inspect.isclass)
    if issubclass(kind, domain.DomainError) and kind is not domain.DomainError
]


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_domain_error_has_a_problem_with_its_detail_and_fields(kind: type[domain.DomainError]) -> None:
    fields = [{"pointer": "/amount", "detail": "too large"}]
    error = kind("/amount", "too large") if kind is domain.InvalidField else kind("why", errors=fields)
    problem = problem_of(error)
    assert 400 <= problem.status < 500
    assert (problem.detail, problem.errors) == (error.detail, fields)
