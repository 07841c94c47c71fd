"""The group `alerts`, and `retention`: what the documents show, and wrong values."""

import re
import shutil
from pathlib import Path

import pytest

from conf.compose import compose
from conf.errors import ConfigError
from tests.conftest import SHIPPED


def test_the_channels_of_the_documents_are_a_config_as_they_stand(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    [block] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    shutil.copytree(SHIPPED, tmp_path / "conf", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    (tmp_path / "conf" / "alerts" / "desk.yaml").write_text(block)
    found = compose(["horizon=5m", "alerts=desk"], tmp_path / "conf")["5m"].alerts
    assert found.webhook is not None
    assert found.email is not None
    assert (found.webhook.url_from, found.email.password_from) == ("TENOR_ALERTS_URL", "TENOR_SMTP_PASSWORD")
    assert found.after == compose(["horizon=5m"], tmp_path / "conf")["5m"].alerts.after


WRONG = [
    ("alerts.webhook={url_from: 'https://hooks.example/s3cr3t'}", "alerts.webhook.url_from"),
    ("alerts.webhook={url_from: T_HOOK, header: Authorization}", "alerts.webhook.header_from"),
    (
        "alerts.email={host: h, port: 25, security: none, user: me, from: a@b, to: [a@b]}",
        "alerts.email.password_from",
    ),
    ("alerts.email={host: h, port: 25, security: none, from: a@b, to: []}", "alerts.email.to"),
    ("alerts.after.run_failed=-1", "alerts.after.run_failed"),
    ("alerts.severity=LOUD", "alerts.severity"),
    ("retention.versions_days=0", "retention.versions_days"),
    ("retention.bundels=3", "retention.bundles"),
]


@pytest.mark.parametrize(
    ("word", "told"),
    WRONG[:1] + [pytest.param(*one, marks=pytest.mark.slow) for one in WRONG[1:]],
)
def test_a_wrong_value_is_told_with_its_key(word: str, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        compose(["horizon=5m", word])
    assert told in str(refused.value)
