"""`qwenvl-train sample`, with the embedded model, which names colours and shapes."""

import errno
import json
from pathlib import Path

import pytest

from qwenvl_train.cli import main
from qwenvl_train.data.media.locate import Locator
from qwenvl_train.data.sample import Image, Sample
from qwenvl_train.endpoint import client as endpoint_client
from qwenvl_train.run import generating
from qwenvl_train.run.answers_folder import AnswersFolder
from tests.commands import read_lines
from tests.endpoint.servers import serving
from tests.verbs.eval.test_eval import RIGHT, asked

LOCATOR = Locator(Path("/"), fenced=False, allow_remote=False, cache=Path("/"))


@pytest.fixture
def rows(write_rows) -> Path:
    """Three rows whose answers the model knows, and one whose answer it does not."""
    given = [*RIGHT.items(), (31, "a blue ring")]
    return write_rows([asked(*row, id=f"part-{row[0]}") for row in given])


@pytest.fixture
def draw(tmp_path, monkeypatch, capsys):
    """Runs the command in a folder of its own. Returns the exit code and the output."""
    monkeypatch.chdir(tmp_path)

    def run(*settings: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["sample", *settings, "data.workers=0", "sample.max_new_tokens=12", "model=tiny"])
        return code, *capsys.readouterr()

    return run


def samples_in(file: Path) -> list[Sample]:
    from qwenvl_train.data.formats import to_sample

    return [to_sample(row, "rows", 1, LOCATOR, "auto") for row in read_lines(file)]


HOT = ("sample.temperature=2", "sample.tries=6")


def test_right_answers_become_rows_and_pairs(rows, draw, tmp_path, capsys):
    code, out, error = draw(f"data.train={rows}", "sample.to=out", *HOT)
    assert code == 0, error
    assert "24 answers in " in out
    assert "rows.jsonl: judged by exact_match (all 4 answers" in out
    assert "qwenvl-train +recipe=dpo_lora data.train=out/pairs.jsonl model=tiny\n" in out
    answers = read_lines(tmp_path / "out/answers.jsonl")
    assert [(row["id"], row["try"]) for row in answers[5:8]] == [("part-11", 6), ("part-15", 1), ("part-15", 2)]
    rights = {
        id: [row for row in answers if row["id"] == id and row["right"]] for id in ("part-11", "part-15", "part-16")
    }
    assert all(0 < len(found) < 6 for found in rights.values())
    for read, raw, (number, truth) in zip(
        samples_in(tmp_path / "out/sft.jsonl"), read_lines(tmp_path / "out/sft.jsonl"), RIGHT.items(), strict=True
    ):
        question, answer = read.turns
        assert isinstance(question.parts[0], Image)
        assert question.parts[0].content.endswith(f"eval-{number:03d}.png")
        assert (question.parts[1].text, answer.parts[0].text, answer.train) == ("What is it?", truth, True)
        mine = rights[f"part-{number}"]
        facts = raw["sampled"]
        assert facts["pass_rate"] == pytest.approx(len(mine) / 6, abs=1e-6)
        assert (facts["tries"], facts["temperature"], facts["score"], facts["seed"]) == (6, 2, 1, mine[0]["seed"])
    for pair, raw in zip(
        samples_in(tmp_path / "out/pairs.jsonl"), read_lines(tmp_path / "out/pairs.jsonl"), strict=True
    ):
        facts = raw["sampled"]["rejected"]
        (wrong,) = (row for row in answers if row["seed"] == facts["seed"])
        assert not wrong["right"]
        assert pair.rejected[0].parts[0].text == wrong["answer"] == raw["rejected_response"]
    (unsolved,) = read_lines(tmp_path / "out/unsolved.jsonl")
    assert (unsolved["id"], unsolved["messages"][-1]["content"]) == ("part-31", "a blue ring")
    assert unsolved["best_try"] in [row["answer"] for row in answers if row["id"] == "part-31"]
    for file in ("sft.jsonl", "unsolved.jsonl"):
        assert main(["inspect", f"data.train={tmp_path / 'out' / file}", "model=tiny"]) == 0
    assert main(["inspect", f"data.train={tmp_path / 'out/pairs.jsonl'}", "method=dpo", "model=tiny"]) == 0
    # What was not solved is asked again, with the truth that it had.
    code, out, _ = draw(f"data.train={tmp_path / 'out/unsolved.jsonl'}", "sample.to=again", "sample.tries=2")
    assert code == 0
    assert read_lines(tmp_path / "again/answers.jsonl")[0]["expected"] == "a blue ring"


