"""Render every Kubernetes overlay and check what comes out; `make k8s-check`.

Kubernetes' own kinds are held against its OpenAPI schemas, strictly: a field that does not exist
fails. Strimzi's, CloudNativePG's, KEDA's and the Prometheus Operator's against `schemas.yaml`. The
PrometheusRule must say what deploy/prometheus/ says, and the Dockerfile goes through hadolint. Exits
1 with a line for each thing that is wrong.
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
"""The oldest Kubernetes these manifests need (preStop's sleep) and the newest the schemas know."""


def render(folder: Path) -> list[dict[str, Any]]:
    """Every resource of a kustomization; raises CalledProcessError where it cannot be built."""
    built = subprocess.run(
        [TOOLS / "kubectl", "kustomize", folder], capture_output=True, text=True, check=True
    )
    return [resource for resource in yaml.safe_load_all(built.stdout) if resource]


def closed(schema: Any) -> Any:
    """`schema` with every object in it refusing fields it does not name."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(part) for name, part in schema.items()}
    if isinstance(found.get("properties"), dict):
        return {"type": "object", "additionalProperties": False, **found}
    return found


class Schemas:
    """What may stand in a resource, of Kubernetes' own and of the others'."""

    def __init__(self, described: Mapping[str, Any]) -> None:
        shared = {name: closed(part) for name, part in described["definitions"].items()}
        self._others = {
            kind: Draft202012Validator({**closed(spec), "definitions": shared})
            for kind, spec in described["kinds"].items()
        }

    def faults(self, resource: Mapping[str, Any]) -> Iterator[str]:
        """What is wrong with a resource, a line each; an unknown kind is."""
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
    """What is wrong with a kustomization, a line each."""
    for resource in render(folder):
        for fault in schemas.faults(resource):
            yield f"{folder.name}: {resource['kind']} {resource['metadata']['name']}: {fault}"


def lint_image() -> Iterator[str]:
    """What hadolint has to say about the Dockerfile."""
    linted = subprocess.run(
        [TOOLS / "hadolint", "Dockerfile"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    yield from linted.stdout.splitlines()


def compare_rules() -> Iterator[str]:
    """Whether the PrometheusRule is that of the rule files as they are now."""
    if WRITTEN.read_text(encoding="utf-8") != prometheus_rule():
        yield "the alert rules changed: run python deploy/k8s/prometheus_rule.py"


def main(arguments: Sequence[str]) -> int:
    """Check the kustomizations named, or all there are; the exit status."""
    schemas = Schemas(yaml.safe_load((FOLDER / "schemas.yaml").read_text(encoding="utf-8")))
    every = [FOLDER / "base", *sorted((FOLDER / "overlays").iterdir())]
    folders = [Path(name) for name in arguments] or every
    faults = [*lint_image(), *compare_rules()]
    for folder in folders:
        try:
            found = list(check(folder, schemas))
        except subprocess.CalledProcessError as error:
            found = [f"{folder.name}: {error.stderr.strip()}"]
        sys.stdout.write(f"{folder.name}: {'wrong' if found else 'renders, every resource is valid'}\n")
        faults += found
    sys.stdout.writelines(f"  {fault}\n" for fault in faults)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
