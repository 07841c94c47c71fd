"""With the signal switched off, few champions are called significant: the whole path, from bars to the judgement.

Twenty markets of 10 sessions and 4 symbols: about 80 seconds of CPU.
"""

from pathlib import Path

import pytest

from tests.assets.conftest import SMALL, Pipeline

SEEDS = 20
AT_MOST = 4  # of 20 at a level of 5 %: five or more have a chance of 0.3 %
SIGNAL = "source.signal_ic={}"


def judged(root: Path, seed: int, ic: float) -> dict[str, object]:
    """The judgement of the first champion of a market of its own."""
    words = [word for word in SMALL if not word.startswith("source.seed")]
    made = Pipeline(root / f"{seed}", *words, "tuning=none", f"source.seed={seed}", SIGNAL.format(ic), "folds.count=2")
    made.run("bars", "features", "factors")
    id = made.run("model").metadata["model"]["bundle"]
    [found] = made.registry.judgements("5m", id)
    assert found["champion"] is None
    assert found["sections"] >= 60
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_without_a_signal_at_most_four_champions_of_twenty_are_called_significant(
    tmp_path: Path, configs: Path
) -> None:
    found = [judged(tmp_path, seed, 0.0) for seed in range(SEEDS)]
    called = [seed for seed, one in enumerate(found) if one["wins"]]
    assert len(called) <= AT_MOST, [(one["score"], one["p"]) for one in found]
    # They serve all the same, by the default, and the reason says that nothing was shown.
    for one in found:
        assert one["promotes"]
        assert one["wins"] or "is not significant" in str(one["why"])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_with_a_strong_signal_champions_are_called_significant(tmp_path: Path, configs: Path) -> None:
    """So that the test above does not pass by never calling any."""
    assert all(judged(tmp_path, seed, 0.7)["wins"] for seed in range(3))
