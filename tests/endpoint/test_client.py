"""The client asks only allowed hosts, and reports in one sentence whatever a server does wrong."""

import base64
import re
import socket
import threading
import time
from itertools import count
from pathlib import Path

import pytest
from PIL import Image

from qwenvl_train.endpoint import client as module
from qwenvl_train.endpoint.client import Endpoint, RefusedRequest
from qwenvl_train.endpoint.messages import messages_of
from qwenvl_train.endpoint.settings import EndpointConfig
from qwenvl_train.errors import UserError
from tests.conftest import conversation, sample_of
from tests.endpoint.servers import completion, serving, with_logprobs
from tests.videos import write_video

ASKED = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 7, "seed": 3}
MESSAGES = [{"role": "user", "content": "What?"}]


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def client(url: str, **changed) -> Endpoint:
    settings = {
        "url": url, "model": "judge", "key_variable": "JUDGE_KEY", "allowed_hosts": ["localhost", "127.0.0.1", "::1"],
        "workers": 3, "timeout_seconds": 5.0, "retries": 2,
    }  # fmt: skip
    return Endpoint(EndpointConfig.model_validate(settings | changed), "filter.endpoint")


def refused(url: str, n: int = 1, top_logprobs: int | None = None, **changed) -> str:
    """The error, which is one sentence."""
    with pytest.raises(UserError) as error:
        client(url, **changed).complete(MESSAGES, n=n, top_logprobs=top_logprobs, **ASKED)
    message = str(error.value)
    assert message.startswith("filter.endpoint")
    assert message.endswith(".")
    assert "\n" not in message
    return message


def test_a_request_and_its_answers(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "secret-key")

    def answer(handler, _):
        choices = [
            {"message": {"content": "Red.", "reasoning_content": "Hm."}, "finish_reason": "stop"},
            {"message": {"content": "Blu"}, "finish_reason": "length"},
        ]
        handler.send({"model": "judge-2026", "choices": choices, "usage": {"completion_tokens": 9}})

    with serving(answer) as server:
        first, second = client(server.url).complete(MESSAGES, n=2, **ASKED)
    assert (first.text, first.thoughts, first.ended, first.tokens) == ("Red.", "Hm.", True, None)
    assert (second.text, second.thoughts, second.ended) == ("Blu", "", False)
    assert server.paths == ["/v1/chat/completions"]
    assert server.headers[0]["Authorization"] == "Bearer secret-key"
    sent = server.requests[0]
    assert sent == {"model": "judge", "messages": MESSAGES, "n": 2, "stream": False, **ASKED}


def test_top_logprobs():
    with serving(lambda handler, _: handler.send(with_logprobs("4", {"4": -0.1, "5": -2.5}))) as server:
        (found,) = client(server.url).complete(MESSAGES, top_logprobs=20, **ASKED)
    assert found.top_logprobs == ({"4": -0.1, "5": -2.5},)
    assert found.tokens == 3
    assert server.requests[0]["top_logprobs"] == 20
    assert server.requests[0]["logprobs"] is True


def test_many_requests_keep_their_order_and_are_read_as_needed():
    def answer(handler, content):
        number = int(content["messages"][0]["content"])
        time.sleep(0.03 * (3 - number % 4))
        handler.send(completion(str(number)))

    read = []

    def requests():
        for number in range(40):
            read.append(number)
            yield number, {"messages": [{"role": "user", "content": str(number)}], **ASKED}

    with serving(answer) as server:
        answers = client(server.url).complete_all(requests())
        first = [next(answers)[0].text for _ in range(8)]
        assert len(read) <= 8 + 2 * 3
        answers.close()
        asked = len(server.requests)
        assert first == [str(number) for number in range(8)]
        assert asked <= 14
        assert [one.text for (one,) in client(server.url).complete_all(requests())] == [str(n) for n in range(40)]


