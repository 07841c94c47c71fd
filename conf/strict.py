"""What every typed part of the config is."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A mapping of known keys: unknown ones fail, and no type is guessed from another."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
