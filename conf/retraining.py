"""When models are trained by themselves: the type of conf/retraining/*.yaml."""

from conf.fields import Count, Inside
from conf.strict import Strict


class Retraining(Strict):
    """What warrants a training, and what holds it back; None: that does not."""

    on_drift: bool
    most_false_alarms: Inside
    on_decay: bool
    first_sessions: Count | None = None
    age_sessions: Count | None = None
    every_sessions: Count | None = None
    cooldown_sessions: Count
    per_day: Count
    failures: Count
