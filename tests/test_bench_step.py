"""The benchmark of the step runs at its smallest, and all of its ways come to the same loss."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts" / "bench"
# A published entry, with two layers of everything that it is made of.
SMALL_TEXT = {
    "num_hidden_layers": 2, "hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 2,
    "num_key_value_heads": 1, "vocab_size": 1024,
}  # fmt: skip
SMALL_VISION = {
    "depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2, "out_hidden_size": 256,
    "deepstack_visual_indexes": [0],
}  # fmt: skip
SMALL = [f"model.shape.text.{key}={value}" for key, value in SMALL_TEXT.items()]
SMALL += [f"model.shape.vision.{key}={value}" for key, value in SMALL_VISION.items()]


@pytest.fixture
def measured(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(SCRIPTS)
    import step

    def measure(*arguments: str) -> dict:
        output = tmp_path / "step.json"
        smallest = ["--rounds", "1", "--peak-tflops", "2", "--output", str(output)]
        settings = ["model.max_pixels=25088", "train.precision=fp32"]
        monkeypatch.setattr(sys, "argv", ["step.py", *smallest, *arguments, *settings])
        step.main()
        return json.loads(output.read_text())

    threads = torch.get_num_threads()
    yield measure
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("arguments", "recipe", "batch_size", "accumulation"),
    [
        (["--samples", "4", "--batch-size", "2"], "sft_full", 2, 1),
        pytest.param(
            ["--model", "qwen3_vl_4b", "--lora", "--samples", "8", "--batch-size", "2", "--accumulation", "2", *SMALL],
            "sft_lora",
            2,
            2,
            marks=pytest.mark.nightly,
        ),
    ],
    ids=["tiny in full", "a published entry through adapters"],
)
def test_every_way_takes_the_same_samples_to_the_same_loss(
    arguments, recipe, batch_size, accumulation, measured, capsys
):
    result = measured(*arguments)
    assert "TRL's trainer" in capsys.readouterr().out
    assert result.keys() == {"job", "steps", "runs", "skipped", "hardware", "versions", "checkout"}
    job, steps, runs = result["job"], result["steps"], result["runs"]
    assert (job["recipe"], job["batch_size"], job["accumulation"]) == (recipe, batch_size, accumulation)
    assert steps.keys() | result["skipped"].keys() == {"padded_sdpa", "padded_flash", "packed"}
    assert runs.keys() == {"trl", "ours"}
    padded, packed, trl, ours = steps["padded_sdpa"], steps["packed"], runs["trl"], runs["ours"]
    assert packed["loss"] == pytest.approx(padded["loss"], rel=1e-5)
    assert ours["loss"] == pytest.approx(packed["loss"], rel=1e-5)
    # It teaches one token more for each sample.
    assert trl["loss"] == pytest.approx(ours["loss"], rel=0.05)
    assert trl["loss"] != ours["loss"]
    assert packed["padding"] == ours["padding"] == 0 < min(padded["padding"], trl["padding"])
    assert packed["ours_is_times"] == ours["ours_is_times"] == 1
    for way in (padded, packed, trl, ours):
        assert way.keys() == packed.keys()
        assert way["mfu"] == pytest.approx(way["tflops"] / 2, rel=0.01)
    # Useful work for each sample, by the padded and the packed step: padding is none of it.
    each = [way["tflops"] / way["samples_per_second"] for way in (padded, packed)]
    assert each == pytest.approx([job["tflop_per_sample"]] * 2, rel=0.02)


def test_a_number_of_samples_that_makes_no_whole_steps_is_refused(measured):
    with pytest.raises(SystemExit, match="--samples 6 must be two or more steps of --batch-size 4"):
        measured("--samples", "6", "--batch-size", "4")


@pytest.mark.parametrize(
    ("steps", "runs", "named"),
    [
        ({"packed": (2.0001, 1.0)}, {}, "packed"),
        ({"packed": (2.0, 1.001)}, {}, "packed"),
        ({}, {"ours": 2.0001}, "ours"),
        ({}, {"trl": 2.0}, "trl"),
        ({}, {}, None),
    ],
)
def test_a_way_that_computes_something_else_is_refused(steps, runs, named, monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    from step_turns import check_equal
    from turns import Taken

    job = SimpleNamespace(precision="fp32")
    of_steps = {"padded_sdpa": (2.0, 1.0), "packed": (2.000001, 1.00001)} | steps
    of_runs = {"trl": 2.1, "ours": 2.000001} | runs
    arguments = (
        {name: Taken(first={"loss": loss, "grad_norm": norm}) for name, (loss, norm) in of_steps.items()},
        {name: Taken(first={"loss": loss}) for name, loss in of_runs.items()},
    )
    with pytest.raises(AssertionError, match=named) if named else nullcontext():
        check_equal(job, *arguments, trl_learns=2.1)


def test_readme_tells_what_the_baseline_holds():
    root = Path(__file__).resolve().parents[1]
    baseline = json.loads((root / "tests" / "baselines" / "step_tiny.json").read_text())
    told = " ".join((root / "README.md").read_text(encoding="utf-8").split())
    assert f"takes {baseline['runs']['trl']['ours_is_times']:.1f} times as many samples a second as TRL's" in told
    assert f"{baseline['runs']['trl']['padding']:.0%}".replace("%", " %") + " of TRL's tokens are padding" in told
