"""An endpoint judges by the log-probabilities of its first token, and a reward head by its logits."""

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    Qwen2Config,
    Qwen2ForSequenceClassification,
)

from qwenvl_train.curation.judging.classes import read_tree
from qwenvl_train.curation.judging.opening import open_judge
from qwenvl_train.curation.view import RowView
from qwenvl_train.endpoint import client as module
from qwenvl_train.errors import UserError
from tests.conftest import conversation, sample_of
from tests.curation.judges import sections_with
from tests.endpoint.servers import completion, serving, with_logprobs
from tests.settings import run_config

RED = ("assistant", ["Red."])


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)


def judge_of(folder: Path, **changed):
    sections = sections_with(**changed)
    tree = read_tree(sections.classes.tree, "filter.classes.tree")
    return open_judge(sections, tree, folder, run_config(), pytest.fail, "fp32", torch.device("cpu"), "filter")


def by_endpoint(url: str, folder: Path, **changed):
    endpoint = {"judge__engine": "endpoint", "endpoint__url": url, "endpoint__model": "judge", "endpoint__retries": 1}
    return judge_of(folder, **(endpoint | {"classes__use": "mark", "scores__use": "mark"} | changed))


def question_of(content: dict) -> str:
    return content["messages"][-1]["content"]


def answer(handler, content: dict) -> None:
    question = question_of(content)
    if "Rate the clarity" in question:
        handler.send(with_logprobs("4", {"4": math.log(0.6), " 5": math.log(0.2), "x": math.log(0.2)}))
    elif "Rate" in question:
        handler.send(with_logprobs("2", {"2": -0.01}))
    elif "figures: charts" in question:
        handler.send(with_logprobs("C", {"C": math.log(0.7), "A": math.log(0.1)}))
    else:
        assert "A. charts: " in question
        handler.send(with_logprobs("D", {"D": math.log(0.5), "B": math.log(0.5) - 1e-6}))


def rows_of(pictures) -> list[RowView]:
    rows = [conversation(("user", [path, "What?"]), RED) for path in pictures]
    return [RowView(sample_of(row)) for row in (*rows, conversation(("user", ["Who?"]), RED))]


def test_classes_and_scores_by_an_endpoint(pictures, tmp_path):
    rows = rows_of(pictures)
    with serving(answer) as server:
        found = by_endpoint(server.url, tmp_path).judge(rows)
        asked = len(server.requests)
        again = by_endpoint(server.url, tmp_path).judge(rows)
        assert len(server.requests) == asked == 4 * (8 + 2) + 7 + 2
    assert found == again
    for one in found:
        assert one.scores["answer_clarity"] == pytest.approx((4 * 0.6 + 5 * 0.2) / 0.8)
        assert one.scores["answer_correctness"] == pytest.approx(2)
        assert (one.assigned.domain, one.assigned.name) == ("figures", "maps")
        assert one.assigned.probability == pytest.approx(0.7 / 0.8 * 0.5, abs=1e-5)
        assert one.image_use is None
    assert ["image_use" in one.scores for one in found] == [True] * 4 + [False]
    assert server.requests[0]["max_tokens"] == 1
    assert server.requests[0]["messages"][0]["content"][0]["type"] == "image_url"


def test_an_endpoint_that_goes_down_loses_nothing(pictures, tmp_path):
    served = 0

    def fails(handler, content):
        nonlocal served
        served += 1
        if served > 24:
            handler.send({"error": "out of memory"}, 500)
        else:
            answer(handler, content)

    rows = rows_of(pictures)
    with serving(fails) as server:
        made = by_endpoint(server.url, tmp_path, endpoint__workers=1)
        with pytest.raises(UserError, match=r"filter.endpoint: .* answers 500 .*, out of memory \(tried 2 times\)"):
            made.judge(rows)
        before, server.answer = len(server.requests), answer
        assert all(one.assigned for one in made.judge(rows))
        assert len(server.requests) - before == 49 - 18  # two rows with nine questions were stored


@pytest.mark.parametrize(
    ("lie", "told"),
    [
        (completion("4"), "for log-probabilities, but gives none"),
        (with_logprobs("4", {"4": -0.1}) | {"model": "cheaper"}, "but cheaper has answered"),
    ],
)
def test_a_lying_endpoint_ends_the_run(lie, told, pictures, tmp_path):
    with serving(lambda handler, _: handler.send(lie)) as server, pytest.raises(UserError, match=told):
        by_endpoint(server.url, tmp_path).judge(rows_of(pictures))


def test_an_endpoint_that_does_not_answer_with_an_option_is_a_problem_of_the_row(pictures, tmp_path):
    def thinks(handler, content):
        if isinstance(content["messages"][0]["content"], str):  # the row without a picture
            handler.send(with_logprobs("<think>", {"<think>": -0.1, "Well": -3.0}))
        else:
            answer(handler, content)

    rows = [*rows_of(pictures), RowView(sample_of(conversation(("user", [tmp_path / "none.png"]), RED)))]
    with serving(thinks) as server:
        *good, bad, missing = by_endpoint(server.url, tmp_path).judge(rows)
    assert all(one.problem is None for one in good)
    assert "does not answer with one of" in bad.problem
    assert "begins with '<think>'" in bad.problem
    assert "does not exist" in missing.problem


