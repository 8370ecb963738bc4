"""`make loop` on its real settings: each step raises the held-out score, and filtering beats not filtering."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

LOOP = Path(__file__).resolve().parents[2] / "scripts" / "loop.py"


@pytest.mark.nightly
@pytest.mark.parametrize("seed", [1, 5])
def test_each_step_raises_the_held_out_score(tmp_path, seed):
    folder = tmp_path / "loop"
    done = subprocess.run(
        [sys.executable, str(LOOP), str(folder), "--seed", str(seed)], capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert [score["step"] for score in result["scores"]] == ["unfiltered", "filtered", "sampled", "preferred"]
    assert all(score["difference_low"] > 0 for score in result["scores"][1:])
    assert result["failed"] == []
    assert (result["control"]["step"], result["preferred_beside_control"]["step"]) == ("control", "preferred")
    dropped = result["filter"]["dropped_of_kind"]
    assert len(dropped) == 16
    assert dropped["none"][0] <= 3
    # Wrong bins are beyond rules.
    assert all(count >= 0.9 * rows for kind, (count, rows) in dropped.items() if kind not in ("none", "wrong_bin"))