@pytest.mark.parametrize("n", [0, 1])
def test_a_busy_server_is_asked_again(n):
    numbers = count()

    def answer(handler, _):
        if next(numbers) < 2:
            handler.send({"error": "later"}, (429, 503)[n], Retry_After="0")
        else:
            handler.send(completion("Red."))

    with serving(answer) as server:
        assert client(server.url).complete(MESSAGES, **ASKED)[0].text == "Red."
    assert len(server.requests) == 3


def test_pauses_grow(monkeypatch):
    pauses = []
    with serving(lambda handler, _: handler.send({}, 500)) as server:
        made = client(server.url, retries=3)
        monkeypatch.setattr(made._closed, "wait", pauses.append)
        with pytest.raises(UserError, match=r"500 Internal Server Error.*\(tried 4 times\)"):
            made.complete(MESSAGES, **ASKED)
    assert pauses == [0.01, 0.02, 0.04]


def test_a_server_that_is_down():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "cannot be reached: Connection refused (tried 3 times)" in refused(f"http://127.0.0.1:{port}/v1")


def test_a_server_that_comes_up_meanwhile():
    with serving(lambda handler, _: handler.send(completion("Red."))) as server:
        url = server.url
    made = client(url, retries=8)
    found = []
    thread = threading.Thread(target=lambda: found.extend(made.complete(MESSAGES, **ASKED)))
    thread.start()
    time.sleep(0.05)
    with serving(lambda handler, _: handler.send(completion("Red."))) as again:
        made.url = again.url + "/chat/completions"
        thread.join()
    assert found[0].text == "Red."


def slow(handler, _):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" ")
        time.sleep(0.02)


def slow_headers(handler, _):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Wait: ")
    for _ in range(100):
        handler.wfile.write(b".")
        time.sleep(0.02)


@pytest.mark.parametrize("answer", [slow, slow_headers, lambda *_: time.sleep(1)])
def test_a_server_that_never_ends(answer):
    start = time.monotonic()
    with serving(answer) as server:
        message = refused(server.url, timeout_seconds=0.2, retries=0)
        assert "has not answered within 0.2 seconds (filter.endpoint.timeout_seconds)" in message
        assert time.monotonic() - start < 0.9


def test_an_answer_without_end_is_cut(monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 2**20)

    def endless(handler, _):
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b" " * 65536)

    with serving(endless) as server:
        assert "has sent more than 1 MiB in one answer" in refused(server.url)
    assert len(server.requests) == 1


def cut(handler, _):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": ')


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (cut, "has ended its answer too early (tried 3 times)"),
        (lambda handler, _: handler.wfile.write(b"SSH-2.0\r\n\r\n"), "does not answer as a web server does"),
        (lambda *_: None, "Remote end closed connection"),
    ],
)
def test_broken_connections(answer, told):
    with serving(answer) as server:
        assert told in refused(server.url)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, "refuses the request: 401 Unauthorized, no … for you\\.?; put the right API key into .* JUDGE_KEY"),
        (404, "404 Not Found, .*; check filter.endpoint.url and filter.endpoint.model"),
        (400, "400 Bad Request, no … for you"),
    ],
)
def test_a_refused_request_is_not_repeated_and_tells_no_key(status, told, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "secret-key")
    with serving(lambda handler, _: handler.send({"error": {"message": "no secret-key for you"}}, status)) as server:
        message = refused(server.url)
    assert re.search(told, message)
    assert "secret" not in message
    assert len(server.requests) == 1


def of_rows(rows: str):
    """A request for each letter, which names its row."""
    return ((ord(row), {"messages": [{"role": "user", "content": row}], **ASKED}) for row in rows)


def refuses_capitals(status: int):
    def answer(handler, content):
        if (text := content["messages"][0]["content"]).isupper():
            handler.send({"error": {"message": "maximum context length is 9"}}, status)
        else:
            handler.send(completion(text))

    return answer


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize("rows", ["aBcDEFGh", "AAAABBBc", "AB"])
def test_a_refused_request_is_left_to_its_row(status, rows):
    with serving(refuses_capitals(status)) as server:
        found = list(client(server.url).complete_all(of_rows(rows)))
    for row, one in zip(rows, found, strict=True):
        if row.islower():
            assert one[0].text == row
        else:
            assert isinstance(one, RefusedRequest)
            assert re.search(f"refuses the request: {status} .*, maximum context length is 9$", one.told)


