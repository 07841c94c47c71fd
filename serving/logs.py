"""Structured logs: one JSON line per event, tied to its request by a correlation id."""

import itertools
import json
import logging
import sys
import uuid
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

correlation: ContextVar[str | None] = ContextVar("correlation_id", default=None)  # None outside a request
log = logging.getLogger("tenor.serving")

_process = uuid.uuid4().hex[:20]
_numbers = itertools.count(1)


def fresh_id() -> str:
    """An id that no other request has, here or in any other process: 32 hex digits, in the order of asking."""
    return f"{_process}{next(_numbers):012x}"


def event(level: int, name: str, **fields: Any) -> None:
    """Write one structured line: what happened and its facts."""
    log.log(level, name, extra={"fields": fields})


class JsonLines(logging.Formatter):
    """A log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if identity := correlation.get():
            line["correlation_id"] = identity
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(level: str) -> None:
    """Send every logger of this process, uvicorn's too, to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)  # Python's own would be lines of another kind
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # At DEBUG the WebSocket library writes down every header, the API key among them.
    logging.getLogger("uvicorn.error").setLevel(max(logging.INFO, logging.getLogger().level))
