"""Held-out samples of a run: a share of data.train, or files that have something in common with it."""

import json
import shutil
from pathlib import Path

import pytest

from qwenvl_train.api.runs import open_run
from qwenvl_train.cli import main
from qwenvl_train.config.compose import compose
from qwenvl_train.errors import UserError
from qwenvl_train.run.opening import OpenedRun
from tests.commands import QUIET, rows, train
from tests.conftest import conversation


def talk(question: str, *media: Path) -> dict:
    return conversation(("user", [*media, question]), ("assistant", ["Red."]))


@pytest.fixture
def opened(checkpoints, tmp_path):
    """Opens a run with these settings, without a model."""

    def run(*words: str) -> OpenedRun:
        where = (f"model.path={checkpoints['qwen2_vl']}", f"output_dir={tmp_path}", "data.workers=0")
        return open_run(compose(["+recipe=sft_lora", *where, *words, "logging=local"]))

    return run


@pytest.fixture
def own_rows(pictures, write_rows, tmp_path):
    """Rows of four images, five rows of each, one of which is a copy of another; and 20 rows of text."""
    copy = tmp_path / "copy.png"
    shutil.copy(pictures[0], copy)
    media = [pictures[0], pictures[1], pictures[2], copy]
    rows = [talk("What?" * (1 + number // 4), media[number % 4]) for number in range(20)]
    return write_rows([*rows, *(talk("Who? " * (1 + number)) for number in range(20))])


def lines(rows) -> set[int]:
    return {rows.samples.origin(index)[1] for index in range(len(rows.samples))}


def test_a_share_holds_out_whole_images(own_rows, opened, tmp_path):
    run = opened(f"data.train={own_rows}", "data.eval=25%")
    train, held_out = lines(run.data.train.rows), lines(run.data.held_out)
    assert train | held_out == set(range(1, 41))
    assert not train & held_out
    assert 8 <= len(held_out) <= 12
    for images in ({0, 3}, {1}, {2}):
        of_image = {1 + number for number in range(20) if number % 4 in images}
        assert of_image <= train or of_image <= held_out
    assert run.data.train.facts["samples"] == len(train)
    words = run.data.train.about(run.data.held_out, run.data.steps, run.data.rows_per_step)
    assert f"{own_rows}: {len(train)} of 40 rows, " in words
    assert f"data.eval=25% holds out {len(held_out)} samples of these rows" in words
    assert run.data.overlap == ""
    # Without what is stored, the same samples are chosen, and with another seed, others.
    shutil.rmtree(tmp_path / ".cache" / "held_out")
    again = opened(f"data.train={own_rows}", "data.eval=25%")
    assert again.data.train.facts == run.data.train.facts
    other = opened(f"data.train={own_rows}", "data.eval=25%", "seed=1")
    assert other.data.train.facts["trained_rows"] != run.data.train.facts["trained_rows"]


@pytest.mark.parametrize(
    ("media", "share", "reason"),
    [
        (
            [0] * 10,
            "10%",
            "10 samples: all of them share images or videos, so that they must stay together; name a file",
        ),
        ([0, 0, 0, 0, 1, 1, 1, 1, 1, 1], "10%", "stay together, has 4; raise the share above 20%, or name a file"),
        ([0, 1, 2, 3], "5%", "4 samples; raise the share above 12.5%, or name a file"),
    ],
)
def test_a_share_that_holds_out_nothing_is_told_with_what_helps(media, share, reason, pictures, write_rows, opened):
    path = write_rows([talk("What?" * (1 + number), pictures[image]) for number, image in enumerate(media)])
    for _ in range(2):  # the second start does not trust what the first has stored
        with pytest.raises(UserError, match=f"^data.eval={share} holds out none of .*{reason}"):
            opened(f"data.train={path}", f"data.eval={share}")


@pytest.mark.parametrize(
    ("rows", "share", "reason"),
    [
        (1, "99%", "data.eval=99% leaves no sample of "),
    ],
)
def test_a_share_of_everything_is_an_error(rows, share, reason, pictures, write_rows, opened):
    path = write_rows([talk("What?" * (1 + number), pictures[0]) for number in range(rows)])
    with pytest.raises(UserError, match=reason):
        opened(f"data.train={path}", f"data.eval={share}")


def test_plan_and_inspect_show_the_same_parts(own_rows, opened, checkpoints, tmp_path, capfd):
    run = opened(f"data.train={own_rows}", "data.eval=25%")
    common = [
        "+recipe=sft_lora", f"model.path={checkpoints['qwen2_vl']}", f"data.train={own_rows}", "data.eval=25%",
        f"output_dir={tmp_path}", "output=json",
    ]  # fmt: skip
    for source, part in (("train", run.data.train.rows), ("eval", run.data.held_out)):
        capfd.readouterr()
        assert main(["inspect", *common, f"inspect.source={source}", "inspect.samples=null"]) == 0
        assert {json.loads(line)["line"] for line in capfd.readouterr().out.splitlines()} == lines(part)
    assert main(["plan", *common]) == 0
    plan = json.loads(capfd.readouterr().out)
    assert (plan["data"]["samples"], plan["steps"]) == (run.data.train.facts["samples"], run.data.steps)
    assert (plan["data"]["rows"], plan["fitted"] is None) == (run.data.train.facts["samples"], False)


def test_what_is_in_both_is_counted_once_and_stored(pictures, write_rows, opened, tmp_path, monkeypatch):
    copy = tmp_path / "copy.png"
    shutil.copy(pictures[0], copy)
    train = write_rows([talk("What?", pictures[0]), talk("Who?"), talk("Where?", pictures[1])], "train.jsonl")
    held_out = [talk("What?", copy), talk("Who?"), talk("How?", pictures[1]), talk("When?", pictures[2])]
    words = f"data.train={train}", f"data.eval={write_rows(held_out, 'eval.jsonl')}"
    expected = (
        "2 of the 4 held-out samples and 2 of the 3 images and videos in data.eval are also in data.train, so the "
        "held-out score may be better than on new data"
    )
    assert opened(*words).data.overlap == expected
    monkeypatch.setattr("qwenvl_train.run.held_out.MediaFiles", None)
    assert opened(*words).data.overlap == expected
    assert opened(*words[:1], "data.eval=null").data.overlap == ""


def test_a_run_with_a_share_is_evaluated_saved_and_resumed(own_rows, checkpoints, tmp_path):
    words = ("+recipe=sft_lora", f"model.path={checkpoints['qwen2_vl']}", f"data.train={own_rows}", "data.eval=25%")
    steps = (
        "train.max_steps=4",
        "train.save_steps=2",
        "train.eval_steps=2",
        "train.log_steps=1",
        "data.workers=0",
        QUIET,
    )
    run = train(tmp_path, *words, *steps)
    whole = rows(run)
    assert "- 25% of the data" in (run / "checkpoints" / "step-4" / "README.md").read_text(encoding="utf-8")
    shutil.rmtree(run / "checkpoints" / "step-4")
    again = rows(train(tmp_path, *words, *steps))
    assert [row["loss"] for row in again] == [row["loss"] for row in whole]