def test_answers_depend_on_neither_the_batch_nor_an_interruption(rows, draw, monkeypatch, tmp_path):
    settings = (f"data.train={rows}", *HOT)
    assert draw(*settings, "sample.to=whole", "sample.batch_size=8")[0] == 0
    assert draw(*settings, "sample.to=single", "sample.batch_size=1")[0] == 0
    append = AnswersFolder.append

    def killed(self, found, process):
        append(self, found, process)
        with (self.path / "answers.0.jsonl").open("a") as file:
            file.write('{"index": 3, "turns": 1, "tu')
        raise KeyboardInterrupt

    monkeypatch.setattr(AnswersFolder, "append", killed)
    assert draw(*settings, "sample.to=killed", "sample.batch_size=1")[0] == 130
    monkeypatch.setattr(AnswersFolder, "append", append)
    code, out, _ = draw(*settings, "sample.to=killed", "sample.batch_size=8")
    assert code == 0
    assert "18 answers in " in out
    assert "; 6 further answers from before" in out
    for file in ("answers.jsonl", "sft.jsonl", "pairs.jsonl", "unsolved.jsonl"):
        texts = {(tmp_path / folder / file).read_text() for folder in ("whole", "single", "killed")}
        assert len(texts) == 1
    assert not list((tmp_path / "killed").glob("answers.*.jsonl"))
    code, _, told = draw(*settings, "sample.to=whole", "seed=1")
    assert code == 2
    assert "sample.to=whole holds results of other settings (seed); name another folder" in told


def test_the_same_answers_are_used_in_other_ways_without_the_model(rows, draw, monkeypatch, tmp_path):
    settings = (f"data.train={rows}", "sample.to=out", *HOT)
    assert draw(*settings)[0] == 0
    monkeypatch.setattr(generating, "build_for_inference", None)
    code, out, _ = draw(*settings, "eval.metrics=[exact_match]", "sample.form=trl", "sample.pass_rate=[0,0.7]")
    assert code == 0
    assert "all 24 answers are from before, 6 to each of 4 questions; nothing was drawn" in out
    answers = read_lines(tmp_path / "out/answers.jsonl")
    shares = [sum(row["right"] for row in answers[start : start + 6]) / 6 for start in (0, 6, 12, 18)]
    assert max(shares) > 0.7
    kept = {row["id"].split("/")[0] for row in read_lines(tmp_path / "out/sft.jsonl")}
    assert kept == {answers[6 * n]["id"] for n, share in enumerate(shares) if 0 < share <= 0.7} != set()
    (row, *_) = read_lines(tmp_path / "out/sft.jsonl")
    assert row["messages"][0]["content"] == [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    assert f"{sum(share > 0.7 for share in shares)} question" in out
    assert draw(*settings, "eval.metrics=[teds]")[0] == 0
    answers = read_lines(tmp_path / "out/answers.jsonl")
    assert all("nothing to score by its metrics" in row["faults"] and not row["right"] for row in answers)


def test_each_trained_turn_is_asked(draw, write_rows, tmp_path):
    row = asked(11, "an orange square", id="two")
    row["conversations"] += [{"from": "human", "value": "What is it?"}, {"from": "gpt", "value": "an orange square"}]
    assert draw(f"data.train={write_rows([row])}", "sample.to=out", "sample.tries=2", "sample.temperature=0.01")[0] == 0
    found = read_lines(tmp_path / "out/answers.jsonl")
    assert [(one["turn"], one["try"]) for one in found] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    written = read_lines(tmp_path / "out/sft.jsonl")
    assert [one["id"] for one in written][:1] == ["two/1/1"]
    assert [len(one["messages"]) for one in written] == [2, 4][: len(written)]
    second = [one for one in written if one["id"] == "two/2/1"]
    assert second
    assert [message.get("loss") for message in second[0]["messages"]] == [None, False, None, None]
    assert [turn.train for turn in samples_in(tmp_path / "out/sft.jsonl")[-1].turns] == [False, False, False, True]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["run={run}"], ["model.path={run}/checkpoints/step-3"]),
        (["model=qwen2_5_vl_7b", "model.max_pixels=9999"], ["model=qwen2_5_vl_7b", "model.max_pixels=9999"]),
        (["model.path=someones/model"], ["model.path=someones/model"]),
        ([], []),
    ],
)
def test_further_commands_name_the_model(settings, words, tmp_path):
    from qwenvl_train.config.compose import compose
    from qwenvl_train.run.finished import with_checkpoint
    from qwenvl_train.verbs.sample.command import model_words
    from qwenvl_train.verbs.sample.settings import SAMPLE

    run = tmp_path / "run"
    (run / "checkpoints" / "step-3").mkdir(parents=True)
    (run / "checkpoints" / "step-3" / "progress.json").write_text("{}")
    (run / "config.yaml").write_text("model: {max_pixels: 5000}\n")
    given = [word.format(run=run) for word in settings]
    composed = compose([*given, "data.train=rows.jsonl", "sample.to=out"], SAMPLE)
    assert model_words(composed, with_checkpoint(composed.config)) == [word.format(run=run) for word in words]


