"""The base of every value that is read from data or written to JSON."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict


class Value(BaseModel):
    """An immutable value. Unknown keys are refused, so that a misspelt key in data is an error and not a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    def to_json(self) -> dict[str, Any]:
        """Return the value as JSON types, keys by their public names."""
        return self.model_dump(mode="json", by_alias=True)

    def content_digest(self) -> str:
        """Return the hex digest of the value's canonical JSON: the same value, the same digest, on every machine."""
        return digest_of(self.to_json())


def digest_of(document: dict[str, Any]) -> str:
    """Return the hex SHA-256 of JSON types, written in the one canonical way."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
