"""Parameters and headers that the public routes share."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import Path, Query

from backbone.http.fields import REFERENCE, text_schema
from backbone.http.problems import Invalid, NotFound, documented

CACHED: Final = {"Cache-Control": "public, max-age=1"}
RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    304: {"description": "`If-None-Match` names the present `ETag`."},
    **documented(NotFound, Invalid),
}
Limit = Annotated[int, Query(ge=1, le=100, description="How many at most.")]
DriveRef = Annotated[str, Path(description="The drive's id or slug."), text_schema(REFERENCE)]
