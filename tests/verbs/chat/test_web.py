"""The page: what a visitor asks and sees, and that it asks no other host. Only the tests that open it need gradio."""

import json
import socket
import urllib.request
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from qwenvl_train.config.compose import compose
from qwenvl_train.errors import UserError
from qwenvl_train.model.pretrained import load_family
from qwenvl_train.verbs.chat import settings
from qwenvl_train.verbs.chat.compared import open_second, second_model
from qwenvl_train.verbs.chat.model import ChatModel, open_model, sampling_of
from qwenvl_train.verbs.chat.settings import CHAT
from qwenvl_train.verbs.chat.visitor import Visitor, visible
from tests.data.test_chat_formats import published
from tests.loading import write_adapter
from tests.verbs.chat.models import chat_config, chat_model, let_it_say

BOX = '```json\n[\n\t{"bbox_2d": [14, 28, 70, 56], "label": "part"}\n]\n```'
needs_gradio = pytest.mark.skipif(find_spec("gradio") is None, reason="needs gradio: pip install 'qwenvl-train[web]'")


@pytest.fixture(scope="module")
def models(checkpoints) -> list[ChatModel]:
    return [chat_model(checkpoints[family]) for family in ("qwen2_5_vl", "qwen3_vl")]


def asked(visitor: Visitor, text: str, *files: Path, system: str = "") -> list[list]:
    *_, last = visitor.ask(text, [str(file) for file in files], system, sampling_of(chat_config().chat))
    return last


def test_both_models_answer_and_their_boxes_are_drawn(models, monkeypatch, tmp_path):
    Image.new("RGB", (168, 112), "white").save(tmp_path / "part.png")
    rendered = let_it_say(monkeypatch, BOX, "No <b>box</b>.", "Yes.", "No.")
    visitor = Visitor(models, sampling_of(chat_config().chat))
    first, second = asked(visitor, "Where?", tmp_path / "part.png")
    assert [message["role"] for message in first] == ["user", "user", "assistant", "assistant", "assistant"]
    assert first[0]["content"] == {"path": str(tmp_path / "part.png")}
    assert Image.open(first[3]["content"]["path"]).size == (168, 112)
    assert first[4]["content"].endswith("  part")
    assert [message["content"] for message in second[1:]] == ["Where?", "No &lt;b>box&lt;/b>."]
    first, second = asked(visitor, "Sure?", system="Be brief.")
    assert (first[-1]["content"], second[-1]["content"]) == ("Yes.", "No.")
    assert [len(one.layout.pictures) for one in rendered] == [1, 1, 1, 1]
    visitor.clear()
    assert visitor.messages == [[], []]
    visitor.close()
    assert not Path(first[3]["content"]["path"]).exists()


def test_thoughts_are_whole_on_the_page(checkpoints, monkeypatch):
    let_it_say(monkeypatch, "Hm.\n</think>\n\nYes.")
    thinking = published("qwen3_5_think")
    model = replace(chat_model(checkpoints["qwen3_5"]), renderer=thinking.renderer, processor=thinking.processor)
    (messages,) = asked(Visitor([model], sampling_of(chat_config().chat)), "A?")
    assert messages[-1]["content"] == "&lt;think>\nHm.\n&lt;/think>\n\nYes."


def test_a_broken_file_leaves_the_page_as_it_was(models, monkeypatch, tmp_path):
    let_it_say(monkeypatch, "One.", "Two.")
    visitor = Visitor(models, sampling_of(chat_config().chat))
    before = asked(visitor, "A?")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"^your question: the image broken\.png is not an image"):
        asked(visitor, "B?", tmp_path / "broken.png")
    assert visitor.messages == before


def test_an_answer_is_stopped_on_the_page(models, monkeypatch):
    let_it_say(monkeypatch, "A long answer", "Another one")
    sampling = sampling_of(chat_config().chat)
    visitor = Visitor(models, sampling)
    steps = visitor.ask("A?", [], "", sampling)
    next(steps)
    visitor.stopped = True
    *_, (first, second) = steps
    assert first[-1]["content"] == "A\n(stopped after 1 tokens)"
    assert second[-1]["content"] == "Another\n(stopped after 1 tokens)"


def test_tags_and_entities_are_shown_as_they_are():
    assert visible("a < b <|box_start|> <i>&lt;</i> & c") == "a < b <|box_start|> &lt;i>&amp;lt;&lt;/i> & c"


def test_the_base_model_beside_an_adapter_is_not_loaded_twice(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "is_installed", lambda module: True)
    adapter = write_adapter(checkpoints["qwen2_5_vl"], tmp_path / "adapter")
    composed = compose([f"model.path={adapter}", "chat.web=true", "chat.compare=base"], CHAT).config
    first = open_model(composed, load_family(composed.model))
    second = open_second(composed, second_model(composed, composed.model), first)
    assert second.model is first.model
    assert (first.adapted, second.adapted) == (True, False)


def test_the_model_to_compare_with(checkpoints, monkeypatch):
    monkeypatch.setattr(settings, "is_installed", lambda module: True)
    words = [f"model.path={checkpoints['qwen2_5_vl']}", "chat.web=true"]
    other = compose([*words, f"chat.compare={checkpoints['qwen3_vl']}"], CHAT).config
    found = second_model(other, other.model)
    assert (found.path, found.family) == (str(checkpoints["qwen3_vl"]), None)
    base = compose([*words, "chat.compare=base"], CHAT).config
    with pytest.raises(UserError, match="is a whole model that does not name its base"):
        second_model(base, base.model)


def test_without_gradio_the_way_to_install_it_is_named(monkeypatch):
    monkeypatch.setattr(settings, "is_installed", lambda module: module != "gradio")
    with pytest.raises(UserError, match=r"chat\.web=true needs gradio: pip install 'qwenvl-train\[web\]'"):
        compose(["chat.web=true"], CHAT)


@needs_gradio
def test_the_page_is_served_and_names_no_other_host_to_load_from(models, monkeypatch):
    from gradio_client import Client

    from qwenvl_train.verbs.chat.web import launch, page_of

    let_it_say(monkeypatch, "One.", "Two.")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    page = page_of(models, chat_config())
    launch(page, "127.0.0.1", port)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
            policy, html = answer.headers["Content-Security-Policy"], answer.read().decode()
        assert "default-src 'self'" in policy
        assert '<script src="http' not in html
        assert not page.share
        assert json.loads(html.split("window.gradio_config = ")[1].split(";</script>")[0])["analytics_enabled"] is False
        client = Client(f"http://127.0.0.1:{port}/", verbose=False)
        _, first, second = client.predict({"text": "A?", "files": []}, "", 0, 1, 0, 24, api_name="/ask")
        assert "One." in json.dumps(first[-1])
        assert "Two." in json.dumps(second[-1])
    finally:
        page.close()


@needs_gradio
def test_a_port_in_use_is_one_sentence(verb):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        _, err = verb("chat", "chat.web=true", f"chat.port={port}", code=2)
    assert f"chat.port={port}: the page cannot be served there: " in err
