"""Predicted memory against what the same models hold when they train, and torch's own record of what is saved."""

import gc
from itertools import product

import pytest
import torch
from torch.optim import Optimizer

from qwenvl_train.config.schema import RunConfig
from qwenvl_train.data.batches.collate import collate
from qwenvl_train.families.family import Family
from qwenvl_train.model.autocast import autocast, autocast_to
from qwenvl_train.model.build import build_model
from qwenvl_train.model.pretrained import load_family
from qwenvl_train.model.processor import load_processor
from qwenvl_train.model.shapes import architecture
from qwenvl_train.planning.activations import Ledger, use_stand_in_for_kernels
from qwenvl_train.planning.memory import (
    Load,
    Moment,
    gradients,
    host,
    memory,
    moments,
    optimizer,
    recomputed,
    sized,
    traced_pass,
    weights,
)
from qwenvl_train.run.rows import make_renderer
from qwenvl_train.training.optim import build_optimizer, keep_masters, parameter_groups
from tests.conftest import FAMILIES, conversation, in_rotation, sample_of, two_families_by_day
from tests.settings import run_config

FULL = {"tune_mm_vision": True, "tune_mm_mlp": True, "tune_mm_llm": True}
LORA = {"tune_mm_mlp": True, "tune_mm_llm": True, "lora.llm": True}
VISION = {"tune_mm_vision": True, "tune_mm_mlp": True}
EVERYWHERE = FULL | {"lora.vision": True, "lora.mlp": True, "lora.llm": True}
MODES = {
    "full": FULL,
    "lora": LORA,
    "vision": VISION,
    "merger": {"tune_mm_mlp": True},
    "language": {"tune_mm_llm": True},
    "lora everywhere": EVERYWHERE,
    "lora beside full": FULL | {"lora.vision": True},
}


class Run:
    """A model as `train` prepares it, and one pass of its rows."""

    def __init__(self, checkpoint, pictures, precision: str, settings: dict, device: str = "cpu", repeated: int = 1):
        self.config: RunConfig = run_config(
            **{"model.path": str(checkpoint), "model.family": None, "data.max_length": None} | settings
        )
        self.family: Family = load_family(self.config.model)
        self.precision, self.device = precision, device
        processor = load_processor(self.config.model, self.family)
        renderer = make_renderer(self.config, processor, self.family)
        asked = conversation(("user", [*pictures, "What is it? " * 20]), ("assistant", ["It is a red circle. " * 10]))
        self.rendered = [renderer.render(sample_of(asked))] * repeated
        self.batch = collate(self.rendered, renderer)
        self.model = build_model(self.config, self.family, processor, precision).to(device)
        keep_masters(self.model)
        self.model.train()

    @property
    def load(self) -> Load:
        layouts = [one.layout for one in self.rendered]
        return Load(*(sum(getattr(layout, name) for layout in layouts) for name in ("length", "patches", "supervised")))

    def forward(self) -> torch.Tensor:
        with autocast(self.device.partition(":")[0], autocast_to(self.config, self.precision)):
            return -self.model(**self.batch).log_probs.sum()

    def optimizer(self) -> Optimizer:
        groups = parameter_groups(self.model, self.family, self.config)
        return build_optimizer(groups, self.config.optim)

    def moments(self) -> tuple[Moment, ...]:
        sizes = architecture(self.config.model)
        traced = traced_pass(sizes, self.family, self.config, self.precision, self.load)
        again = recomputed(self.config, sizes)
        return moments(traced, again, sizes, self.config, self.precision)


def storages(tensors) -> int:
    """Bytes, each piece of memory once."""
    found = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(found.values())


@pytest.fixture
def run(model_type, checkpoints, pictures):
    def make(mode: str, precision: str = "bf16", **settings) -> Run:
        return Run(checkpoints[model_type], pictures, precision, MODES[mode] | settings, repeated=4)

    return make


@pytest.mark.parametrize(
    ("model_type", "way"), in_rotation([*((mode, "bf16") for mode in MODES), ("full", "fp32"), ("lora", "fp32")])
)
def test_weights_gradients_and_optimizer_are_exact(way, run):
    mode, precision = way
    trained = run(mode, precision)
    steps = trained.optimizer()
    trained.forward().backward()
    steps.step()
    parameters = list(trained.model.parameters())
    state = [value for of_one in steps.state.values() for value in of_one.values() if isinstance(value, torch.Tensor)]
    config = trained.config
    sizes = sized(architecture(config.model), trained.family, config)
    assert weights(sizes, config, precision, 1) == storages(parameters)
    assert gradients(sizes, config, precision, 1) == storages(x.grad for x in parameters if x.grad is not None)
    assert optimizer(sizes, config, 1) == storages(state)


