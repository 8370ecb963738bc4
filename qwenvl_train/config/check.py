"""The rules that involve several settings. Each rule is a function that yields one line for each problem it finds."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from qwenvl_train.config.options import Verb, recipe_files
from qwenvl_train.config.schema import Component, RunConfig

Lines = Iterator[str]
Rule = Callable[[RunConfig, frozenset[str]], Lines]

_COMPONENTS: tuple[Component, ...] = ("vision", "mlp", "llm")


_OF_DEEPSPEED = tuple(
    f"deepspeed.{key}" for key in ("overlap_comm", "bucket_elements", "grad_accum_dtype", "communication_dtype")
)


def broken_rules(config: RunConfig, given: frozenset[str], verb: Verb) -> list[str]:
    """Return one line for each problem. `given` holds the keys that the user wrote, and each must have an effect."""
    return [line for rule in RULES[verb] for line in rule(config, given)]


def broken_rules_of_part(config: RunConfig, given: frozenset[str], verb: Verb) -> list[str]:
    """Return one line for each problem in a configuration without its invalid values. Rules that read an invalid value
    are skipped."""
    lines: list[str] = []
    for rule in RULES[verb]:
        try:
            lines.extend(rule(config, given))
        except AttributeError:  # the rule reads a value that is not in the configuration
            continue
    return lines


def something_is_tuned(config: RunConfig, given: frozenset[str]) -> Lines:
    if not any(config.tuned(component) for component in _COMPONENTS):
        yield (
            f"nothing is tuned; pick a recipe, +recipe=sft_lora say (there are: {', '.join(recipe_files())}), "
            "or set tune_mm_vision, tune_mm_mlp or tune_mm_llm to true"
        )


def adapters_are_tuned(config: RunConfig, given: frozenset[str]) -> Lines:
    for component in _COMPONENTS:
        if config.adapted(component) and not config.tuned(component):
            yield f"lora.{component}=true has no effect while tune_mm_{component}=false; set both, or neither"


def one_length_of_training(config: RunConfig, given: frozenset[str]) -> Lines:
    epochs, steps = config.train.epochs, config.train.max_steps
    if epochs is None and steps is None:
        yield "train.epochs and train.max_steps are both null; set one of the two"
    if epochs is not None and steps is not None:
        yield f"train.epochs={epochs:g} and train.max_steps={steps} are both set; set one of the two"


def warmup_ends_within_training(config: RunConfig, given: frozenset[str]) -> Lines:
    warmup, steps = config.train.warmup, config.train.max_steps
    if warmup >= 1 and warmup % 1:
        yield f"train.warmup={warmup:g} is neither a share below 1 nor a whole number of steps"
    if steps is not None and warmup >= max(1, steps):
        yield f"train.warmup={warmup:g} must be below train.max_steps={steps}"


def pixel_limits_are_ordered(config: RunConfig, given: frozenset[str]) -> Lines:
    low, high = config.model.min_pixels, config.model.max_pixels
    if low is not None and high is not None and low > high:
        yield f"model.min_pixels={low} is above model.max_pixels={high}"


def frame_limits_are_ordered(config: RunConfig, given: frozenset[str]) -> Lines:
    video = config.model.video
    for low, high in (("min_pixels", "max_pixels"), ("min_frames", "max_frames")):
        least, most = getattr(video, low), getattr(video, high)
        if least is not None and most is not None and least > most:
            yield f"model.video.{low}={least} is above model.video.{high}={most}"


def quantized_weights_stay_frozen(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.model.quantize == "nf4" and config.tuned("llm") and not config.adapted("llm"):
        yield (
            "model.quantize=nf4: 4-bit weights cannot be trained in full; "
            "train through adapters (lora.llm=true) or freeze the language model (tune_mm_llm=false)"
        )


def quantized_models_have_adapters(config: RunConfig, given: frozenset[str]) -> Lines:
    """Require adapters for 4-bit weights, since transformers does not train a model with 4-bit weights without them."""
    adapted = any(config.tuned(component) and config.adapted(component) for component in get_args(Component))
    if config.model.quantize == "nf4" and not config.tuned("llm") and not adapted:
        yield "model.quantize=nf4 needs a component with adapters; set lora.mlp=true, say, or model.quantize=none"


def quantized_weights_are_not_sharded(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.model.quantize == "nf4" and config.deepspeed.stage == 3:
        yield "model.quantize=nf4: deepspeed=zero3 cannot shard 4-bit weights; take deepspeed=zero2"


def bitsandbytes_is_installed(config: RunConfig, given: frozenset[str]) -> Lines:
    if is_installed("bitsandbytes"):
        return
    if config.model.quantize == "nf4":
        yield "model.quantize=nf4 needs bitsandbytes: pip install 'qwenvl-train[qlora]'"
    if config.optim.name == "adamw_8bit":
        yield "optim.name=adamw_8bit needs bitsandbytes: pip install 'qwenvl-train[qlora]'"


def liger_is_installed(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.train.liger and not is_installed("liger_kernel"):
        yield "train.liger=true needs liger-kernel: pip install 'qwenvl-train[liger]'"


def resumed_checkpoint_exists(config: RunConfig, given: frozenset[str]) -> Lines:
    resume = config.train.resume
    if resume not in ("auto", "never") and not Path(resume).is_dir():
        yield f"train.resume={resume}: must be auto, never, or a checkpoint folder that exists"


def run_name_is_one_folder(config: RunConfig, given: frozenset[str]) -> Lines:
    name = config.run_name
    if name is not None and (name in ("", ".", "..") or "/" in name):
        yield f"run_name={name}: must be the name of one folder; where it lies is output_dir"


def learning_rates_are_used(config: RunConfig, given: frozenset[str]) -> Lines:
    for component in _COMPONENTS:
        key = f"train.lr_{component}"
        if key in given and getattr(config.train, f"lr_{component}") is not None and not config.tuned(component):
            yield f"{key} has no effect while tune_mm_{component}=false"
    tuned = [component for component in _COMPONENTS if config.tuned(component)]
    own = [f"train.lr_{component}" for component in tuned if getattr(config.train, f"lr_{component}")]
    if "train.lr" in given and tuned and len(own) == len(tuned):
        yield f"train.lr has no effect, since every tuned component has its own rate ({', '.join(own)})"


def adapter_settings_are_used(config: RunConfig, given: frozenset[str]) -> Lines:
    if not any(config.adapted(component) for component in _COMPONENTS):
        for key in _among(given, "lora.rank", "lora.alpha", "lora.dropout", "lora.rslora"):
            yield f"{key} has no effect while no component has adapters (lora.llm=true, …)"


def checkpointing_is_used(config: RunConfig, given: frozenset[str]) -> Lines:
    """Reject checkpointing settings without effect. A frozen vision tower has no backward pass, so nothing is
    recomputed in it."""
    if "train.checkpointing" in given and config.train.checkpointing == "vision" and not config.tuned("vision"):
        yield "train.checkpointing=vision has no effect while tune_mm_vision=false"
    if "train.checkpoint_every" in given and config.train.checkpoint_every > 1 and config.train.checkpointing == "none":
        every = config.train.checkpoint_every
        yield f"train.checkpoint_every={every} has no effect while train.checkpointing=none"


def stored_features_stay_right(config: RunConfig, given: frozenset[str]) -> Lines:
    if not config.train.cache_vision:
        return
    if config.tuned("vision"):
        yield (
            "train.cache_vision=true stores what a frozen vision tower gives, and a trained one gives something else "
            "at each step; set tune_mm_vision=false, or train.cache_vision=false"
        )
    if config.data.streaming:
        yield (
            "train.cache_vision=true stores features before the training, and what data.streaming=true brings is not "
            "known by then; set one of the two to false"
        )


def compiled_weights_are_whole(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.train.compile and config.deepspeed.stage == 3:
        yield "train.compile=true: deepspeed=zero3 fetches weights in between what would be one; take deepspeed=zero2"
    if config.train.compile and config.model.quantize == "nf4":
        yield "train.compile=true does not compile 4-bit weights; take train.compile=false or model.quantize=none"


def blocks_are_fused_once(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.train.liger and config.train.compile:
        yield "train.liger=true: train.compile=true fuses the same, and does not see into Liger's kernels; take one"


def evaluation_settings_are_used(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.data.eval is not None:
        return
    asked = {
        "train.eval_steps": config.train.eval_steps is not None,
        "train.eval_batch_size": True,
        "logging.predictions": config.logging.predictions > 0,
    }
    for key in _among(given, *asked):
        if asked[key]:
            yield f"{key} has no effect without data.eval"


def wandb_settings_are_used(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.logging.wandb.mode == "disabled":
        for key in _among(given, *(f"logging.wandb.{name}" for name in ("project", "entity", "group", "tags"))):
            yield f"{key} has no effect while logging.wandb.mode=disabled"


def revision_is_used(config: RunConfig, given: frozenset[str]) -> Lines:
    if "model.revision" in given and config.model.revision is not None and Path(config.model.path).is_dir():
        yield f"model.revision has no effect, since model.path={config.model.path} is a local folder"


def deepspeed_settings_are_used(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.deepspeed.stage == 0:
        for key in _among(given, *_OF_DEEPSPEED):
            yield f"{key} has no effect without deepspeed=zero2 or deepspeed=zero3"


def packing_has_a_length(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.data.packing and config.data.max_length is None:
        yield "data.packing=true needs data.max_length, the length to which rows are filled"
    if config.data.packing and config.data.bucketing:
        yield "data.bucketing=true has no effect while data.packing=true; set data.packing=false"


def length_policy_is_used(config: RunConfig, given: frozenset[str]) -> Lines:
    if "data.too_long" in given and config.data.too_long != "error" and config.data.max_length is None:
        yield f"data.too_long={config.data.too_long} has no effect without data.max_length"


def skipping_is_used(config: RunConfig, given: frozenset[str]) -> Lines:
    if "data.max_skipped" in given and config.data.on_error != "skip" and config.data.too_long != "skip":
        yield "data.max_skipped has no effect without data.on_error=skip or data.too_long=skip"


def mixtures_are_whole(config: RunConfig, given: frozenset[str]) -> Lines:
    weighted = [source.weight is not None for source in config.data.train]
    if any(weighted) and not all(weighted):
        yield "data.train: a weight is given for some entries only; give it for all or for none"
    if any(weighted) and len(weighted) == 1:
        yield "data.train: weight has no effect on a single entry"
    for source in config.data.train:
        if source.weight is not None and source.repeats is not None:
            yield f"data.train: {source.path} has both weight and repeats; give one of the two"
    for source in config.data.eval or ():
        if source.weight is not None or source.repeats is not None:
            yield f"data.eval: weight and repeats have no effect on {source.path}; each held-out row is scored once"


def streams_are_endless(config: RunConfig, given: frozenset[str]) -> Lines:
    if not config.data.streaming:
        return
    if config.train.max_steps is None:
        yield "data.streaming=true needs train.max_steps: how many rows an epoch has is not known"
    for source in config.data.train:
        if source.repeats is not None:
            yield f"data.train: repeats has no effect on {source.path} while data.streaming=true; weight has one"


def preference_settings_are_used(config: RunConfig, given: frozenset[str]) -> Lines:
    keys = sorted(key for key in given if key.startswith("dpo."))
    if config.method != "dpo":
        for key in keys:
            yield f"{key} has no effect while method={config.method}; take a recipe for DPO, +recipe=dpo_lora say"
        return
    if "dpo.discopop_tau" in given and "discopop" not in config.dpo.loss:
        yield "dpo.discopop_tau has no effect without dpo.loss=discopop"
    if config.dpo.label_smoothing and not {"robust", "exo_pair"} & set(config.dpo.loss):
        yield "dpo.label_smoothing has no effect without dpo.loss=robust or exo_pair"


def preference_losses_are_whole(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.method != "dpo":
        return
    dpo = config.dpo
    if len(set(dpo.loss)) < len(dpo.loss):
        yield f"dpo.loss={','.join(dpo.loss)} names a loss twice"
    if dpo.weights is not None and len(dpo.weights) != len(dpo.loss):
        yield f"dpo.weights gives {len(dpo.weights)} weights for {len(dpo.loss)} losses; give one for each, or null"
    if set(dpo.loss) == {"sft"}:
        yield "dpo.loss=sft alone compares nothing; take a recipe for supervised fine-tuning, +recipe=sft_lora say"
    if "exo_pair" in dpo.loss and not dpo.label_smoothing:
        yield "dpo.loss=exo_pair needs dpo.label_smoothing above 0, 0.001 say"
    if dpo.wpo and "sft" in dpo.loss:
        yield "dpo.wpo=true weighs pairs, and dpo.loss=sft counts tokens; leave one of them out"


def reference_can_be_had(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.method != "dpo":
        return
    adapted = any(config.tuned(component) and config.adapted(component) for component in _COMPONENTS)
    if config.dpo.reference == "adapter" and not adapted:
        yield "dpo.reference=adapter needs a component with adapters (lora.llm=true, …); take model or cached"
    if config.dpo.reference == "cached" and config.deepspeed.stage == 3:
        yield (
            "dpo.reference=cached computes before weights are sharded, and deepspeed=zero3 shards them as they are "
            "read; take dpo.reference=adapter or model, or deepspeed=zero2"
        )
    if config.dpo.reference == "cached" and config.data.streaming:
        yield (
            "dpo.reference=cached goes through all rows before the run, and data.streaming=true reads them in it; "
            "take dpo.reference=adapter or model"
        )


def nothing_is_inspected(config: RunConfig, given: frozenset[str]) -> Lines:
    for key in sorted(given):
        if key == "output" or key.startswith("inspect."):
            yield f"{key} has no effect in training; qwenvl-train inspect … shows what a run would train on"


def nothing_is_planned(config: RunConfig, given: frozenset[str]) -> Lines:
    for key in sorted(given):
        if key.startswith("plan."):
            yield f"{key} has no effect here; qwenvl-train plan … tells what a run would take"


def only_a_plan_is_told(config: RunConfig, given: frozenset[str]) -> Lines:
    for key in sorted(given):
        if key.startswith("inspect."):
            yield f"{key} has no effect on a plan; qwenvl-train inspect … shows what a run would train on"
    if config.output == "html":
        yield "output=html: a plan is told as text or json"


def planned_device_is_described_once(config: RunConfig, given: frozenset[str]) -> Lines:
    own = config.plan.device_gib is not None and config.plan.tflops is not None
    if "plan.device" in given and own:
        yield "plan.device has no effect beside plan.device_gib and plan.tflops"


def chosen_samples_exist(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.inspect.source == "eval" and config.data.eval is None:
        yield "inspect.source=eval needs data.eval"
    chosen = [f"inspect.{name}" for name in ("ids", "lines") if getattr(config.inspect, name)]
    if chosen:
        for key in _among(given, "inspect.samples", "inspect.random"):
            yield f"{key} has no effect beside {' and '.join(chosen)}"
    elif config.inspect.samples == 0 and (config.output == "json" or not config.inspect.summary):
        yield "inspect.samples=0 leaves nothing to show"
    elif config.inspect.samples in (0, None):
        for key in _among(given, "inspect.random"):
            yield f"{key} has no effect while inspect.samples={'null' if config.inspect.samples is None else 0}"


def output_settings_are_used(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.output != "html":
        for key in _among(given, "inspect.file"):
            yield f"{key} has no effect without output=html"
    if config.output == "json":
        for key in _among(given, "inspect.summary"):
            yield f"{key} has no effect with output=json, which tells of samples only"


RULES_OF_DATA: tuple[Rule, ...] = (
    pixel_limits_are_ordered,
    frame_limits_are_ordered,
    revision_is_used,
    packing_has_a_length,
    length_policy_is_used,
    skipping_is_used,
    mixtures_are_whole,
)

RULES_OF_TRAINING: tuple[Rule, ...] = (
    something_is_tuned,
    adapters_are_tuned,
    one_length_of_training,
    warmup_ends_within_training,
    quantized_weights_stay_frozen,
    quantized_models_have_adapters,
    quantized_weights_are_not_sharded,
    run_name_is_one_folder,
    learning_rates_are_used,
    adapter_settings_are_used,
    checkpointing_is_used,
    stored_features_stay_right,
    compiled_weights_are_whole,
    blocks_are_fused_once,
    evaluation_settings_are_used,
    wandb_settings_are_used,
    deepspeed_settings_are_used,
    preference_settings_are_used,
    preference_losses_are_whole,
    reference_can_be_had,
    *RULES_OF_DATA,
    streams_are_endless,
)
"""The rules of training that hold on any machine."""

RULES: dict[Verb, tuple[Rule, ...]] = {
    "train": (
        *RULES_OF_TRAINING,
        bitsandbytes_is_installed,
        liger_is_installed,
        resumed_checkpoint_exists,
        nothing_is_inspected,
        nothing_is_planned,
    ),
    # Users put this verb in front of the command line of a training run, so settings of training are allowed here.
    "inspect": (*RULES_OF_DATA, chosen_samples_exist, output_settings_are_used, nothing_is_planned),
    # A planned run is often for another machine, so the rules about installed packages do not apply.
    "plan": (*RULES_OF_TRAINING, only_a_plan_is_told, planned_device_is_described_once),
}


def is_installed(module: str) -> bool:
    return find_spec(module) is not None


def _among(given: frozenset[str], *keys: str) -> list[str]:
    return [key for key in keys if key in given]
