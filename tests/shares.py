"""Checkpoints whose weights are divided among processes, as DeepSpeed's ZeRO-3 stores them."""

import shutil
from pathlib import Path

import torch


def write_shares(weights: dict[str, torch.Tensor], folder: Path, trained: set[str], processes: int = 3) -> None:
    """Write weights as shares of so many processes. Those that are not `trained` are frozen."""
    states = folder / "global_step1"
    states.mkdir()
    (folder / "latest").write_text(states.name, encoding="utf-8")
    first: dict[int, str] = {}
    tied = {name: first.setdefault(id(weight), name) for name, weight in weights.items()}
    whole = {name: weight for name, weight in weights.items() if tied[name] == name}
    shapes = {name: weight.shape for name, weight in whole.items()}
    for process in range(processes):
        shares = {name: _share(weight, process, processes) for name, weight in whole.items()}
        model = {
            "module": {},
            "buffer_names": [],
            "param_shapes": [{name: shape for name, shape in shapes.items() if name in trained}],
            "frozen_param_shapes": {name: shape for name, shape in shapes.items() if name not in trained},
            "frozen_param_fragments": {name: share for name, share in shares.items() if name not in trained},
            "shared_params": {name: holder for name, holder in tied.items() if name != holder},
            "ds_version": "0",
        }
        flat = torch.cat([share.float() for name, share in shares.items() if name in trained])
        optimizer = {"zero_stage": 3, "partition_count": processes, "fp32_flat_groups": [flat]}
        prefix = f"zero_pp_rank_{process}_mp_rank_00"
        torch.save(model, states / f"{prefix}_model_states.pt")
        torch.save({"optimizer_state_dict": optimizer}, states / f"{prefix}_optim_states.pt")


def sharded_copy(checkpoint: Path, weights: dict[str, torch.Tensor], folder: Path, trained: set[str]) -> Path:
    """A checkpoint with these weights as shares in place of its own."""
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.bin"))
    write_shares(weights, folder, trained)
    return folder


def _share(weight: torch.Tensor, process: int, processes: int) -> torch.Tensor:
    """The same number of elements for each process, the last of which are filled up."""
    each = -(-weight.numel() // processes)
    filled = torch.cat([weight.detach().flatten(), weight.new_zeros(each * processes - weight.numel())])
    return filled[process * each : (process + 1) * each].clone()
