"""What links for people begin with: this machine's ports, or the addresses by which others reach them."""

from typing import Any, cast

from assets.reports import Reports
from conf.compose import compose
from conf.options import Serving
from defs.graph import build
from defs.service import service_link, ui_link, ui_of, url_of

ELSEWHERE = ["serving.ui_url=https://ui.example.com/", "serving.service_url=https://example.com/tenor"]


def serving(*words: str) -> Serving:
    return compose(["horizon=5m", *words])["5m"].serving


def test_links_of_alerts_and_metadata_begin_with_the_addresses_by_which_people_reach_the_two() -> None:
    resources = cast(dict[str, Any], build(compose(["horizon=5m", *ELSEWHERE])).resources)
    links = cast(Reports, resources["reports"])
    assert links.run("1") == "https://ui.example.com/runs/1"
    assert links.check("5m", "drift", "x").startswith("https://ui.example.com/assets/5m/drift?")
    assert links.page("5m", "a.html") == "https://example.com/tenor/reports/5m/a.html"


def test_without_them_links_are_to_this_machines_ports() -> None:
    assert ui_link(serving()) == "http://127.0.0.1:3000"
    assert service_link(serving(), url_of(serving())) == "http://127.0.0.1:8321"


def test_what_tenor_asks_itself_it_asks_here_and_other_services_keep_their_address() -> None:
    told = serving(*ELSEWHERE)
    assert (ui_of(told), url_of(told)) == ("http://127.0.0.1:3000", "http://127.0.0.1:8321")
    assert service_link(told, url_of(told)) == "https://example.com/tenor"
    assert service_link(told, "http://10.0.0.2:8321") == "http://10.0.0.2:8321"