def test_requests_that_are_refused_in_general_end_the_job():
    with serving(refuses_capitals(400)) as server:
        made, found = client(server.url), []
        with pytest.raises(UserError, match=r"^filter.endpoint: .* refuses the request: 400 .*length is 9\.$"):
            found.extend(made.complete_all(of_rows("AABBCd")))
        made.proven = True
        assert len(list(made.complete_all(of_rows("AABBCd")))) == 6
        for rows in ("A", "B"):
            made = made if rows == "B" else client(server.url)
            list(made.complete_all(of_rows(rows)))
        with pytest.raises(UserError, match="refuses the request"):
            list(made.complete_all(of_rows("C")))


@pytest.mark.parametrize("status", [401, 403, 404])
def test_other_refusals_end_the_job_at_once(status):
    told = f"refuses the request: {status}"
    with serving(refuses_capitals(status)) as server, pytest.raises(UserError, match=told):
        list(client(server.url).complete_all(of_rows("aaaB")))


def test_a_long_message_is_shortened():
    with serving(lambda handler, _: handler.send(b"<html>" + b"a\n " * 5000, 400)) as server:
        assert len(refused(server.url)) < 500


CHOICE = {"message": {"content": "Red."}, "finish_reason": "stop"}


@pytest.mark.parametrize(
    ("answer", "asked", "told"),
    [
        (b"<html>Hello", {}, "is not JSON: '<html>Hello'"),
        (b"[" * 200_000, {}, "is not JSON"),
        ([], {}, "has no choices"),
        ({"choices": []}, {}, "has no choices"),
        ({"choices": {}}, {}, "has no choices"),
        ({"choices": ["Red."]}, {}, "has no message"),
        ({"choices": [{"message": {"content": ["Red."]}}]}, {}, "is not text"),
        (completion("Red."), {"n": 4}, "was asked for 4 answers, but has given 1"),
        (completion("Red.", model="other"), {}, "was asked for the model judge, but other has answered"),
        (completion("Red."), {"top_logprobs": 5}, "for log-probabilities, but gives none"),
        ({"choices": [CHOICE | {"logprobs": {"content": [{}]}}]}, {"top_logprobs": 5}, "but gives none"),
        (with_logprobs("4", {"4": float("nan")}), {"top_logprobs": 5}, "are no numbers"),
    ],
)
def test_a_lying_server(answer, asked, told):
    with serving(lambda handler, _: handler.send(answer)) as server:
        assert told in refused(server.url, **asked)


def test_redirects_are_not_followed():
    with (
        serving(lambda handler, _: handler.send(completion("Red."))) as other,
        serving(lambda handler, _: handler.send(b"", 307, Location=other.url)) as server,
    ):
        assert f"redirects to {other.url}, which is not followed" in refused(server.url)
    assert not other.requests


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://example.org/v1", "is on example.org, but rows are sent to localhost, 127.0.0.1, ::1 only"),
        ("http://127.0.0.1.example.org/v1", "is on 127.0.0.1.example.org"),
        ("http://localhost@example.org/v1", "user name"),
        ("http://localhost:pass\\@example.org/", "user name"),
        ("http://local host/", "spaces"),
        ("file:///etc/passwd", "no address of a server"),
        ("localhost:8000", "no address of a server"),
        ("http://localhost:99999/v1", "ort"),
    ],
)
def test_only_allowed_hosts(url, told):
    with pytest.raises(UserError) as error:
        client(url)
    assert re.search(told, str(error.value))


def test_no_server_and_no_key_that_is_none(monkeypatch):
    with pytest.raises(UserError, match=r"filter.endpoint.url is not set"):
        client(None)
    monkeypatch.setenv("JUDGE_KEY", "two\nlines")
    with pytest.raises(UserError, match="JUDGE_KEY holds no API key") as error:
        client("http://localhost/v1")
    assert "two" not in str(error.value)


