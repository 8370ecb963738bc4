"""The norm of the gradient and the update of each component, beside those of copies of all gradients and weights."""

import pytest
import torch
from transformers import TrainerCallback

import qwenvl_train
from qwenvl_train.model.components import component_of
from tests.commands import QUIET, rows
from tests.conftest import conversation


class Copies(TrainerCallback):
    """Callback that measures each step with copies of all trained weights."""

    def __init__(self, run):
        self.run, self.gradients, self.updates = run, [], []

    def by_component(self, tensors: dict[str, torch.Tensor]) -> dict[str, float]:
        found = {}
        for name, tensor in tensors.items():
            component = component_of(name, self.run.context.family)
            found[component] = found.get(component, 0.0) + float((tensor.double() ** 2).sum())
        return {component: square**0.5 for component, square in found.items()}

    def trained(self):
        return {name: one for name, one in self.run.model.named_parameters() if one.requires_grad}

    def on_step_begin(self, *_, **__):
        self.before = {name: weight.detach().clone() for name, weight in self.trained().items()}

    def on_pre_optimizer_step(self, *_, **__):
        self.gradients.append(self.by_component({name: one.grad for name, one in self.trained().items()}))

    def on_step_end(self, *_, **__):
        changes = {name: weight.detach() - self.before[name] for name, weight in self.trained().items()}
        sizes = self.by_component(self.before)
        self.updates.append({name: change / sizes[name] for name, change in self.by_component(changes).items()})


@pytest.mark.parametrize(
    ("recipe", "settings", "clips"),
    [
        ("sft_full", ("train.clip=0.01", "train.lr_mlp=1e-4"), True),
        ("sft_lora", ("train.clip=0", "tune_mm_vision=true", "lora.vision=true"), False),
    ],
)
def test_figures_of_components(recipe, settings, clips, write_rows, pictures, checkpoints, tmp_path):
    asked = [[pictures[index % 3], f"What? {index}"] if index % 2 else [f"{index}?"] for index in range(8)]
    data = write_rows([conversation(("user", one), ("assistant", ["A red circle."])) for one in asked])
    run = qwenvl_train.prepare(
        qwenvl_train.compose(
            [
                f"+recipe={recipe}", f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={data}",
                "data.packing=false", "data.workers=0", "data.eval=null", "train.max_steps=4", "train.log_steps=2",
                "train.accumulation=2", QUIET, *settings, f"output_dir={tmp_path}", "run_name=run",
                "logging.wandb.mode=disabled",
            ]
        )
    )  # fmt: skip
    copies = Copies(run)
    run.trainer.add_callback(copies)
    run.train()
    logged = rows(tmp_path / "run")
    assert [row["step"] for row in logged] == [1, 2, 4]
    for row in logged:
        gradients, updates = copies.gradients[row["step"] - 1], copies.updates[row["step"] - 1]
        assert len(updates) > 1
        clipped = sum(norm**2 for norm in gradients.values()) ** 0.5
        assert (clipped == pytest.approx(0.01, rel=1e-3)) == clips
        for component, norm in gradients.items():
            expected = norm * row["grad_norm"] / clipped
            # Measured worst cases: 1.2e-6 and 8.2e-8
            assert row[f"grad_norm_{component}"] == pytest.approx(expected, rel=1e-5)
            assert row[f"update_ratio_{component}"] == pytest.approx(updates[component], rel=1e-5)
