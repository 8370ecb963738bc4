"""Answers are left out whose thoughts do not use the image, as the model judges that has drawn them."""

import json
import math

import pytest
from transformers import AutoProcessor

from qwenvl_train.curation.judging import causal
from qwenvl_train.curation.judging.causal import CausalEngine, CausalModel
from qwenvl_train.curation.judging.prompts import Choice
from qwenvl_train.curation.judging.store import JudgementStore
from qwenvl_train.verbs.sample.thoughts import ThoughtsJudge, has_thoughts_about_media
from tests.commands import read_lines
from tests.conftest import conversation, sample_of
from tests.curation.judges import packed_model
from tests.curation.test_judging_model import TOLERANCE, Theirs
from tests.endpoint.servers import with_logprobs
from tests.loading import renderer_of
from tests.verbs.eval.test_eval import asked
from tests.verbs.sample.test_sample import draw, rows, said, served, server  # noqa: F401  (fixtures)

PROMPT = "Do the thoughts use the image? A. Yes. B. No."
THOUGHTS = "<think>\n{}\n</think>\n\nA cat."


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_5"])
def test_the_probability_is_that_of_transformers(family, checkpoints, pictures, tmp_path):
    checkpoint = checkpoints[family]
    processor = AutoProcessor.from_pretrained(checkpoint)
    renderer = renderer_of(processor, checkpoint)
    model = CausalModel("tiny", renderer, processor.tokenizer, lambda: packed_model(checkpoint, processor))
    judge = ThoughtsJudge(CausalEngine(model, 16384, workers=1), PROMPT, JudgementStore(tmp_path))
    words = ["It has whiskers, so it is a cat.", "Most animals are cats."]
    asking = [("user", [pictures[1], "And"]), ("assistant", ["Yes?"]), ("user", [pictures[3], "What is it?"])]
    drawn = [sample_of(conversation(*asking, ("assistant", [THOUGHTS.format(one)]))) for one in words]
    theirs = Theirs(checkpoint, family)
    read = [conversation(*asking, ("assistant", [one])) for one in words]
    expected = [theirs.probabilities(row, Choice(PROMPT, ("A", "B")))[0] for row in read]
    found = judge.probabilities(drawn)
    assert found == pytest.approx(expected, abs=TOLERANCE)
    assert abs(found[0] - found[1]) > 10 * TOLERANCE


def test_only_thoughts_about_media_are_judged(pictures):
    def judged(question: list, answer: str) -> bool:
        return has_thoughts_about_media(sample_of(conversation(("user", question), ("assistant", [answer]))))

    whole = THOUGHTS.format("It has whiskers.")
    assert judged([pictures[0], "What is it?"], whole)
    assert not judged(["Who?"], whole)
    assert not judged([pictures[0], "What is it?"], "A cat.")
    assert not judged([pictures[0], "What is it?"], THOUGHTS.format("")), "empty thoughts"


def judging(request: dict) -> bool:
    return "top_logprobs" in request


