"""The store's memory of past markets, as the routes ask it."""

from datetime import datetime
from pathlib import Path

from quant.bundle import Bundle
from quant.expression import ExpressionError
from quant.served_label import served_label
from resources.analogs import Analogs, Terms, analogs
from resources.database import Database
from resources.lake import Lake
from resources.postgres import DatabaseError
from resources.vectors import NoVectors, Vectors
from serving.problems import Problem


class Memory:
    """The store's states of past markets; nothing is opened before the first question."""

    def __init__(self, store: Path) -> None:
        self._lake = Lake(f"{store}/lake")
        self._database = Database(store)
        self._vectors = Vectors(self._database)

    def ask(self, bundle: Bundle, symbol: str | None, at: datetime, k: int) -> Analogs:
        """Blocking; the label is what the bundle predicts. Problem 404 or 503 where there is no answer."""
        declared = bundle.manifest["config"]
        apart = declared.get("vectors", {}).get("apart", 1) if isinstance(declared, dict) else 1
        try:
            terms = Terms(bundle.horizon, bundle.recipe.grid, served_label(bundle), apart, bundle.recipe.attributes)
            return analogs(self._vectors, self._lake, terms, at=at, symbol=symbol, k=k)
        except NoVectors as error:
            raise Problem(404, "no-vectors", str(error), horizon=bundle.horizon) from error
        except ExpressionError as error:
            raise Problem(409, "no-label", str(error), horizon=bundle.horizon) from error
        except DatabaseError as error:
            raise Problem(503, "no-database", str(error), headers={"retry-after": "10"}) from error

    def close(self) -> None:
        """Let go of the database."""
        self._database.release()
