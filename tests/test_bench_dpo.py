"""The benchmark of preference tuning runs at its smallest, and all of its ways come to the same loss and gradient."""

import json
import sys
from contextlib import nullcontext
from math import log
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts" / "bench")
    import dpo

    threads = torch.get_num_threads()
    yield dpo
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("arguments", "recipe"),
    [
        pytest.param([], "dpo_lora", id="adapters", marks=pytest.mark.nightly),
        pytest.param(
            ["--full", "dpo.loss=[sigmoid,apo_zero]", "dpo.weights=[1,0.5]"], "dpo_full", id="in full, two losses"
        ),
    ],
)
def test_every_way_takes_the_same_pairs_to_the_same_gradient(arguments, recipe, bench, monkeypatch, tmp_path, capsys):
    output = tmp_path / "dpo.json"
    smallest = ["--pairs", "4", "--batch-size", "1", "--accumulation", "2", "--rounds", "1", "--peak-tflops", "2"]
    settings = ["model.max_pixels=25088", "train.precision=fp32"]
    monkeypatch.setattr(sys, "argv", ["dpo.py", *smallest, "--output", str(output), *arguments, *settings])
    bench.main()
    assert "TRL's trainer" in capsys.readouterr().out
    result = json.loads(output.read_text())
    assert result.keys() == {"job", "runs", "skipped", "hardware", "versions", "checkout"}
    assert (result["job"]["recipe"], result["job"]["pairs"], result["job"]["accumulation"]) == (recipe, 4, 2)
    assert result["runs"].keys() == {"trl", "ours", "apart"}
    trl, ours, apart = (result["runs"][name] for name in ("trl", "ours", "apart"))
    for way in (trl, apart):
        assert way.keys() == ours.keys()
        for what, value in ours["first_step"].items():
            assert way["first_step"][what] == pytest.approx(value, rel=1e-4, abs=2e-5), what
    # Models that are the same would tell nothing of the pairs.
    assert abs(ours["first_step"]["rewards/margins"]) > 0.01
    assert abs(ours["first_step"]["loss"] - log(2)) > 0.001
    assert ours["padding"] == apart["padding"] == 0 < trl["padding"]
    assert ours["tokens_per_pair"] < apart["tokens_per_pair"] == trl["tokens_per_pair"]
    for way in (trl, ours, apart):
        assert way["mfu"] == pytest.approx(way["tflops"] / 2, rel=0.01)
        assert way["tokens_per_second"] == pytest.approx(way["pairs_per_second"] * way["tokens_per_pair"], rel=0.02)


@pytest.mark.parametrize(
    ("what", "by", "told"),
    [
        ("logps/rejected", 2e-5, "TRL's trainer computes something else: logps/rejected differs by 2.0e-05"),
        ("grad_norm", float("nan"), "grad_norm differs by nan"),
        ("loss", 2e-5, None),
    ],
)
def test_a_way_that_computes_something_else_is_told(what, by, told, bench):
    differs = dict.fromkeys(bench.EQUAL, 0.0) | {what: by}
    result = {"job": {"precision": "fp32"}, "runs": {"trl": {"differs": differs}}}
    with pytest.raises(SystemExit, match=told) if told else nullcontext():
        bench.check_equal(result)


def test_a_reference_that_only_one_side_would_take_is_refused(bench, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["dpo.py", "--pairs", "2", "--batch-size", "1", "dpo.reference=none"])
    with pytest.raises(SystemExit, match=r"leave dpo\.reference out"):
        bench.main()


def test_readme_tells_what_the_baseline_holds():
    baseline, kept = (
        json.loads((ROOT / "tests" / "baselines" / name).read_text())
        for name in ("dpo_tiny.json", "dpo_tiny_none.json")
    )
    told = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    runs = baseline["runs"]
    assert f"takes {runs['trl']['ours_is_times']:.1f} times as many pairs a second as TRL's DPOTrainer" in told
    assert f"A factor of {runs['apart']['ours_is_times']:.1f} comes from computing the shared question once" in told
    assert (baseline["job"]["checkpointing"], kept["job"]["checkpointing"]) == ("all", "none")
    assert f"[{kept['runs']['trl']['ours_is_times']:.1f} times](tests/baselines/dpo_tiny_none.json)" in told
