"""`qwenvl-train watch`: what its server answers. tests/reporting/test_pages_in_browser.py has the page."""

import http.client
import json
import socket
import socketserver
import struct
import threading
from http.server import ThreadingHTTPServer

import pytest

from qwenvl_train.cli import main
from qwenvl_train.reporting.reporter import RunInfo
from qwenvl_train.run.lock import locked
from qwenvl_train.verbs.watch import may_begin, open_server
from tests.reporting.rows import COMPONENTS, CONFIG, write_run


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    write_run(RunInfo("mine", folder, CONFIG, COMPONENTS, 120, 0), tmp_path)
    return folder


@pytest.fixture
def watched(folder):
    with open_server(folder, "0") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, server.server_address[1]
        server.shutdown()


def ask(port: int, path: str = "/", method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer, answer.read().decode()


def test_an_unchanged_page_and_unchanged_answers_are_not_sent_again(watched):
    folder, port = watched
    first, text = ask(port)
    assert (first.status, first.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "data:image/webp" in text
    again, nothing = ask(port, If_None_Match=first.headers["ETag"])
    assert (again.status, nothing) == (304, "")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 121, "loss": 0.5}\n')
    newer, text = ask(port, f"/?answers={first.headers['X-Answers']}", If_None_Match=first.headers["ETag"])
    assert newer.status == 200
    assert "121" in text
    assert "data:image/webp" not in text


def test_head_gets_the_headers_alone(watched):
    (whole, text), (head, nothing) = ask(watched[1]), ask(watched[1], method="HEAD")
    assert (head.status, nothing) == (200, "")
    assert head.headers["ETag"] == whole.headers["ETag"]
    assert head.headers["Content-Length"] == str(len(text.encode()))


def test_a_run_that_has_not_begun_is_waited_for(folder, monkeypatch, capsys):
    """The page is there, and is that of the run as soon as there is one."""
    run = folder.parent / "next"
    answers = []

    def serve(server):
        threading.Thread(target=socketserver.BaseServer.serve_forever, args=(server,), daemon=True).start()
        port = server.server_address[1]
        answers.append(ask(port))
        run.mkdir()
        write_run(RunInfo("next", run, CONFIG, COMPONENTS, 120, 0), folder.parent)
        answers.append(ask(port, If_None_Match=answers[0][0].headers["ETag"]))
        server.shutdown()
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", serve)
    assert main(["watch", str(run), "port=0"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"waits for {run} to begin ({folder.parent} has mine)"
    assert told[1].startswith("watching ")
    assert [answer.status for answer, _ in answers] == [200, 200]
    assert "not begun" in answers[0][1]
    assert ">120<" in answers[1][1]


@pytest.mark.parametrize("name", ["mine.yaml", "mine/checkpoints", "mine/checkpoints/step-1", "away/next", "other"])
def test_what_is_no_run_folder_is_not_waited_for(folder, name):
    (folder / "checkpoints").mkdir()
    (folder.parent / "other").mkdir()
    (folder.parent / "other" / "notes.txt").touch()
    assert not may_begin(folder.parent / name)


def test_the_page_is_made_again_when_the_run_is_killed(watched):
    folder, port = watched
    (folder / "summary.json").unlink()
    with locked(folder):
        first, text = ask(port)
        assert "training, step 120" in text
    newer, text = ask(port, If_None_Match=first.headers["ETag"])
    assert newer.status == 200
    assert "not finished" in text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "192.168.0.7", ""])
def test_a_page_of_another_site_cannot_read_it(watched, host):
    answer, text = ask(watched[1], Host=host)
    assert answer.status == 403
    assert "receipts" not in text


@pytest.mark.parametrize("host", ["localhost:9999", "127.0.0.1", "[::1]:8420"])
def test_a_forwarded_port_is_this_machine(watched, host):
    assert ask(watched[1], Host=host)[0].status == 200


@pytest.mark.parametrize("path", ["/metrics.jsonl", "/../config.yaml", "//etc/passwd"])
def test_there_is_one_page(watched, path):
    assert ask(watched[1], path)[0].status == 404


def test_it_is_served_on_loopback_only(folder):
    with open_server(folder, "0") as server:
        assert server.server_address[0] == "127.0.0.1"


def test_the_page_may_load_nothing(watched):
    policy = ask(watched[1])[0].headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")


def test_a_browser_that_leaves_is_no_error(watched, capfd):
    row = json.loads((watched[0] / "predictions.jsonl").read_text().splitlines()[0])
    (watched[0] / "predictions.jsonl").write_text(json.dumps(row | {"prompt": "x" * 10_000_000}) + "\n")
    with socket.create_connection(("127.0.0.1", watched[1])) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close by a reset
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connection.recv(10)
    assert ask(watched[1])[0].status == 200
    assert capfd.readouterr().err == ""


def test_a_damaged_file_is_told_and_the_server_goes_on(watched):
    folder, port = watched
    for name in ("summary.json", "predictions.jsonl"):
        whole = (folder / name).read_text()
        (folder / name).write_text("{")
        answer, text = ask(port)
        assert (answer.status, name in text) == (503, True)
        (folder / name).write_text(whole)
        assert ask(port)[0].status == 200


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "watch takes a run folder and port=…, such as qwenvl-train watch runs/mine; no folder is given."),
        (["{folder}", "lr=1"], "watch takes a run folder and port=…, such as"),
        (["{folder}", "port=http"], "watch: port=http is not a port; use a number below 65536, such as port=8420."),
        (["{folder}", "port={port}"], "cannot be used (Address already in use); name another one with port=…."),
        (["nowhere"], "watch: nowhere does not exist; name a run folder, such as runs/mine."),
    ],
)
def test_mistakes(watched, words, told, capsys):
    folder, port = watched
    assert main(["watch", *(word.format(folder=folder, port=port) for word in words)]) == 2
    assert told in capsys.readouterr().err


def test_a_port_in_use_gives_way_to_the_next(watched, monkeypatch):
    folder, port = watched
    monkeypatch.setattr("qwenvl_train.verbs.watch.PORT", port)
    with open_server(folder, "") as server:
        assert server.server_address[1] > port