def test_eight_bit_states_are_exact(run):
    """Of tensors of both kinds, as bitsandbytes makes them; its tables are the same for all and stay out."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    trained = run("full", **{"optim.name": "adamw_8bit"})
    steps = trained.optimizer()
    assert isinstance(steps, bitsandbytes.optim.AdamW8bit)
    trained.forward().backward()
    steps.step()
    state = [
        value
        for of_one in steps.state.values()
        for name, value in of_one.items()
        if isinstance(value, torch.Tensor) and not name.startswith("qmap")
    ]
    sizes = sized(architecture(trained.config.model), trained.family, trained.config)
    assert optimizer(sizes, trained.config, 1) == storages(state)


def test_four_bits_are_exact(checkpoints, pictures):
    """As bitsandbytes stores them; its tables, some kilobytes for each weight, stay out."""
    pytest.importorskip("bitsandbytes")
    trained = Run(checkpoints["qwen2_5_vl"], pictures, "bf16", LORA | {"model.quantize": "nf4"})
    held = storages(trained.model.parameters())
    for parameter in trained.model.parameters():
        if (of_it := getattr(parameter, "quant_state", None)) is not None:
            held += of_it.absmax.nbytes + of_it.state2.absmax.nbytes
    sizes = sized(architecture(trained.config.model), trained.family, trained.config)
    assert sizes.four_bit
    assert weights(sizes, trained.config, "bf16", 1) == held


@pytest.mark.parametrize(
    ("stage", "offloaded", "weight", "gradient", "state", "in_host"),
    [
        (1, (), 2, 2, 12 / 8, 0),
        (2, (), 2, 2 / 8, 12 / 8, 0),
        (3, (), 2 / 8, 2 / 8, 12 / 8, 0),
        (2, ("optimizer",), 2, 0, 0, 16 / 8),
        (3, ("optimizer", "param"), 0, 0, 0, 18 / 8),
    ],
)
def test_zero_shares(stage, offloaded, weight, gradient, state, in_host, run):
    """Bytes of each trained parameter on one of eight devices, in the arithmetic of the ZeRO paper. The host's memory
    holds what is offloaded, together with the gradients in float32 that its step needs."""
    moved = {f"deepspeed.offload_{kind}": "cpu" for kind in offloaded}
    config = run_config(**FULL, **{"deepspeed.stage": stage}, **moved)
    trained = run("full")
    sizes = sized(architecture(trained.config.model), trained.family, config)
    elements = sum(sizes.trained)
    assert weights(sizes, config, "bf16", 8) == pytest.approx(weight * elements, abs=1)
    assert gradients(sizes, config, "bf16", 8) == pytest.approx(gradient * elements, abs=1)
    assert optimizer(sizes, config, 8) == pytest.approx(state * elements, abs=16)
    assert host(sizes, config, "bf16", 8) == pytest.approx(in_host * elements, abs=32)


def kept_for_backward(trained: Run) -> int:
    """Torch's own record, without weights."""
    own = {parameter.untyped_storage().data_ptr() for parameter in trained.model.parameters()}
    saved: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = trained.forward()
    assert loss.requires_grad
    return storages(tensor for tensor in saved if tensor.untyped_storage().data_ptr() not in own)


def alive_after_forward(trained: Run) -> int:
    trained.forward().backward()
    gc.collect()
    with Ledger() as ledger:
        loss = trained.forward()
        assert loss.requires_grad
        gc.collect()
        return ledger.alive


def end_of(passing: tuple[Moment, ...]) -> Moment:
    return next(moment for moment in passing if moment.name == "end of the forward pass")


@pytest.mark.parametrize(("model_type", "way"), in_rotation([*product(("full", "lora", "vision"), ("bf16", "fp32"))]))
def test_what_is_kept_without_checkpointing_is_what_autograd_saves(way, run):
    """Measured: from 0.961 to 1.044 of it. Gated DeltaNet layers keep more without their kernels, which need a GPU, so
    a stand-in takes the kernels' place here, too."""
    trained = run(*way, **{"train.checkpointing": "none"})
    use_stand_in_for_kernels(trained.model)
    assert end_of(trained.moments()).kept == pytest.approx(kept_for_backward(trained), rel=0.05)


