"""The verb watch. It serves the report of a run to browsers on this machine, and the page follows the run."""

import hashlib
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from urllib.parse import parse_qs, urlsplit

from qwenvl_train.errors import UserError, message_of
from qwenvl_train.holder import LOCK, in_use
from qwenvl_train.reporting.pages.report import render
from qwenvl_train.reporting.recorded import refuse_other_folder

HOST, PORT, PORTS_TRIED = "127.0.0.1", 8420, 20
_NAMES_OF_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")
_PREDICTIONS = "predictions.jsonl"
_SHOWN_FILES = ("config.yaml", "metrics.jsonl", "components.json", "summary.json", "environment.json", _PREDICTIONS)
_SUFFIXES_OF_FILES = (".yaml", ".yml", ".json", ".jsonl", ".html", ".txt", ".py")
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"


def run(folder: Path, port: str = "") -> None:
    waits = may_begin(folder)
    if not waits:
        refuse_other_folder("watch", folder)
    with open_server(folder, port) as server:
        used = server.server_address[1]
        if waits:
            others = sorted(path.parent.name for path in folder.parent.glob("*/config.yaml"))
            known = (
                f" ({folder.parent} has {', '.join(others[:5])}{', …' if len(others) > 5 else ''})" if others else ""
            )
            print(f"waits for {folder} to begin{known}")
        print(f"watching    http://{HOST}:{used}/ (Ctrl-C ends it)")
        print(f"            from another machine, first: ssh -L {used}:{HOST}:{used} <this machine>", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def may_begin(folder: Path) -> bool:
    """Return whether a run that has not begun yet may write to this folder: the folder around it exists, and is that of
    runs."""
    around = folder.absolute().parent
    of_run = any((path / "config.yaml").is_file() for path in (folder, around, *around.parents))
    if of_run or folder.suffix in _SUFFIXES_OF_FILES:
        return False
    if folder.exists():
        return folder.is_dir() and all(path.name == LOCK for path in folder.iterdir())
    return around.is_dir() and (len(folder.parts) > 1 or any(around.glob("*/config.yaml")))


def open_server(folder: Path, port: str) -> ThreadingHTTPServer:
    """Return a server on a port: the given one, or else the first of PORTS_TRIED that is free."""
    if port and not (port.isdecimal() and int(port) < 2**16):
        raise UserError(f"watch: port={port} is not a port; use a number below 65536, such as port={PORT}.")
    for number in [int(port)] if port else range(PORT, PORT + PORTS_TRIED):
        try:
            return _Server((HOST, number), folder)
        except OSError as error:
            reason = error.strerror
    tried = f"port={port}" if port else f"the ports {PORT} to {PORT + PORTS_TRIED - 1}"
    raise UserError(f"watch: {tried} cannot be used ({reason}); name another one with port=….")


class LivePage:
    """The page of a run, which is made again when a file has changed."""

    def __init__(self, folder: Path):
        self._folder, self._lock = folder, Lock()
        self._made: dict[bool, tuple[str, str]] = {}
        """The version and the text of the newest page, with the answers and without them."""

    def version(self) -> str:
        # A run that is killed changes none of its files.
        return f"{self._digest(*_SHOWN_FILES)}{'-in-use' if in_use(self._folder) else ''}"

    def answers(self) -> str:
        """Return the version of the answers. A browser that has them does not need them again."""
        return self._digest(_PREDICTIONS)

    def text(self, with_answers: bool) -> str:
        with self._lock:
            version = self.version()
            made, text = self._made.get(with_answers, ("", ""))
            if made != version:
                text = render(self._folder, live=True, with_answers=with_answers)
                self._made[with_answers] = version, text
            return text

    def _digest(self, *names: str) -> str:
        found = hashlib.sha256()
        for name in names:
            path = self._folder / name
            status = path.stat() if path.exists() else None
            found.update(f"{name} {status and (status.st_mtime_ns, status.st_size)}\n".encode())
        return found.hexdigest()[:16]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], folder: Path):
        super().__init__(address, _Handler)
        self.page = LivePage(folder)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        address, page = urlsplit(self.path), self.server.page
        # A page of another site could let its own name point to this machine.
        if urlsplit(f"//{self.headers.get('Host', '')}").hostname not in _NAMES_OF_THIS_MACHINE:
            self._send(HTTPStatus.FORBIDDEN, "This page is for browsers on this machine.")
            return
        if address.path != "/":
            self._send(HTTPStatus.NOT_FOUND, "There is one page: /")
            return
        version, answers = page.version(), page.answers()
        if self.headers.get("If-None-Match") == version:
            self.send_response(HTTPStatus.NOT_MODIFIED)
            self.end_headers()
            return
        has_answers = parse_qs(address.query).get("answers") == [answers]
        try:
            text = page.text(with_answers=not has_answers)
        except UserError as error:  # a file of the folder is damaged
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, message_of(error))
            return
        self._send(HTTPStatus.OK, text, {"ETag": version, "X-Answers": answers})

    def _send(self, status: HTTPStatus, text: str, headers: dict[str, str] | None = None) -> None:
        body = text.encode()
        kind = "html" if status == HTTPStatus.OK else "plain"
        every = {
            "Content-Type": f"text/{kind}; charset=utf-8",
            "Content-Length": str(len(body)),
            "Content-Security-Policy": _POLICY,
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }
        with suppress(ConnectionError):  # the browser has left
            self.send_response(status)
            for name, value in (every | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing: the browser asks every second."""
