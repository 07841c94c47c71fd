"""How the inference service runs: the types of conf/serving/*.yaml."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from conf.fields import Count, Port, Wrong
from conf.strict import Strict

Evaluator = Literal["measured", "native", "mlx", "gpu"]
Seconds = Annotated[float, Field(gt=0, le=3600)]


class Limits(Strict):
    """What one request, and all requests together, may cost. Beyond it a request is refused and told when to retry."""

    body_mib: Annotated[int, Field(ge=1, le=1024)]
    rows: Count
    bars: Count
    last: Count
    seconds: Seconds
    waiting: Count
    waiting_rows: Count


class Batching(Strict):
    """How rows of concurrent requests are put together."""

    inline_rows: Count
    max_rows: Count


class Auth(Strict):
    """What API keys are held to, where there are keys."""

    requests_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Beside(Strict):
    """What the newest bundle that never served does beside the champion. canary: its share of requests."""

    shadow: bool
    canary: Annotated[float, Field(ge=0, lt=1)]


class Log(Strict):
    """The prediction log. rows: that wait for the writer, beyond which they are dropped and counted."""

    predictions: bool
    inputs: bool
    flush_seconds: Seconds
    rows: Count


class Live(Strict):
    """Pushed bars, live sections and their readers.

    deadline_seconds: how long after its bars end a section waits for those that have not arrived. keep: slots in
    memory, beyond the look-back. queue: messages that may wait for a stream's reader. refresh_seconds: pause between
    looks at the bars tables. cache_mib: encoded answers of /api/data and /api/features. rows: of one such answer.
    """

    deadline_seconds: Seconds
    keep: Count
    queue: Count
    refresh_seconds: Seconds
    cache_mib: Count
    rows: Count


class Options(Strict):
    """Everything that configures a running service; where it listens is `Serving`'s."""

    follow_seconds: Seconds
    drain_seconds: Annotated[int, Field(ge=1, le=3600)]
    access_lines: Count
    evaluator: Evaluator
    limits: Limits
    batching: Batching
    auth: Auth
    beside: Beside
    log: Log
    live: Live


def _address(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/@]+(/[^\s@]*)?", value):
        raise Wrong("must be the address of a service, such as http://10.0.0.2:8321, without a password")
    return value.rstrip("/")


Address = Annotated[str, AfterValidator(_address)]


class Serving(Options):
    """The service, and where it and the Dagster UI listen. instances: all services of the store; None: this one.

    ui_url, service_url: what links for people begin with; None: with where the two listen.
    """

    host: str
    port: Port
    dagster_port: Port
    instances: Annotated[list[Address], Field(min_length=1)] | None = None
    ui_url: Address | None = None
    service_url: Address | None = None
