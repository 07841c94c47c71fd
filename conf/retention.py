"""What a vacuum leaves, and how often there is one: the type of conf/retention/*.yaml."""

from conf.fields import Count, Whole
from conf.strict import Strict


class Retention(Strict):
    """How long what nothing refers to is kept, in days; `bundles` is a number, `log_mib` a size. None: for ever.

    every_days: how often the loop deletes what goes; None: never, `tenor vacuum` does by hand.
    """

    every_days: Count | None = None
    versions_days: Count
    bundles: Whole
    reports_days: Count | None = None
    logs_days: Count | None = None
    log_mib: Count
    conditions_days: Count
    predictions_days: Count | None = None
