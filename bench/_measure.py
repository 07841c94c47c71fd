"""Interleaved timing: on a noisy machine peers must meet the same noise, and the median tells.

CPU time, because both sides run on one thread and other work on the machine is none of their business.
"""

import statistics
import time
from collections.abc import Callable, Mapping


def medians(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each call over `rounds` rounds, in each of which every call runs once."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()  # warm
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.process_time()
            call()
            taken[name].append(time.process_time() - began)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}
