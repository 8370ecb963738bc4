"""The benchmark runs, and checks that all measured ways give the same batch."""

import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_the_benchmark_measures_what_the_baseline_holds(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(ROOT / "scripts" / "bench")
    import data_path

    output = tmp_path / "data_path.json"
    monkeypatch.setattr(sys, "argv", ["data_path.py", "--pictures", "4", "--rounds", "1", "--output", str(output)])
    data_path.main()
    assert "ours, from sample to batch" in capsys.readouterr().out
    measured = json.loads(output.read_text())
    baseline = json.loads((ROOT / "tests" / "baselines" / "data_path.json").read_text())
    # A copy without git has no commit.
    assert shape(measured | {"checkout": None}) == shape(baseline | {"checkout": None})
    assert measured["bytes_to_device"] == baseline["bytes_to_device"] == {"ours": 11571840, "pixel_values": 92574720}
    assert baseline["job"]["pictures"] == 48
    assert baseline["job"]["jpeg_bytes"] == pytest.approx(measured["job"]["jpeg_bytes"], rel=0.02)


def shape(value: object) -> object:
    return {key: shape(item) for key, item in value.items()} if isinstance(value, dict) else type(value)
