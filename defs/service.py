"""Starting the inference service, for a run or for as long as `tenor up` lasts."""

import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conf.files import REPOSITORY
from conf.options import Serving
from defs.processes import Processes
from resources.inference import Inference, ServiceDown
from serving import options


def url_of(serving: Serving) -> str:
    return f"http://{serving.host}:{serving.port}"


def urls_of(serving: Serving) -> list[str]:
    """The addresses of the services that serve this store."""
    return list(serving.instances or [url_of(serving)])


def ui_of(serving: Serving) -> str:
    """The address of Dagster's pages, on this machine."""
    return f"http://127.0.0.1:{serving.dagster_port}"


def ui_link(serving: Serving) -> str:
    """What links into Dagster's pages begin with."""
    return serving.ui_url or ui_of(serving)


def service_link(serving: Serving, url: str) -> str:
    """What links to the service at `url` begin with: that address, unless people reach this machine's by another."""
    return serving.service_url or url if url == url_of(serving) else url


def another_store(serving: Serving, url: str, health: Mapping[str, Any], root: Path) -> Path | None:
    """The store that the service at `url` serves by its health, where it is not the one at `root`.

    None for a service of another machine too: there the same store may have another path.
    """
    from serving.access import local  # here: a service that was killed must be back soon

    theirs = Path(health["store"])
    here = url == url_of(serving) or local(url)
    return theirs if here and theirs != root else None


def start_service(processes: Processes, root: Path, serving: Serving) -> str:
    """The URL of a service of this store: the one that runs already, or a new one that ends with `processes`."""
    with Inference(url_of(serving), timeout=2.0) as running:
        try:
            if another_store(serving, running.url, running.health(), root) is None:
                return running.url
        except ServiceDown:
            pass
    port = _free_port(serving.host)
    root.mkdir(parents=True, exist_ok=True)
    processes.start(
        "service",
        command(root, serving.model_copy(update={"port": port})),
        {},
        cwd=REPOSITORY,
        log=root / "service.log",
    )
    return f"http://{serving.host}:{port}"


def command(root: Path, serving: Serving) -> list[str]:
    """The words that start the service; no secret is among them."""
    words = [sys.executable, "-m", "serving", "--store", str(root)]
    return [*words, "--host", serving.host, "--port", str(serving.port), "--options", options.text(serving)]


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
