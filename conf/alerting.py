"""Alerts: the types of conf/alerts/*.yaml. Secrets are named here by their environment variables, never held."""

from typing import Annotated, Final, Literal, get_args

from pydantic import Field, model_validator

from conf.fields import Amount, Port, Wrong
from conf.strict import Strict

Kind = Literal["data_late", "run_failed", "check_failed", "retraining_stopped", "service_stale"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Address = Annotated[str, Field(pattern=r"^[^@\s<>]+@[^@\s<>]+$")]
Header = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")]


class After(Strict):
    """Minutes that a condition must have lasted before it is told; None: it is not told."""

    data_late: Amount | None = None
    run_failed: Amount | None = None
    check_failed: Amount | None = None
    retraining_stopped: Amount | None = None
    service_stale: Amount | None = None

    def minutes(self, kind: Kind) -> float | None:
        found: float | None = getattr(self, kind)
        return found


class Webhook(Strict):
    """JSON by POST to the URL in the variable `url_from`, with a secret header where `header` names one."""

    url_from: Variable
    header: Header | None = None
    header_from: Variable | None = None

    @model_validator(mode="after")
    def _header_has_a_value(self) -> "Webhook":
        if (self.header is None) != (self.header_from is None):
            key = "header_from" if self.header_from is None else "header"
            raise Wrong("must be set where the other of header and header_from is", key=key)
        return self


class Email(Strict):
    """A message over SMTP; the password is in the variable `password_from`."""

    host: Annotated[str, Field(min_length=1)]
    port: Port
    security: Literal["starttls", "tls", "none"]
    user: str | None = None
    password_from: Variable | None = None
    from_: Address = Field(alias="from")
    to: Annotated[list[Address], Field(min_length=1)]

    @model_validator(mode="after")
    def _login_is_whole(self) -> "Email":
        if (self.user is None) != (self.password_from is None):
            key = "password_from" if self.password_from is None else "user"
            raise Wrong("must be set where the other of user and password_from is", key=key)
        return self


class Alerts(Strict):
    """What is told, when, and through which channels."""

    after: After
    severity: Literal["WARN", "ERROR"]
    model_days: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    gather_seconds: Amount
    remind_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    log: bool
    webhook: Webhook | None = None
    email: Email | None = None
