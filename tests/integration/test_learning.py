"""Learning is real, and it is from pixels."""

import json
import shutil

import pytest

from qwenvl_train.config.assets import asset_dir
from tests.commands import rows, summary, train

SHAPES = asset_dir("data") / "shapes"


# Half of the steps, at more than twice the rate.
SHORTER = ("train.epochs=5", "train.lr=5e-4", "train.lr_mlp=5e-5", "train.checkpointing=none")


@pytest.fixture(scope="module", params=[SHORTER, pytest.param((), marks=pytest.mark.nightly)], ids=["shorter", "demo"])
def learned(request, tmp_path_factory):
    """A run of the recipe that `make demo` runs, and that run itself."""
    return train(tmp_path_factory.mktemp("learned"), "+recipe=sft_lora", *request.param)


def test_the_bins_are_learned(learned):
    metrics = summary(learned)["metrics"]
    assert metrics["before"]["eval_exact_match"] <= 0.3
    assert metrics["after"]["eval_exact_match"] >= 0.9
    assert metrics["after"]["eval_loss"] < metrics["before"]["eval_loss"]


def test_the_score_is_what_generation_gives(learned):
    """The score comes from one forward pass; the predictions are generated word by word."""
    lines = (learned / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    right = [row["after"] == row["expected"] for row in map(json.loads, lines)]
    assert sum(right) >= 7
    assert not any(json.loads(line)["before"] == json.loads(line)["expected"] for line in lines)


@pytest.mark.nightly
def test_pictures_of_other_rows_teach_nothing(tmp_path):
    """Answers and questions stay, pictures move to another row: what is left to learn is chance, 3.3 %."""
    lines = (SHAPES / "train.jsonl").read_text(encoding="utf-8").splitlines()
    read = [json.loads(line) for line in lines]
    shutil.copytree(SHAPES / "images", tmp_path / "images")
    for row, image in zip(read, [row["image"] for row in read[97:] + read[:97]], strict=True):
        row["image"] = image
    shuffled = tmp_path / "shuffled.jsonl"
    shuffled.write_text("".join(json.dumps(row) + "\n" for row in read), encoding="utf-8")
    folder = train(tmp_path, "+recipe=sft_lora", f"data.train={shuffled}", "data=shapes", "logging.predictions=0")
    assert rows(folder, "eval_loss")[-1]["eval_exact_match"] <= 0.15
