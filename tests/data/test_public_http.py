"""Rows do not reach what only this machine can reach, whatever the address, redirects and the answers for names say."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from qwenvl_train.data.media.locate import Locator
from qwenvl_train.data.public_http import is_public
from qwenvl_train.errors import UserError


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "64:ff9b::101:101", "::ffff:8.8.8.8"]
)
def test_public(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::", "::7f00:1",
    ],
)  # fmt: skip
def test_not_public(address):
    assert not is_public(address)


class Inside(BaseHTTPRequestHandler):
    """A server on this machine, which stands for one that must not be reached, and for one of the internet."""

    asked: list[str]
    target = ""

    def do_GET(self):
        self.asked.append(self.path)
        self.send_response(302 if self.target else 200)
        if self.target:
            self.send_header("Location", self.target)
        self.send_header("Content-Length", "0" if self.target else "6")
        self.end_headers()
        self.wfile.write(b"" if self.target else b"secret")

    def log_message(self, *args):
        pass


@pytest.fixture
def port(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    Inside.asked = []
    monkeypatch.setattr(Inside, "target", "")
    server = HTTPServer(("127.0.0.1", 0), Inside)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def locator(tmp_path) -> Locator:
    return Locator(tmp_path, fenced=False, allow_remote=True, cache=tmp_path / "cache")


def refused(locator: Locator, address: str) -> str:
    with pytest.raises(UserError, match=r"in a private network; set data\.allow_remote=private") as raised:
        locator.locate(address, "here")
    assert [path for path in locator.cache.rglob("*") if path.is_file()] == []
    return str(raised.value)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "0.0.0.0", "127.1", "2130706433", "0x7f000001", "[::ffff:127.0.0.1]"]
)
def test_this_machine_is_not_reached_by_any_of_its_names(port, locator, host):
    message = refused(locator, f"http://{host}:{port}/a.png")
    assert message.startswith(f"here: http://{host}:{port}/a.png could not be fetched: ")
    assert Inside.asked == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_addresses_of_a_cloud_s_secrets_are_not_connected_to(locator, scheme, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("connected"))
    monkeypatch.setenv("no_proxy", "*")
    assert "169.254.169.254" in refused(locator, f"{scheme}://169.254.169.254/latest/meta-data")


class Names:
    """Answers for names, one after another for a name that is asked for again, and connections to a public address that
    end at a server of the test."""

    PUBLIC = "93.184.215.14"

    def __init__(self, monkeypatch, port: int, **answers: list[str]):
        self.answers: dict[str, list[str]] = answers
        self.connected: list[str] = []
        ask, connect = socket.getaddrinfo, socket.create_connection

        def getaddrinfo(name, *arguments, **options):
            found = self.answers.get(name)
            return ask(found.pop(0) if found else name, *arguments, **options)

        def create_connection(place, *arguments, **options):
            self.connected.append(place[0])
            return connect(("127.0.0.1", port) if place[0] == self.PUBLIC else place, *arguments, **options)

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        monkeypatch.setattr(socket, "create_connection", create_connection)


def test_a_public_server_is_reached(port, locator, monkeypatch):
    names = Names(monkeypatch, port, pictures=[Names.PUBLIC])
    assert Path(locator.locate("http://pictures/a.png", "here")).read_bytes() == b"secret"
    assert names.connected == [Names.PUBLIC]


@pytest.mark.parametrize("host", ["127.0.0.1", "169.254.169.254", "rebound"])
def test_a_redirect_does_not_lead_inside(port, locator, monkeypatch, host):
    names = Names(monkeypatch, port, pictures=[Names.PUBLIC], rebound=["10.0.0.1"])
    monkeypatch.setattr(Inside, "target", f"http://{host}:{port}/secret")
    refused(locator, "http://pictures/a.png")
    assert Inside.asked == ["/a.png"]
    assert names.connected == [Names.PUBLIC]


def test_a_name_that_changes_its_answer_does_not_lead_inside(port, locator, monkeypatch):
    """The name is asked for once for each connection, which is made to the answer that was checked."""
    names = Names(monkeypatch, port, changing=[Names.PUBLIC, "127.0.0.1"])
    locator.locate("http://changing/a.png", "here")
    assert names.connected == [Names.PUBLIC]
    assert "127.0.0.1" in refused(
        Locator(locator.folder, False, True, locator.cache / "other"), "http://changing/a.png"
    )


def test_a_proxy_of_the_user_may_be_inside_but_not_what_is_fetched_through_it(port, locator, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
    monkeypatch.delenv("no_proxy", raising=False)
    refused(locator, "http://10.0.0.1/secret")
    assert Inside.asked == []
    locator.locate("http://93.184.215.14/a.png", "here")
    assert Inside.asked == ["http://93.184.215.14/a.png"]


def test_private_addresses_can_be_allowed(port, tmp_path):
    locator = Locator(tmp_path, fenced=False, allow_remote="private", cache=tmp_path)
    assert Path(locator.locate(f"http://localhost:{port}/a.png", "here")).read_bytes() == b"secret"
