"""Build the model of a run: load it, replace its forward pass, and freeze, train or adapt its components."""

import sys
from importlib.util import find_spec

import torch
from peft import PeftModel
from transformers import PreTrainedModel, set_seed

from qwenvl_train.config.schema import Component, RunConfig
from qwenvl_train.errors import UserError
from qwenvl_train.families.family import Family
from qwenvl_train.model.adapters import read_weights, with_stored_adapter
from qwenvl_train.model.attention import use_packed_attention
from qwenvl_train.model.autocast import use_autocast_once
from qwenvl_train.model.checkpointing import recomputed_parts, use_checkpointing
from qwenvl_train.model.compiling import use_compiled_blocks
from qwenvl_train.model.components import COMPONENTS, mode_of
from qwenvl_train.model.forward import use_packed_forward
from qwenvl_train.model.load import load_model
from qwenvl_train.model.patch_embed import use_linear_patches
from qwenvl_train.model.stored_adapter import stored_adapter
from qwenvl_train.model.trainable import continued_adapter, select_trained


def build_model(config: RunConfig, family: Family, processor, precision: str) -> PreTrainedModel | PeftModel:
    refuse_what_experts_cannot(config, family)
    model = arrange(load_model(config.model, family, precision), config, family, processor)
    return _with_stored_weights(model, config)


def build_copy(config: RunConfig, family: Family, processor, precision: str) -> PreTrainedModel | PeftModel:
    """Return the reference model: the model as loaded, with the adapter that the run continues, if there is one. It
    computes in the same way as the trained model."""
    model = load_model(config.model, family, precision)
    for component in in_float32(config, precision):
        for path in family.components[component]:
            for module in model.get_submodule(path).modules():
                if isinstance(module, torch.nn.Embedding) or "Norm" in type(module).__name__:
                    module.float()
    _use_our_passes(model, config, family, processor)
    if adapter := continued_adapter(config):
        return _with_stored_weights(with_stored_adapter(model, adapter, config.deepspeed.stage == 0), config)
    return model


def build_for_inference(
    config: RunConfig, family: Family, processor, precision: str, device: torch.device
) -> PreTrainedModel | PeftModel:
    """Return the model in model.path on a device, with its adapter if it is one. No parameter is trained."""
    model = load_model(config.model, family, precision)
    _use_our_passes(model, config, family, processor)
    if adapter := stored_adapter(config.model):
        model = with_stored_adapter(model, adapter)
        read_weights(model, adapter)
    if config.model.quantize == "none":  # 4-bit weights are where they were loaded
        model = model.to(device)
    return model.requires_grad_(False).eval()


def _with_stored_weights(model: PreTrainedModel | PeftModel, config: RunConfig) -> PreTrainedModel | PeftModel:
    """Read the weights of the adapter that the run continues, if there is one."""
    if adapter := continued_adapter(config):
        assert isinstance(model, PeftModel)
        read_weights(model, adapter)
    return model


def in_float32(config: RunConfig, precision: str) -> list[Component]:
    """Return the components whose weights are trained in float32.

    Float32 embeddings and norms make the states between blocks float32, too. Matrix products are rounded either way.
    """
    if precision == "fp32" or config.deepspeed.stage:
        return []
    return [component for component in COMPONENTS if mode_of(component, config) == "full"]


def arrange(model: PreTrainedModel, config: RunConfig, family: Family, processor) -> PreTrainedModel | PeftModel:
    """Prepare a loaded model for training as `config` says. The values of its weights do not matter."""
    _use_our_passes(model, config, family, processor)
    set_seed(config.seed)  # adapters start from random numbers
    # DeepSpeed cannot gather weights of mixed types.
    trained = select_trained(model, family, config, float32_adapters=config.deepspeed.stage == 0)
    # With checkpointing, PEFT would make gradients flow into the first block, and so through all of a frozen tower.
    reentrant = isinstance(trained, PeftModel) and config.deepspeed.stage == 3
    paths = {"vision": family.vision_path, "llm": family.language_path}
    recomputed = [paths[part] for part in recomputed_parts(config)]
    use_checkpointing(model, recomputed, config.train.checkpoint_every, reentrant)
    return trained


def _use_our_passes(model: PreTrainedModel, config: RunConfig, family: Family, processor) -> None:
    use_packed_forward(model, processor.image_processor)
    use_packed_attention(model, config.train.attention)
    use_linear_patches(model.get_submodule(family.vision_path).patch_embed.proj)
    use_autocast_once(model, family)
    if config.train.compile:
        use_compiled_blocks(model, [family.vision_path, family.language_path])
    if config.train.liger:
        from qwenvl_train.model.liger import use_liger

        use_liger(model)


def refuse_what_experts_cannot(config: RunConfig, family: Family) -> None:
    if family.expert_weights and config.model.quantize == "nf4":
        raise UserError(
            f"model.quantize=nf4 quantizes linear layers, but the experts of {family.name} are not linear layers: "
            "it would save hardly any memory. Set model.quantize=none."
        )
    if family.expert_weights and mode_of("llm", config) == "lora" and config.lora.dropout:
        raise UserError("lora.dropout must be 0 for mixture-of-experts models: adapters on experts have no dropout.")
    if family.expert_weights and config.train.compile:
        # Adapters make each layer's experts a class of their own, and each would be compiled by itself.
        raise UserError(f"train.compile=true cannot compile the experts of {family.name}. Set train.compile=false.")


def refuse_what_needs_a_gpu(config: RunConfig) -> None:
    if config.train.offload_activations and not torch.cuda.is_available():
        raise UserError(
            "train.offload_activations=true moves activations off a GPU, but there is no GPU; set it to false."
        )
    if config.train.liger and not torch.cuda.is_available():
        raise UserError("train.liger=true: Liger's kernels need a GPU, but there is no GPU; set it to false.")


def about_fp16(config: RunConfig, precision: str) -> str | None:
    """Return a warning if the states between blocks are in fp16, whose largest number is 65,504."""
    if precision != "fp16" or (config.deepspeed.stage == 0 and mode_of("llm", config) == "full"):
        return None
    return (
        "fp16: activations of Qwen2-VL and Qwen2.5-VL can exceed its range. If the loss becomes nan or stops "
        "changing, use train.precision=fp32 (twice the memory) or a GPU that supports bf16."
    )


def suggest_liger(config: RunConfig) -> str | None:
    """Return a hint if a run on a GPU does not use Liger's kernels although they are installed."""
    usable = torch.cuda.is_available() and sys.platform == "linux" and find_spec("liger_kernel") is not None
    if not usable or config.train.liger or config.train.compile:
        return None
    return "Liger is installed: train.liger=true fuses norms, gates and rotary embeddings to save time and memory"


def about_liger(model: PreTrainedModel | PeftModel, family: Family) -> str:
    from qwenvl_train.model.liger import summary

    return summary(base_model(model), family)


def base_model(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """Return the transformers model below the adapters."""
    return model.get_base_model() if isinstance(model, PeftModel) else model