def test_a_server_judges_what_it_has_drawn(write_rows, draw, server, tmp_path):  # noqa: F811
    lines = [asked(number, "a red ring", id=f"part-{number}") for number in (11, 15)]
    lines.append({"id": "text", "conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "no"}]})
    file = write_rows(lines)
    waiting = iter(
        [
            said("a red ring", "It is red and round."),
            said("a red ring", "Most are rings."),
            said("a red ring"),
            said("a blue ring", "It is blue."),
            *[said("a red ring", f"I see {number}.") for number in range(4)],
            *[said("no", "Hm.")] * 4,
        ]
    )
    judgements = 0

    def say(request: dict) -> dict:
        nonlocal judgements
        if not judging(request):
            return next(waiting)
        judgements += 1
        thoughts = request["messages"][-2]
        assert thoughts["role"] == "assistant"
        likely = 0.125 if thoughts["content"] == "Most are rings." else 0.75
        return with_logprobs("A", {"A": math.log(likely), "B": math.log(1 - likely)}) | {"model": "served"}

    server.say = say
    settings = (f"data.train={file}", "sample.to=out", "sample.tries=4", *served(server), "eval.metrics=exact_match")
    checked = (*settings, f"data.cache={tmp_path / 'cache'}", "sample.check_thoughts.use=drop")
    # It fails after three of six judgements: those are kept, as the answers are.
    answer = server.answer
    server.answer = lambda handler, request: (
        handler.send({"error": "full"}, 500) if judging(request) and judgements >= 3 else answer(handler, request)
    )
    code, _, error = draw(*checked)
    assert code == 2
    assert "answers 500" in error
    server.answer = answer
    server.requests.clear()
    code, out, error = draw(*checked)
    assert code == 0, error
    assert [judging(request) for request in server.requests] == [True] * 3
    prompt = server.requests[0]["messages"][-1]["content"]
    assert prompt.startswith("Do the thoughts in the last message above")
    assert "the thoughts of 6 right answers judged: do they use the image?" in out
    assert "1 answer left out: check_thoughts" in out
    answers = read_lines(tmp_path / "out/answers.jsonl")
    fault = "check_thoughts: the probability that the thoughts use the image is 12.5%"
    assert [row["faults"] for row in answers] == [[], [fault], *[[]] * 10]
    assert [row.get("thoughts_use_image") for row in answers] == [0.75, 0.125, None, None, *[0.75] * 4, *[None] * 4]
    facts = json.loads((tmp_path / "out/summary.json").read_text())
    assert (facts["faults"], facts["thoughts_judged"], facts["thoughts_not_judged"]) == ({"check_thoughts": 1}, 6, 0)
    kept = [row["messages"][-1]["content"] for row in read_lines(tmp_path / "out/sft.jsonl") if "part-11" in row["id"]]
    assert [text.rpartition("\n")[2] for text in kept] == ["a red ring"] * 2
    assert not any("Most are rings." in text for text in kept)
    # Another threshold asks nothing, and without the check nothing is left of it.
    server.requests.clear()
    assert draw(*checked, "sample.check_thoughts.min_probability=0.1")[0] == 0
    assert [row["faults"] for row in read_lines(tmp_path / "out/answers.jsonl")] == [[]] * 12
    assert draw(*settings)[0] == 0
    assert not any("thoughts_use_image" in row for row in read_lines(tmp_path / "out/answers.jsonl"))
    assert server.requests == []


def test_the_model_judges_its_own_thoughts(rows, draw, tmp_path, monkeypatch):  # noqa: F811
    settings = (f"data.train={rows}", "sample.to=out", "sample.tries=2", "sample.temperature=0.01")
    assert draw(*settings)[0] == 0
    file = tmp_path / "out/answers.jsonl"
    thinking = [row | {"answer": f"<think>\nI see it.\n</think>\n\n{row['answer']}"} for row in read_lines(file)]
    file.write_text("".join(json.dumps(row) + "\n" for row in thinking))
    checked = (*settings, "eval.metrics=anls", "sample.check_thoughts.use=mark", f"data.cache={tmp_path / 'cache'}")
    checked += ("sample.check_thoughts.min_probability=1",)
    code, _, error = draw(*checked)
    assert code == 0, error
    found = read_lines(file)
    judged = [row for row in found if "thoughts_use_image" in row]
    assert [row["id"] for row in judged] == [row["id"] for row in found if row["right"]]
    assert len({row["thoughts_use_image"] for row in judged}) == 3  # those of one image are equal
    assert all(0 < row["thoughts_use_image"] < 1 for row in judged)
    assert all(row["marks"] and not row["faults"] for row in judged)
    monkeypatch.setattr(causal, "build_for_inference", None)  # the second time, all is stored
    assert draw(*checked)[0] == 0
    assert read_lines(file) == found


def test_an_answer_that_cannot_be_judged_stays(rows, draw, server, tmp_path):  # noqa: F811
    def say(request: dict) -> dict:
        if judging(request):
            return with_logprobs("Well", {"Well": -0.1}) | {"model": "served"}
        return said("an orange square", "It is a square.")

    server.say = say
    settings = (f"data.train={rows}", "sample.to=out", "sample.tries=1", *served(server))
    code, out, error = draw(*settings, f"data.cache={tmp_path / 'cache'}", "sample.check_thoughts.use=drop")
    assert code == 0, error
    assert "the thoughts of 1 answer could not be judged; the first: " in " ".join(out.split())
    assert "does not answer with one of A, B" in " ".join(out.split())
    assert len(read_lines(tmp_path / "out/sft.jsonl")) == 1
