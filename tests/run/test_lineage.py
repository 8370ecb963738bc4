"""The merged model that a run starts from: written once, and refused if it is not what the run would write now."""

import json
import os

import pytest
from accelerate import PartialState

from qwenvl_train.errors import UserError
from qwenvl_train.model.stored_adapter import stored_adapter
from qwenvl_train.run import lineage
from tests.loading import write_adapter
from tests.settings import run_config


@pytest.fixture
def merging(checkpoints, tmp_path):
    """Merges an adapter, in the way of the main process, and returns the folder and the adapter's own folder."""
    adapter = write_adapter(checkpoints["qwen2_vl"], tmp_path / "adapter")
    model = run_config(**{"model.path": str(adapter), "model.family": None, "model.shape": None}).model
    folder = tmp_path / "run" / lineage.MERGED

    def merge():
        lineage._merge(stored_adapter(model), model, folder, PartialState(cpu=True))
        return folder, adapter

    return merge


def test_a_model_is_merged_once_and_not_from_other_weights(merging):
    folder, adapter = merging()
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert json.loads((folder / "merged_from.json").read_text())["adapter"] == str(adapter)
    assert merging()[0].joinpath("model.safetensors").stat().st_mtime_ns == written
    weights = adapter / "adapter_model.safetensors"
    os.utime(weights, ns=(0, 0))
    with pytest.raises(
        UserError, match=r"was merged from other files than those of model\.path .* now; choose another"
    ):
        merging()


def test_a_merged_model_needs_room(merging, monkeypatch):
    monkeypatch.setattr(lineage, "free_bytes", lambda folder: 1000)
    with pytest.raises(UserError, match=r"output_dir: the merged model needs about \d+ MiB in .*, and 0 MiB are free"):
        merging()