def too_long(handler, content):
    text = str(content["messages"])
    if "Long" in text:
        handler.send({"error": {"message": "maximum context length is 9"}}, 400)
    else:
        answer(handler, content)


def test_a_row_that_an_endpoint_refuses_is_a_problem_of_the_row(pictures, tmp_path):
    def long(number):
        return RowView(sample_of(conversation(("user", [f"Long {number}?"]), RED) | {"id": f"long-{number}"}))

    rows = [long(0), *rows_of(pictures), *map(long, range(1, 5))]
    with serving(too_long) as server:
        first, *good = by_endpoint(server.url, tmp_path).judge(rows)
        assert all(one.problem is None and one.assigned for one in good[:5])
        for number, one in enumerate([first, *good[5:]]):
            assert f"long-{number}" in one.problem
            assert one.problem.endswith("refuses the request: 400 Bad Request, maximum context length is 9.")
        # Only rows that are refused are asked again, which is no reason to stop.
        assert by_endpoint(server.url, tmp_path).judge(rows) == [first, *good]
        with pytest.raises(UserError, match=r"filter.endpoint: .* refuses the request: 400"):
            by_endpoint(server.url, tmp_path / "empty").judge([long(number) for number in range(3)])


def reward_head(checkpoint: Path, folder: Path, labels: int, bert: bool = False) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2, "num_labels": labels, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(0)
    if bert:
        model = BertForSequenceClassification(BertConfig(**sizes, initializer_range=0.5, max_position_embeddings=64))
    else:
        model = Qwen2ForSequenceClassification(Qwen2Config(**sizes, num_key_value_heads=2, initializer_range=0.5))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def by_head(path: Path, folder: Path, **changed):
    head = {"judge__engine": "reward_head", "judge__reward_path": str(path), "scores__use": "mark"}
    return judge_of(folder, **(head | changed))


@pytest.mark.parametrize(("labels", "bert"), [(1, False), (5, False), (5, True)])
def test_scores_by_a_reward_head(labels, bert, checkpoints, pictures, tmp_path):
    path = reward_head(checkpoints["qwen2_vl"], tmp_path / "head", labels, bert)
    said = ["Hi?", "Who?", "Why is it so? " * 2]
    rows = [RowView(sample_of(conversation(("user", [text, pictures[0]]), RED))) for text in said]
    found = by_head(path, tmp_path).judge(rows)
    tokenizer = AutoTokenizer.from_pretrained(path)
    kind = BertForSequenceClassification if bert else Qwen2ForSequenceClassification
    model = kind.from_pretrained(path, dtype=torch.float32).eval().requires_grad_(False)
    for text, one in zip(said, found, strict=True):
        messages = [{"role": "user", "content": text.strip()}, {"role": "assistant", "content": "Red."}]
        ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)["input_ids"]
        logits = model(input_ids=ids).logits[0].double()
        expected = logits[0] if labels == 1 else (logits.softmax(0) * torch.arange(1, 6)).sum()
        assert one.scores == {"reward": pytest.approx(float(expected), abs=1e-4)}
        assert one.assigned is None
    assert len({round(one.scores["reward"], 3) for one in found}) == 3


def test_a_reward_head_that_cannot_judge_is_one_sentence(checkpoints, tmp_path):
    row = RowView(sample_of(conversation(("user", ["Who?"]), RED)))
    path = reward_head(checkpoints["qwen2_vl"], tmp_path / "head", 3)
    with pytest.raises(UserError, match=r"filter.judge.reward_path .* has 3 labels, but a reward head has 1, or 5"):
        by_head(path, tmp_path).judge([row])
    (path / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="has no chat template"):
        by_head(path, tmp_path).judge([row])
    config = json.loads((reward_head(checkpoints["qwen2_vl"], tmp_path / "bare", 1) / "config.json").read_text())
    Qwen2ForSequenceClassification(Qwen2Config(**config)).model.save_pretrained(tmp_path / "bare")
    with pytest.raises(UserError, match="is no sequence classifier: it has no weights for score"):
        by_head(tmp_path / "bare", tmp_path).judge([row])
    with pytest.raises(UserError, match=r"filter.judge.reward_path .*none does not exist"):
        by_head(tmp_path / "none", tmp_path)
    bert = by_head(reward_head(checkpoints["qwen2_vl"], tmp_path / "bert", 1, bert=True), tmp_path)
    long = RowView(sample_of(conversation(("user", ["Why? " * 40]), RED)))
    (found,) = bert.judge([long])
    assert "but the reward head reads only 64" in found.problem
