"""How the novelty of a row is measured, and when a model then abstains: the group `novelty`."""

from typing import Annotated

from pydantic import Field, model_validator

from conf.fields import Count, Inside, Wrong
from conf.strict import Strict


class Novelty(Strict):
    """Training rows that are compared with, how many of the nearest count, and the share above which to abstain."""

    sample: Annotated[int, Field(ge=100, le=20_000)]
    neighbours: Count
    abstain_above: Inside | None = None

    @model_validator(mode="after")
    def _there_are_so_many(self) -> "Novelty":
        if self.neighbours * 4 > self.sample:
            raise Wrong(f"must be at most a quarter of novelty.sample, {self.sample}", key="neighbours")
        return self
