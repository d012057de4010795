"""Render and validate every Kubernetes overlay (`make k8s-check`).

Kubernetes' own kinds are validated strictly against its OpenAPI schemas: an unknown field is an error.
Resources of Strimzi, CloudNativePG, KEDA and the Prometheus Operator are validated against `schemas.yaml`.
The PrometheusRule must match deploy/prometheus/, and both Dockerfiles must pass hadolint. Exits with 1 and a
line for each error.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import yaml
from jsonschema import Draft202012Validator
from prometheus_rule import WRITTEN, prometheus_rule

FOLDER: Final = Path(__file__).parent
REPOSITORY: Final = FOLDER.parents[1]
TOOLS: Final = Path(sys.executable).parent
VERSIONS: Final = ("1.30", "1.37")
"""The oldest Kubernetes that the manifests support (preStop's sleep) and the newest with schemas."""


def render(folder: Path) -> list[dict[str, Any]]:
    """All resources of a kustomization. Raises CalledProcessError where it cannot be built."""
    built = subprocess.run(
        [TOOLS / "kubectl", "kustomize", folder], capture_output=True, text=True, check=True
    )
    return [resource for resource in yaml.safe_load_all(built.stdout) if resource]


def closed(schema: Any) -> Any:
    """`schema` with `additionalProperties: false` in every object."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(part) for name, part in schema.items()}
    if isinstance(found.get("properties"), dict):
        return {"type": "object", "additionalProperties": False, **found}
    return found


class Schemas:
    """The schemas of Kubernetes' own resources and of those in `schemas.yaml`."""

    def __init__(self, described: Mapping[str, Any]) -> None:
        shared = {name: closed(part) for name, part in described["definitions"].items()}
        self._others = {
            kind: Draft202012Validator({**closed(spec), "definitions": shared})
            for kind, spec in described["kinds"].items()
        }

    def faults(self, resource: Mapping[str, Any]) -> Iterator[str]:
        """The errors of a resource, one line each; an unknown kind is an error."""
        kind = f"{resource['apiVersion']}/{resource['kind']}"
        if kind not in self._others:
            yield from self._own_faults(resource)
            return
        for stray in sorted(set(resource) - {"apiVersion", "kind", "metadata", "spec"}):
            yield f"{stray}: not a field of {kind}"
        for error in self._others[kind].iter_errors(resource.get("spec")):
            yield f"spec.{'.'.join(map(str, error.path))}: {error.message}"

    def _own_faults(self, resource: Mapping[str, Any]) -> Iterator[str]:
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(resource, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                yield f"Kubernetes {version}: {'.'.join(map(str, error.path))}: {error.message}"
            except kubernetes_validate.SchemaNotFoundError as error:
                yield f"Kubernetes {version}: {error}"


def check(folder: Path, schemas: Schemas) -> Iterator[str]:
    """The errors of a kustomization, one line each."""
    for resource in render(folder):
        for fault in schemas.faults(resource):
            yield f"{folder.name}: {resource['kind']} {resource['metadata']['name']}: {fault}"


def lint_images() -> Iterator[str]:
    """hadolint's findings about the Dockerfiles."""
    linted = subprocess.run(
        [TOOLS / "hadolint", "Dockerfile", "deploy/edge/image/Dockerfile"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    yield from linted.stdout.splitlines()


def compare_rules() -> Iterator[str]:
    """An error if the PrometheusRule does not match the rule files."""
    if WRITTEN.read_text(encoding="utf-8") != prometheus_rule():
        yield "the alert rules changed: run python deploy/k8s/prometheus_rule.py"


def main(arguments: Sequence[str]) -> int:
    """Check the given kustomizations, by default all; returns the exit status."""
    schemas = Schemas(yaml.safe_load((FOLDER / "schemas.yaml").read_text(encoding="utf-8")))
    every = [FOLDER / "base", *sorted((FOLDER / "overlays").iterdir())]
    folders = [Path(name) for name in arguments] or every
    faults = [*lint_images(), *compare_rules()]
    for folder in folders:
        try:
            found = list(check(folder, schemas))
        except subprocess.CalledProcessError as error:
            found = [f"{folder.name}: {error.stderr.strip()}"]
        sys.stdout.write(f"{folder.name}: {'invalid' if found else 'renders, all resources are valid'}\n")
        faults += found
    sys.stdout.writelines(f"  {fault}\n" for fault in faults)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
