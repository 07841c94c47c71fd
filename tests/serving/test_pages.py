"""The pages in a real browser: signals arrive over its WebSocket, `/docs` asks, nothing comes from elsewhere."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import polars as pl
import pytest

from quant.bundle import Bundle
from resources.registry import Registry
from serving.keys import KeyRing, digest_of, parse
from tests.browser import Page, chromium
from tests.serving.conftest import Serve
from tests.serving.test_live import LIVE, push, warm


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    folder = tmp_path / "browser"
    folder.mkdir()
    with chromium(folder) as made:
        yield made


@pytest.fixture
def live(registry: Registry, tmp_path: Path, serve: Serve) -> Iterator[httpx.Client]:
    with serve(tmp_path, live=LIVE) as address, httpx.Client(base_url=address, timeout=30) as client:
        warm(client)
        yield client


def from_here(page: Page, client: httpx.Client) -> None:
    """Nothing was fetched from elsewhere, and nothing went wrong."""
    host = str(client.base_url).partition("://")[2]
    assert page.troubles == []
    assert {url.partition("://")[2].partition("/")[0] for url in page.fetched if url != "about:blank"} == {host}


def test_a_browser_receives_each_section_over_its_websocket(
    live: httpx.Client, page: Page, bundles: list[Bundle], bars: pl.DataFrame
) -> None:
    whole = bars.with_columns(price_factor=pl.lit(1.0))
    stamps = whole["timestamp"].unique().sort()[:33]
    push(live, whole.filter(pl.col("timestamp") < stamps[30]))
    page.open(str(live.base_url))
    page.until("document.getElementById('stream')?.className === 'live'")
    assert bundles[0].id in page.value("document.getElementById('status').innerText")
    for stamp in stamps[30:]:
        push(live, whole.filter(pl.col("timestamp") == stamp))
        shown = json.dumps(f"{stamp:%Y-%m-%d %H:%M:%S} UTC")
        page.until(f"document.getElementById('signals-5m')?.innerText.includes({shown})")
        rows = page.value(
            "[...document.querySelectorAll('#signals-5m tr')].slice(1)"
            ".map(row => [row.title, ...[...row.cells].map(cell => cell.textContent)])"
        )
        [section] = live.get("/signals/5m").json()["sections"]
        told = sorted(section["signals"], key=lambda one: -one["prediction"])
        assert [(row[0], row[1]) for row in rows] == [(one["signal"], one["symbol"]) for one in told]
        assert [float(row[2]) for row in rows] == pytest.approx([one["prediction"] for one in told], rel=1e-5)
    from_here(page, live)
    assert any(url.startswith("ws://") and url.endswith("/stream") for url in page.fetched)
    asked = [url for url in page.fetched if "/signals/" in url]
    assert len(asked) <= 2, "sections come over the socket; the newest is asked for once, when it opens"


def test_a_browser_reads_the_documentation_and_asks_a_route_from_it(live: httpx.Client, page: Page) -> None:
    page.open(f"{live.base_url}/docs")
    page.until("document.body?.dataset.ready")
    paths = live.get("/openapi.json").json()["paths"]
    shown = page.value("[...document.querySelectorAll('summary')].map(one => one.innerText)")
    assert len(shown) == sum(map(len, paths.values()))
    for path in paths:
        assert any(path in text for text in shown), path
    body = json.dumps(live.get("/models/5m/example").text)
    page.value(
        "(() => { const box = document.getElementById('post-/predict'); box.open = true;"
        " box.dispatchEvent(new Event('toggle'));"
        f" box.querySelector('textarea').value = {body}; box.querySelector('button').click(); }})()"
    )
    answer = page.until(
        "(text => text.length > 1 && text)(document.querySelector('[id=\"post-/predict\"] .answer').textContent)"
    )
    assert answer.startswith("200 in ")
    assert '"prediction":' in answer
    # Each box opens, whatever its schemas are.
    page.value(
        "document.querySelectorAll('details').forEach("
        "box => { box.open = true; box.dispatchEvent(new Event('toggle')) })"
    )
    assert page.value("document.querySelectorAll('textarea').length") >= 5
    assert "coverage" in page.value("document.getElementById('post-/predict').innerText")
    from_here(page, live)


def test_a_browser_with_a_key_receives_signals_where_the_service_has_keys(
    registry: Registry, tmp_path: Path, serve: Serve, page: Page, bars: pl.DataFrame
) -> None:
    ring = KeyRing(parse(f"desk:read:{digest_of('secret')} feed:push:{digest_of('pushes')}"))
    whole = bars.with_columns(price_factor=pl.lit(1.0))
    stamps = whole["timestamp"].unique().sort()[:31]
    headers = {"authorization": "Bearer secret"}
    with (
        serve(tmp_path, live=LIVE, keys=ring) as address,
        httpx.Client(base_url=address, timeout=30, headers=headers) as reader,
        httpx.Client(base_url=address, timeout=30, headers={"authorization": "Bearer pushes"}) as feed,
    ):
        warm(reader)
        push(feed, whole.filter(pl.col("timestamp") < stamps[30]))
        page.open(address.replace("http://", "http://any:secret@"))
        page.until("document.getElementById('stream')?.className === 'live'")
        push(feed, whole.filter(pl.col("timestamp") == stamps[30]))
        shown = json.dumps(f"{stamps[30]:%Y-%m-%d %H:%M:%S} UTC")
        page.until(f"document.getElementById('signals-5m')?.innerText.includes({shown})")
        page.open("about:blank")