def test_stdout_has_nothing_but_json(rows, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    words = [f"data.train={rows}", "sample.to=out", "sample.tries=2", "sample.max_new_tokens=8", "data.workers=0"]
    assert main(["sample", *words, "output=json"]) == 0
    (facts,) = map(json.loads, capfd.readouterr().out.splitlines())
    assert (facts["questions"], facts["answers"], facts["unsolved"]) == (4, 8, 1)
    assert facts == json.loads((tmp_path / "out/summary.json").read_text())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["data.train={rows}"], "sample.to is not set; name the folder of the results"),
        (["data.train={rows}", "sample.to=."], "sample.to=. has other files in it; name a new folder."),
        (["data.train={rows}", "sample.to=o", "sample.temperature=0"], "gives the same answer 8 times"),
        (
            ["data.train={rows}", "sample.to=o", "sample.temperature=0", "sample.tries=1", "sample.top_p=0.5"],
            "sample.top_p has no effect with sample.temperature=0",
        ),
        (["data.train={rows}", "sample.to=o", "sample.engine=endpoint"], "needs sample.endpoint.url"),
        (
            ["data.train={rows}", "sample.to=o", "sample.endpoint.workers=2"],
            "sample.endpoint.workers has no effect without sample.engine=endpoint",
        ),
        (["data.train={rows}", "sample.to=o", "sample.pass_rate=[0.5,0.2]"], "sample.pass_rate: 0.5 is above 0.2"),
        (["data.train={rows}", "sample.to=o", "sample.keep=best", "sample.most=2"], "sample.most has no effect with"),
        (["data.train={rows}", "sample.to=o", "sample.pairs=none", "sample.most_pairs=2"], "sample.most_pairs has no"),
        (["data.train={rows}", "sample.to=o", "eval.batch_size=2"], "did you mean sample.batch_size?"),
        (
            ["data.train={rows}", "sample.to=o", "sample.rules.repeated_ngrams.max_share=-1"],
            "repeated_ngrams.max_share: Input should be greater than 0",
        ),
        (["data.train={rows}", "sample.to=o", "sample.rules.no_such.use=drop"], "there is no rule no_such"),
        (["data.train={rows}", "sample.to=o", "eval.metrics=anl"], "eval.metrics: there is no metric anl"),
        (["data.train={unanswered}", "sample.to=o"], "unanswered.jsonl:1 (id open)"),
        (["data.train={pairs}", "sample.to=o"], "pairs.jsonl has preference pairs, but sample needs"),
        (["data.train={pairs}", "sample.to=o", "method=dpo"], "keep the question and the chosen answer of each pair."),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(settings, told, rows, write_rows, draw):
    open_row = asked(11, "", id="open")
    open_row["conversations"].pop()
    files = {
        "rows": rows,
        "unanswered": write_rows([open_row, asked(15, "a green circle")], "unanswered.jsonl"),
        "pairs": write_rows([{"prompt": "What?", "chosen": "Red.", "rejected": "Blue."}], "pairs.jsonl"),
    }
    code, _, error = draw(*(one.format(**files) for one in settings))
    assert code == 2
    assert told in error.replace("\n", " ")
    assert "Traceback" not in error


