"""A server that answers whatever it is asked in JSON."""

import http.server
import json
import threading
from collections.abc import Callable
from typing import Any


class Answering:
    """At `url` until `stop`. answer: the status and what is said, of the body asked with (empty with GET)."""

    def __init__(self, answer: Callable[[bytes], tuple[int, Any]]) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, said = answer(self.rfile.read(int(self.headers.get("content-length", 0))))
                body = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=lambda: self._server.serve_forever(0.01), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