def test_loopback_is_asked_without_the_proxy_and_other_hosts_through_it(monkeypatch):
    with serving(lambda handler, _: handler.send(completion("Red."))) as server:
        proxy = server.url.removesuffix("/v1")
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody listens there
        assert client(server.url).complete(MESSAGES, **ASKED)[0].text == "Red."
        monkeypatch.setenv("http_proxy", proxy)
        made = client("http://judge.example/v1", allowed_hosts=["judge.example"])
        assert made.complete(MESSAGES, **ASKED)[0].text == "Red."
    assert server.paths == ["/v1/chat/completions", "http://judge.example/v1/chat/completions"]


def test_messages_of_a_conversation(pictures, tmp_path):
    jpeg = tmp_path / "named.png"  # the content counts, not the name
    Image.open(pictures[1]).save(jpeg, "JPEG")
    row = conversation(
        ("system", ["Be brief."]),
        ("user", [pictures[0], "What", " is it?", jpeg]),
        ("assistant", ["Red."]),
    )
    system, user, answer = messages_of(sample_of(row))
    assert system == {"role": "system", "content": "Be brief."}
    assert answer == {"role": "assistant", "content": "Red."}
    first, text, second = user["content"]
    assert text == {"type": "text", "text": "What is it?"}
    for part, kind, path in ((first, "image/png", pictures[0]), (second, "image/jpeg", jpeg)):
        head, _, data = part["image_url"]["url"].partition(",")
        assert head == f"data:{kind};base64"
        assert base64.b64decode(data) == Path(path).read_bytes()


def test_messages_with_boxes_are_thousandths(pictures):
    row = conversation(("user", [pictures[1], "Where?"]), ("assistant", ["x"]))  # 130 × 61 pixels
    box = {"bbox_2d": [13, 6.1, 65, 30.5], "label": "cat"}
    row["messages"][1]["content"] = [{"type": "objects", "image": 0, "objects": [box]}]
    assert messages_of(sample_of(row))[1]["content"] == (
        '```json\n[\n\t{"bbox_2d": [100, 100, 500, 500], "label": "cat"}\n]\n```'
    )
    box["bbox_2d"] = [13, 6, 650, 30]
    with pytest.raises(UserError, match="is not inside its image"):
        messages_of(sample_of(row))


def test_messages_with_tools_and_thoughts():
    call = {"type": "function", "function": {"name": "zoom", "arguments": {"box": [1, 2]}}}
    row = {
        "messages": [
            {"role": "user", "content": "Look."},
            {"role": "assistant", "content": "I zoom.", "tool_calls": [call, call]},
            {"role": "tool", "content": "One."},
            {"role": "tool", "content": "Two."},
            {"role": "assistant", "content": "Red.", "reasoning_content": "Hm."},
        ]
    }
    _, calling, one, two, last = messages_of(sample_of(row))
    assert [made["id"] for made in calling["tool_calls"]] == ["call_1", "call_2"]
    assert calling["tool_calls"][0]["function"]["arguments"] == '{"box": [1, 2]}'
    assert (one["tool_call_id"], two["tool_call_id"]) == ("call_1", "call_2")
    assert last["reasoning_content"] == "Hm."


def test_messages_with_videos(tmp_path):
    clip = write_video(tmp_path / "clip.mp4", frames=4, size=(64, 48))
    row = conversation(("user", [clip, "What moves?"]), ("assistant", ["Nothing."]))
    part = messages_of(sample_of(row))[0]["content"][0]
    assert part["video_url"]["url"] == "data:video/mp4;base64," + base64.b64encode(clip.read_bytes()).decode()
    row["messages"][0]["content"][0]["fps"] = 1.0
    with pytest.raises(UserError, match="which an endpoint cannot be told"):
        messages_of(sample_of(row))


def test_a_missing_picture_is_one_sentence(tmp_path):
    row = conversation(("user", [tmp_path / "none.png", "What?"]), ("assistant", ["Red."]))
    with pytest.raises(UserError, match="does not exist"):
        messages_of(sample_of(row))