def test_a_row_without_truth_is_listed(write_rows, draw, tmp_path):
    open_row = asked(11, "", id="open")
    open_row["conversations"].pop()
    file = write_rows([open_row, asked(15, "a green circle")])
    code, out, _ = draw(f"data.train={file}", "sample.to=out", "sample.tries=2", "data.on_error=skip")
    assert code == 0
    assert "1 row could not be used; the first: " in out
    assert "rows.jsonl:1 (id open)" in out
    (skipped,) = read_lines(tmp_path / "out/skipped.jsonl")
    assert (skipped["line"], skipped["kind"]) == (1, "broken")


def test_a_full_disk_is_one_sentence(rows, draw, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(AnswersFolder, "append", full)
    code, _, error = draw(f"data.train={rows}", "sample.to=out", "sample.tries=2")
    assert code == 2
    assert error.startswith("qwenvl-train: the disk is full")


def said(text: str, thoughts: str = "", ended: bool = True, tokens: int | None = None) -> dict:
    message = {"content": text, "reasoning_content": thoughts}
    choice = {"message": message, "finish_reason": "stop" if ended else "length"}
    return {"model": "served", "choices": [choice], "usage": {"completion_tokens": tokens}}


@pytest.fixture
def server(monkeypatch):
    """A server on this machine, whose answers a test chooses by a function of the request."""
    monkeypatch.setattr(endpoint_client, "FIRST_PAUSE", 0.0)
    with serving(lambda handler, request: handler.send(server.say(request))) as server:
        yield server


def served(server) -> tuple[str, ...]:
    one_by_one = ("sample.endpoint.workers=1", "sample.endpoint.retries=0")
    return ("sample.engine=endpoint", f"sample.endpoint.url={server.url}", "sample.endpoint.model=served", *one_by_one)


def test_a_server_answers_and_faults_are_left_out(rows, draw, server, tmp_path, monkeypatch):
    waiting = iter(
        [
            said("an orange square", "It is a square.", tokens=9),
            said("An orange square.", ended=False, tokens=12),
            said("", "It is a square. So", ended=False),
            said("", "It is a square."),
            said("an orange <|im_start|> square"),
            said("word " * 50),
            said("a circle", "It is round.", tokens=7),
        ]
    )
    server.say = lambda request: next(waiting)
    first = tmp_path / "first.jsonl"
    first.write_text(rows.read_text().splitlines()[0] + "\n")
    monkeypatch.setattr(generating, "build_for_inference", None)
    settings = (f"data.train={first}", "sample.to=out", *served(server), "sample.tries=7", "sample.top_p=0.9")
    rule = "{use: drop, words: 3, max_share: 0.3, min_words: 20}"
    code, out, error = draw(*settings, f"sample.rules.repeated_ngrams={rule}")
    assert code == 0, error
    assert f"from served at {server.url}" in out
    faults = [row["faults"] for row in read_lines(tmp_path / "out/answers.jsonl")]
    assert faults == [
        [],
        ["cut at 12 tokens"],
        ["cut at 12 tokens", "thoughts without an answer", "unfinished: the thoughts do not end"],
        ["thoughts without an answer", "unfinished: the thoughts do not end"],
        ["control tokens in the text"],
        ["repeated_ngrams: 98% of the words repeat, such as 'word word word'"],
        [],
    ]
    (row,) = read_lines(tmp_path / "out/sft.jsonl")
    assert row["messages"][-1]["content"] == "<think>\nIt is a square.\n</think>\n\nan orange square"
    assert row["sampled"]["model"] == "served"
    # The one that repeats is complete and wrong, too, but far longer.
    (pair,) = read_lines(tmp_path / "out/pairs.jsonl")
    assert pair["rejected_response"] == "<think>\nIt is round.\n</think>\n\na circle"
    assert [request["seed"] for request in server.requests] == [
        one["seed"] for one in read_lines(tmp_path / "out/answers.jsonl")
    ]
    assert len({request["seed"] for request in server.requests}) == 7
    request = server.requests[0]
    assert (request["n"], request["temperature"], request["top_p"], request["max_tokens"]) == (1, 1.0, 0.9, 12)
    (message,) = request["messages"]
    assert [part["type"] for part in message["content"]] == ["image_url", "text"]
    # Without the thoughts, and with the rule off, from the same answers.
    code, out, _ = draw(*settings, "sample.rules.repeated_ngrams.use=off", "sample.thoughts=drop")
    assert code == 0
    (row,) = read_lines(tmp_path / "out/sft.jsonl")
    assert row["messages"][-1]["content"] == "an orange square"
    assert len(server.requests) == 7


def test_a_server_that_fails_loses_nothing(rows, draw, server, tmp_path):
    def failing(handler, request):
        handler.send(said("a circle")) if len(server.requests) <= 5 else handler.send({"error": "out of memory"}, 500)

    server.answer = failing
    settings = (f"data.train={rows}", "sample.to=out", *served(server), "sample.tries=2")
    code, _, error = draw(*settings)
    assert code == 2
    assert error.startswith(f"qwenvl-train: sample.endpoint: {server.url}")
    assert "out of memory" in error
    assert len(read_lines(tmp_path / "out/answers.0.jsonl")) == 4
    server.answer = lambda handler, request: handler.send({"model": "served", "choices": []})
    code, _, error = draw(*settings)
    assert code == 2
    assert "sample.endpoint" in error
    server.requests.clear()
    server.answer = lambda handler, request: handler.send(said("a circle"))
    assert draw(*settings)[0] == 0
    assert len(server.requests) == 4
    assert len(read_lines(tmp_path / "out/answers.jsonl")) == 8


def test_a_row_that_a_server_refuses_is_listed_and_has_no_answers(rows, draw, server, tmp_path):
    refused, lines = set(), rows.read_text().splitlines()

    def answer(handler, request):
        url = request["messages"][0]["content"][0]["image_url"]["url"]
        seen.setdefault(url, len(seen))
        if seen[url] in refused:
            handler.send({"error": {"message": "maximum context length is 9"}}, 400)
        else:
            handler.send(said("a circle"))

    seen: dict[str, int] = {}
    server.answer = answer
    settings = (f"data.train={rows}", *served(server), "sample.tries=4")
    refused.update((0, 1, 2))
    code, _, error = draw(*settings, "sample.to=wrong")
    assert code == 2
    assert error.startswith("qwenvl-train: sample.endpoint: ")
    assert "refuses the request: 400" in error
    seen.clear()
    refused.clear()
    refused.update((0, 3))
    for asked_now in (16, 8):  # the rows that are refused are asked again
        server.requests.clear()
        code, out, error = draw(*settings, "sample.to=out")
        assert code == 0, error
        assert len(server.requests) == asked_now
        assert "2 rows could not be used; the first: " in out
        skipped = read_lines(tmp_path / "out/skipped.jsonl")
        assert [row["line"] for row in skipped] == [1, 4]
        for line, row in zip((0, 3), skipped, strict=True):
            assert json.loads(lines[line])["id"] in row["reason"]
            assert "maximum context length is 9" in row["reason"]
        answers = read_lines(tmp_path / "out/answers.jsonl")
        assert len(answers) == 8
        assert {row["id"] for row in answers} == {json.loads(lines[line])["id"] for line in (1, 2)}
