"""The base of all configs: immutable values that refuse what they do not know."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from mimic_core.base.errors import ConfigError


class Frozen(BaseModel):
    """Base of all configs: immutable, hashable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Any:
        """Build from plain values; a wrong one is a ``ConfigError`` naming field and value."""
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"]) or cls.__name__
            raise ConfigError(
                f"setting {name}: {first['msg']}",
                got=first.get("input"),
                next_step="correct that setting and try again",
            ) from error
