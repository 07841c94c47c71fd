"""The UI in a real browser: a person follows the loop from link to link, from the failed check to what serves."""

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from assets import drift_history, names
from conf.files import REPOSITORY
from defs.processes import Processes
from defs.service import command
from resources import dagster_storage
from resources.inference import Inference
from resources.settings import OVERRIDES_VARIABLE
from tests.assets.conftest import Pipeline, configs, environment
from tests.browser import Page, chromium
from tests.defs.looping import WORDS, Loop
from tests.defs.test_up import answers, free_port, wait

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
__all__ = ["configs", "environment"]  # the small sets, in the place of this folder's config
LONG = 180.0  # seconds: the UI is large, and the machine may be busy
CHECKS = f"/assets/5m/drift?view=checks&checkDetail={names.NO_DRIFT}"


@dataclass(frozen=True)
class Seen:
    """A store in which the loop went round, what shows it, and what a person should find there."""

    loop: Loop
    ui: str
    service: str
    cause: str  # the session whose failed check caused the retraining
    newest: str  # the newest session, whose check failed too
    run: str  # which retrained the model
    bundles: tuple[str, str]  # the first model and the second


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, configs: Path) -> Iterator[Seen]:
    root, ports = tmp_path_factory.mktemp("ui") / "store", (free_port(), free_port())
    words = (*WORDS, f"serving.port={ports[0]}", f"serving.dagster_port={ports[1]}")
    with pytest.MonkeyPatch.context() as patch, dagster_storage.instance(root) as instance, Processes() as processes:
        loop = Loop(Pipeline(root, *words, instance=instance))
        patch.setenv("TENOR_HOME", str(root))
        patch.setenv("DAGSTER_HOME", str(REPOSITORY))
        patch.setenv(OVERRIDES_VARIABLE, shlex.join(loop.made.words))
        serving = loop.plan.horizon.serving
        processes.start("service", command(root, serving), {}, cwd=REPOSITORY, log=root / "service.log")
        ui, service = f"http://127.0.0.1:{ports[1]}", f"http://127.0.0.1:{ports[0]}"
        page = [str(Path(sys.executable).with_name("dagster-webserver")), "-w", "workspace.yaml", "-p", str(ports[1])]
        processes.start("ui", page, {}, cwd=REPOSITORY, log=root / "ui.log")
        loop.close(15)
        first, _ = trained(loop)
        for session in (16, 17):
            cause = loop.close(session, moved=3.0)
            loop.made.run("drift", keys=[cause])
        second, run = trained(loop)
        newest = loop.close(18, moved=4.0)
        loop.made.run("drift", keys=[newest])
        if loop.made.registry.champion("5m").id != second:  # type: ignore[union-attr]
            loop.made.registry.promote("5m", second, "the desk wants it", by="me")
        loop.made.registry.rollback("5m", "it trades too much", by="me")
        with Inference(service) as asked:
            asked.wait_ready(LONG)
        loop.made.run("deployment")
        wait(lambda: answers(ui), LONG, "the start of the UI")
        yield Seen(loop, ui, service, cause, newest, run, (first, second))


def trained(loop: Loop) -> tuple[str, str]:
    """What the sensor asks for, done: the bundle, and the run."""
    request = loop.tick()
    assert not isinstance(request, str), request
    done = loop.train(dict(request.tags))
    assert done.success
    loop.made.run("evaluation")
    return loop.told()["bundle"], done.run_id


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with chromium(tmp_path) as made:
        yield made


def linked(page: Page, service: str) -> list[str]:
    """The addresses of the service that a page links to; each of them answers."""
    found = page.value("[...document.querySelectorAll('a')].map(link => link.href)")
    pages = sorted({address for address in found if address.startswith(service)})
    for address in pages:
        assert httpx.get(address, timeout=60).status_code == 200, address
    return pages


def worst(seen: Seen, session: str) -> list[str]:
    """The columns of a session that drifted, the furthest first, as the table has them."""
    rows = drift_history.history(seen.loop.plan, seen.loop.made.lake, seen.loop.days[-1], 1000)
    rows = rows.filter(rows["session"].cast(str) == session).filter("drifted").sort("excess", descending=True)
    return rows["column"].to_list()


def shown(page: Page) -> list[str]:
    """The columns that a report marks as drifted, from the top."""
    page.until("!!document.querySelector('td .over')", LONG)
    found: list[str] = page.value("[...document.querySelectorAll('td:first-child .over')].map(cell => cell.innerText)")
    return found


def test_the_graph_of_a_horizon_shows_its_steps(seen: Seen, page: Page) -> None:
    page.open(f"{seen.ui}/locations/tenor/asset-groups/{names.group('5m')}")
    for step in (*names.STEPS, names.OUTCOMES, names.REALIZED):
        page.shows(step, LONG)
    page.open(f"{seen.ui}/automation")
    for sensor in ("refresh_5m", "follow_5m", "retrain_5m", "deploy_champions", "tell_alerts"):
        page.shows(sensor, LONG)


def test_the_report_of_a_failed_check_is_one_click_away(seen: Seen, page: Page) -> None:
    page.open(seen.ui + CHECKS)
    page.shows("No longer looks like training", LONG)
    page.shows("look like what the champion was trained on", LONG)  # what the check is for
    assert f"{seen.service}/reports/5m/drift.html" in linked(page, seen.service)
    page.follow(f"/reports/5m/drift-{seen.newest}.html", LONG)
    found = shown(page)
    assert found
    assert found == worst(seen, seen.newest)
    page.follow("/reports/5m/drift.html", LONG)
    for session in (seen.cause, seen.newest):
        page.shows(session, LONG)


def test_the_retrained_model_tells_its_cause_and_leads_to_it(seen: Seen, page: Page) -> None:
    page.open(f"{seen.ui}/assets/5m/model")
    page.shows(f"drift check of session {seen.cause}: No longer looks like training", LONG)
    assert seen.bundles[1] in page.value("document.body.innerText")
    assert len(linked(page, seen.service)) >= 2  # the evaluation, and the report of the cause
    page.follow("checkDetail=", LONG)
    page.shows(names.NO_DRIFT, LONG)
    page.shows("Failed", LONG)
    # The check shows its newest result; what it found when it caused the training is on its report.
    page.open(f"{seen.ui}/assets/5m/model")
    page.follow(f"/reports/5m/drift-{seen.cause}.html", LONG)
    assert shown(page) == worst(seen, seen.cause)
    page.open(f"{seen.ui}/assets/5m/model")
    page.follow(f"/runs/{seen.run}", LONG)
    page.shows("Success", LONG)
    tags = "[...document.querySelectorAll('button')].find(one => one.innerText.includes('View tags'))"
    page.until(f"!!{tags}", LONG)
    page.value(f"{tags}.click()")
    page.shows("tenor/cause: drift", LONG)


def test_the_deployment_tells_who_rolled_back_and_leads_to_the_training(seen: Seen, page: Page) -> None:
    page.open(f"{seen.ui}/assets/5m/model")
    page.follow("/assets/5m/deployment", LONG)
    for told in ("rollback", "it trades too much", seen.bundles[0], "1 of 1 services"):
        page.shows(told, LONG)
    assert any(re.search(rf"evaluation-{seen.bundles[0]}\.html$", address) for address in linked(page, seen.service))
    first = seen.loop.made.registry.provenance("5m", seen.bundles[0])["run"]
    page.follow(f"/runs/{first}", LONG)
    page.shows("Success", LONG)
