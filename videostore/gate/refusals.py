"""What any route may answer instead of what it is for: one body, and the errors of each status."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, Field

from videostore.domain.access import Reason
from videostore.domain.errors import VideostoreError, every_error
from videostore.domain.refusal import told

REASONS: Final = sorted({told(reason) for reason in Reason} - {Reason.ALLOWED.value})
"""As they are told: a refusal does not say what is there."""


class Refusal(BaseModel):
    """Body of every answer that is neither 2xx nor 3xx."""

    error: str = Field(description="Name of the error.")
    message: str = Field(description="What happened, for a person.")
    hint: str = Field(description="What to do next; may be empty.")
    reason: str | None = Field(None, description="Of 403: why.", json_schema_extra={"enum": [*REASONS]})
    certificate: str | None = Field(None, description="Of 410 FootageDeleted: that of its deletion.")


def refusals() -> dict[int | str, dict[str, Any]]:
    """Return the answers that every route declares, by status."""
    names: dict[int, list[str]] = {}
    for one in every_error():
        names.setdefault(one.http_status, []).append(one.__name__)
    names[VideostoreError.http_status] = ["any other"]
    declared: dict[int | str, dict[str, Any]] = {
        status: {"model": Refusal, "description": ", ".join(of)} for status, of in sorted(names.items())
    }
    return {**declared, "4XX": {"model": Refusal, "description": "none that is not above"}}