@pytest.mark.parametrize(("model_type", "mode"), in_rotation(["full", "lora", "vision"]))
def test_what_is_kept_with_checkpointing(mode, run):
    """Measured: from 0.835 to 0.998 of it; what is left out does not grow with the number of blocks."""
    trained = run(mode, **{"train.checkpointing": "all"})
    assert end_of(trained.moments()).kept == pytest.approx(alive_after_forward(trained), rel=0.17)


@two_families_by_day
def test_stored_features_lie_there_during_the_whole_pass(model_type, run):
    looking, stored = (run("lora", **{"train.cache_vision": cached}) for cached in (False, True))
    vision = architecture(looking.config.model).vision_config
    levels = 1 + len(getattr(vision, "deepstack_visual_indexes", ()))
    width = vision.embed_dim if model_type == "qwen2_vl" else vision.hidden_size
    features = levels * looking.load.patches * width * 2
    before, after = looking.moments(), stored.moments()
    assert [moment.name for moment in before] == [moment.name for moment in after]
    assert [there.kept - here.kept for here, there in zip(before, after, strict=True)] == [features] * len(before)
    assert before[0].work > after[0].work == 0


@two_families_by_day
def test_each_part_that_is_recomputed_keeps_less(run):
    kept = {
        how: end_of(run("full", **{"train.checkpointing": how}).moments()).kept
        for how in ("none", "vision", "llm", "all")
    }
    assert kept["all"] < kept["vision"] < kept["none"]
    assert kept["all"] < kept["llm"] < kept["none"]
    assert kept["vision"] + kept["llm"] == kept["none"] + kept["all"]


@pytest.mark.parametrize(
    "model_type",
    [pytest.param(family, marks=() if family == "qwen3_vl_moe" else pytest.mark.nightly) for family in FAMILIES],
)
def test_kept_activations_grow_with_the_pass_and_never_with_its_square(run):
    trained = run("full", **{"train.checkpointing": "none"})
    sizes = architecture(trained.config.model)
    again = recomputed(trained.config, sizes)
    kept = []
    for length in (1000, 2000, 3000):
        load = Load(length, 4 * length, length)
        traced = traced_pass(sizes, trained.family, trained.config, "bf16", load)
        kept.append(end_of(moments(traced, again, sizes, trained.config, "bf16")).kept)
    assert kept[2] - kept[1] == kept[1] - kept[0] > 0


@pytest.mark.gpu
@pytest.mark.parametrize("how", ["none", "all"])
@pytest.mark.parametrize("mode", ["full", "lora"])
def test_the_peak_on_a_gpu(mode, how, checkpoints, pictures, tmp_path):
    """Torch's own figure, without what CUDA takes for itself; of a model large enough that activations count."""
    from qwenvl_train.families.tiny import build_model as build_tiny
    from qwenvl_train.families.tiny import save_tiny

    wide = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 8}
    folder = save_tiny("qwen3_vl", tmp_path / "wide", model=build_tiny("qwen3_vl", text=wide))
    # cuBLAS takes a workspace for each of the two threads that pass forward and backward, once; not the run's own.
    warm = torch.nn.Linear(64, 64, device="cuda")
    for dtype in (torch.float32, torch.bfloat16):
        warm.to(dtype)(torch.ones(64, 64, device="cuda", dtype=dtype)).sum().backward()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    settings = MODES[mode] | {"train.checkpointing": how}
    trained = Run(folder, pictures, "bf16", settings, device="cuda", repeated=40)
    steps = trained.optimizer()
    trained.batch = {key: _on_gpu(value) for key, value in trained.batch.items()}
    for _ in range(2):  # the first makes the optimizer's state, the second starts with it
        trained.forward().backward()
        steps.step()
    torch.cuda.reset_peak_memory_stats()
    trained.forward().backward()
    measured = torch.cuda.max_memory_allocated() - before
    config, sizes = trained.config, architecture(trained.config.model)
    traced = traced_pass(sizes, trained.family, config, "bf16", trained.load)
    of_model = sized(sizes, trained.family, config)
    assert memory(of_model, traced, sizes, config, "bf16", 1).counted == pytest.approx(measured, rel=0.1)


def _on_gpu(value):
    if isinstance(value, dict):
        return {key: _on_gpu(one) for key, one in value.items()}
    return value.to("cuda") if hasattr(value, "to") else value
