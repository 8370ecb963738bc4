"""The user's mistakes, through the whole command: one clear sentence, exit code 2, nothing half-written."""

import json

import pytest
from PIL import Image

from qwenvl_train.cli import main
from tests.conftest import conversation


@pytest.fixture
def rows(tmp_path, pictures, checkpoints):
    broken = tmp_path / "broken.png"
    broken.write_bytes(pictures[0].read_bytes()[:60])
    (tmp_path / "zero.jpg").write_bytes(b"")
    Image.new("RGB", (2, 900)).save(tmp_path / "thin.png")
    unknown = tmp_path / "bert"
    unknown.mkdir()
    (unknown / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return {
        "good": conversation(("user", [pictures[0], "What?"]), ("assistant", ["Red."])),
        "half": conversation(("user", [broken, "What?"]), ("assistant", ["Red."]), id="h"),
        "zero": conversation(("user", [tmp_path / "zero.jpg", "What?"]), ("assistant", ["Red."])),
        "thin": conversation(("user", [tmp_path / "thin.png", "What?"]), ("assistant", ["Red."])),
    }


TUNE = "tune_mm_mlp=true"
CASES = {
    "misspelt key": ("good", ["train.batchsize=2"], "train.batch_size"),
    "no such model": ("good", ["model.path=./nowhere"], "nowhere does not exist"),
    "model folder without config": ("good", ["model.path={tmp}"], "has no config.json"),
    "another architecture": ("good", ["model.path={tmp}/bert"], "Qwen3.6 and 3.8 are of type qwen3_5 or qwen3_5_moe"),
    "wrong family": ("good", ["model.family=qwen3_vl"], "contains a qwen2_5_vl model, but model.family is qwen3_vl"),
    "hub id without network": ("good", ["model.path=Qwen/Qwen2.5-VL-3B-Instruct"], "could not be downloaded"),
    "limits crossed": ("good", ["model.min_pixels=999999"], "is above model.max_pixels"),
    "no such file": ("good", ["data.train=gone.jsonl"], "there is no file or folder gone.jsonl"),
    "too long": ("good", ["data.max_length=10"], "rows.jsonl:1 (id a) is"),
    "zero bytes": ("zero", [], "is an empty file"),
    "too thin": ("thin", [], "is 2×900 pixels"),
    "fp16 without a GPU": ("good", ["train.precision=fp16"], "needs a GPU"),
    "warm-up longer than the run": ("good", ["train.warmup=50"], "train.warmup=50 must be below the"),
    "no checkpoint": ("good", ["train.resume={tmp}"], "is not a checkpoint"),
}


@pytest.mark.parametrize("case", CASES)
def test_mistakes_are_told_before_anything_is_written(case, rows, write_rows, checkpoints, tmp_path, capsys):
    name, settings, words = CASES[case]
    settings = [setting.format(tmp=tmp_path) for setting in settings]
    given = {setting.split("=")[0] for setting in settings}
    defaults = {"model.path": checkpoints["qwen2_5_vl"], "data.train": write_rows([rows[name]])}
    settings += [f"{key}={value}" for key, value in defaults.items() if key not in given]
    output = tmp_path / "runs"
    assert main([TUNE, *settings, f"output_dir={output}", "logging.wandb.mode=disabled"]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert "Traceback" not in told
    # What was measured is kept for the next try.
    assert [path.name for path in output.glob("*")] in ([], [".cache"])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_does_not_decode_is_named_also_by_a_worker(
    workers, rows, write_rows, checkpoints, tmp_path, capsys
):
    """Its header is fine, so this comes out in training: the run says so, and keeps what it has."""
    path = write_rows([rows["half"]])
    settings = [f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={path}", f"data.workers={workers}"]
    place = [f"output_dir={tmp_path}", "run_name=r", "logging.wandb.mode=disabled"]
    assert main([TUNE, *settings, *place, "train.max_steps=1"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"qwenvl-train: {path}:1 (id h): the image")
    assert "cannot be decoded" in told
    assert "Traceback" not in told


def test_another_run_is_not_continued_with_other_settings(rows, write_rows, checkpoints, tmp_path, capsys):
    path = write_rows([rows["good"]])
    common = [
        TUNE, f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={path}", "data.workers=0", "train.max_steps=1",
        f"output_dir={tmp_path}", "run_name=r", "logging.wandb.mode=disabled",
    ]  # fmt: skip
    assert main(common) == 0
    before = (tmp_path / "r" / "metrics.jsonl").read_text()
    assert main([*common, "train.lr=1e-3", "seed=1"]) == 2
    told = capsys.readouterr().err
    assert "seed was 42, is 1; train.lr was 1e-05, is 0.001" in told
    assert main([*common, "train.resume=never"]) == 2
    assert "already contains checkpoints" in capsys.readouterr().err
    assert (tmp_path / "r" / "metrics.jsonl").read_text() == before
    # A finished run has nothing to add, and stays as it is.
    assert main(common) == 0
    assert (tmp_path / "r" / "metrics.jsonl").read_text() == before
