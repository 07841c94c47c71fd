"""A small SMTP server for tests: it keeps what it is sent, and who logged in."""

import base64
import socketserver
import ssl
import threading
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Inbox:
    """What arrived. offers: extensions that EHLO names; refuse: a code with which every recipient is refused."""

    offers: tuple[str, ...] = ("AUTH PLAIN",)
    password: str = "swordfish"
    refuse: int | None = None
    certificate: tuple[Path, Path] | None = None
    letters: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    logged_in: list[tuple[str, str]] = field(default_factory=list)
    encrypted: bool = False


class _Session(socketserver.StreamRequestHandler):
    """RFC 5321 as far as smtplib asks for it."""

    def handle(self) -> None:
        box: Inbox = self.server.inbox  # type: ignore[attr-defined]
        self._say("220 test")
        while line := self.rfile.readline().decode().strip():
            box.commands.append(line)
            word = line.split()[0].upper()
            if word == "EHLO":
                offers = [offer for offer in box.offers if not (offer == "STARTTLS" and box.encrypted)]
                for number, offer in enumerate(("test", *offers)):
                    self._say(f"250{' ' if number == len(offers) else '-'}{offer}")
            elif word == "STARTTLS" and box.certificate:
                self._say("220 go on")
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(*box.certificate)
                self.request = context.wrap_socket(self.request, server_side=True)
                self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb")
                box.encrypted = True
            elif word == "AUTH":
                _, user, password = base64.b64decode(line.split()[2]).decode().split("\0")
                box.logged_in.append((user, password))
                self._say("235 welcome" if password == box.password else f"535 {password} is wrong")
            elif word == "RCPT" and box.refuse:
                self._say(f"{box.refuse} no")
            elif word == "DATA":
                self._say("354 go on")
                letter = []
                while (part := self.rfile.readline().decode()) not in (".\r\n", ""):
                    letter.append(part)
                box.letters.append("".join(letter))
                self._say("250 kept")
            elif word == "QUIT":
                self._say("221 bye")
                return
            else:
                self._say("250 fine")

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())
        self.wfile.flush()


class MailServer(socketserver.ThreadingTCPServer):
    """Listens on 127.0.0.1 at a free port, in a context."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, inbox: Inbox) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.inbox = inbox
        self.port = int(self.server_address[1])
        threading.Thread(target=lambda: self.serve_forever(0.01), daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
