"""The rules of training that hold on any machine."""

from qwenvl_train.config.best import GENERATED, comparable_metrics
from qwenvl_train.config.options import recipe_files
from qwenvl_train.config.rules.rule import Lines, Rule, among
from qwenvl_train.config.schema import COMPONENTS, DeepSpeedConfig, RunConfig
from qwenvl_train.config.scoring import EvalConfig, own_code_is_allowed

_OF_DEEPSPEED = tuple(f"deepspeed.{key}" for key in DeepSpeedConfig.model_fields if key != "stage")
_OF_STAGE_3 = ("offload_param", "whole_elements", "gather_on_save")


def something_is_tuned(config: RunConfig, given: frozenset[str]) -> Lines:
    if not any(config.tuned(component) for component in COMPONENTS):
        yield (
            "no component is trained; choose a recipe, such as +recipe=sft_lora "
            f"(recipes: {', '.join(recipe_files())}), "
            "or set tune_mm_vision, tune_mm_mlp or tune_mm_llm to true"
        )


def adapters_are_tuned(config: RunConfig, given: frozenset[str]) -> Lines:
    for component in COMPONENTS:
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


def quantized_weights_stay_frozen(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.model.quantize == "nf4" and config.tuned("llm") and not config.adapted("llm"):
        yield (
            "model.quantize=nf4: 4-bit weights cannot be trained in full; "
            "train through adapters (lora.llm=true) or freeze the language model (tune_mm_llm=false)"
        )


def quantized_models_have_adapters(config: RunConfig, given: frozenset[str]) -> Lines:
    """Require adapters for 4-bit weights, since transformers does not train a model with 4-bit weights without them."""
    if config.model.quantize == "nf4" and not config.tuned("llm") and not config.has_adapters:
        yield "model.quantize=nf4 needs a component with adapters; set lora.mlp=true or model.quantize=none"


def quantized_weights_are_not_sharded(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.model.quantize == "nf4" and config.deepspeed.stage == 3:
        yield "model.quantize=nf4: deepspeed=zero3 cannot shard 4-bit weights; use deepspeed=zero2"


def run_name_is_one_folder(config: RunConfig, given: frozenset[str]) -> Lines:
    name = config.run_name
    if name is not None and (name in ("", ".", "..") or "/" in name):
        yield f"run_name={name}: must be the name of one folder; output_dir sets where the folder is"


def learning_rates_are_used(config: RunConfig, given: frozenset[str]) -> Lines:
    for component in COMPONENTS:
        key = f"train.lr_{component}"
        if key in given and getattr(config.train, f"lr_{component}") is not None and not config.tuned(component):
            yield f"{key} has no effect while tune_mm_{component}=false"
    tuned = [component for component in COMPONENTS if config.tuned(component)]
    own = [f"train.lr_{component}" for component in tuned if getattr(config.train, f"lr_{component}")]
    if "train.lr" in given and tuned and len(own) == len(tuned):
        yield f"train.lr has no effect, since every tuned component has its own rate ({', '.join(own)})"


def adapter_settings_are_used(config: RunConfig, given: frozenset[str]) -> Lines:
    if not any(config.adapted(component) for component in COMPONENTS):
        for key in among(given, "lora.rank", "lora.alpha", "lora.dropout", "lora.rslora"):
            yield f"{key} has no effect while no component has adapters (lora.llm=true, …)"
    if config.lora.existing == "continue" and not config.has_adapters:
        yield "lora.existing=continue trains an adapter further, but no component has adapters; set lora.llm=true, …"


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
            "train.cache_vision=true stores the outputs of a frozen vision tower, but those of a trained one change "
            "at each step; set tune_mm_vision=false, or train.cache_vision=false"
        )
    if config.data.streaming:
        yield (
            "train.cache_vision=true stores features before training, but with data.streaming=true the media are not "
            "known in advance; set one of the two to false"
        )


def compiled_weights_are_whole(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.train.compile and config.deepspeed.stage == 3:
        yield "train.compile=true cannot compile the weight transfers of deepspeed=zero3; use deepspeed=zero2"
    if config.train.compile and config.model.quantize == "nf4":
        yield "train.compile=true does not support 4-bit weights; set train.compile=false or model.quantize=none"


def blocks_are_fused_once(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.train.liger and config.train.compile:
        yield "train.liger=true and train.compile=true fuse the same operations, each in its own way; set one of them"


def evaluation_settings_are_used(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.data.eval is not None:
        return
    asked = {
        "train.eval_steps": config.train.eval_steps is not None,
        "train.eval_batch_size": True,
        "train.best_metric": True,
        "train.patience": config.train.patience is not None,
        "eval.generate": config.eval.generate,
        "logging.predictions": config.logging.predictions > 0,
        "logging.wandb.artifacts": config.logging.wandb.artifacts == "best",
    }
    for key in among(given, *asked):
        if asked[key]:
            yield f"{key} has no effect without data.eval"


def best_metric_is_evaluated(config: RunConfig, given: frozenset[str]) -> Lines:
    known = comparable_metrics(config)
    metric = config.train.best_metric
    if metric.startswith(GENERATED):
        names = [name for name in config.eval.metrics if metric.removeprefix(GENERATED).startswith(name)]
        if not config.eval.generate:
            yield f"train.best_metric={metric} needs eval.generate=true"
        elif "auto" not in config.eval.metrics and not names:
            yield f"train.best_metric={metric} is not among eval.metrics ({', '.join(config.eval.metrics)})"
    elif metric not in known:
        yield (
            f"train.best_metric={config.train.best_metric}: must be a metric that the evaluations of "
            f"method={config.method} give: {', '.join(known)}, and with eval.generate=true {GENERATED}<metric>"
        )


def patience_is_used(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.train.patience is not None and config.data.eval is not None and config.train.eval_steps is None:
        yield (
            f"train.patience={config.train.patience} counts evaluations during training; set train.eval_steps to the "
            "number of steps between them"
        )


def generation_settings_are_used(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.eval.generate:
        return
    # The answers that the report shows are cut and scored, too.
    of_shown = {"max_new_tokens", "metrics", "allow_code"}
    others = {"generate"} | (of_shown if config.data.eval and config.logging.predictions else set())
    for key in among(given, *(f"eval.{name}" for name in EvalConfig.model_fields if name not in others)):
        yield f"{key} has no effect while eval.generate=false"


def wandb_settings_are_used(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.logging.wandb.mode == "disabled":
        for key in among(
            given, *(f"logging.wandb.{name}" for name in ("project", "entity", "group", "tags", "artifacts"))
        ):
            yield f"{key} has no effect while logging.wandb.mode=disabled"


def artifacts_have_weights(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.logging.wandb.artifacts != "none" and not config.deepspeed.saves_whole_weights:
        yield (
            f"logging.wandb.artifacts={config.logging.wandb.artifacts} needs deepspeed.gather_on_save=true, since it "
            "uploads whole weights"
        )


def deepspeed_settings_are_used(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.deepspeed.stage == 0:
        for key in among(given, *_OF_DEEPSPEED):
            yield f"{key} has no effect without a stage of ZeRO, such as deepspeed=zero2"
    elif config.deepspeed.stage < 3:
        for key in among(given, *(f"deepspeed.{name}" for name in _OF_STAGE_3)):
            yield f"{key} has no effect without deepspeed=zero3, which shards the weights"


def offloading_is_possible(config: RunConfig, given: frozenset[str]) -> Lines:
    chosen = config.deepspeed
    if chosen.stage == 0:
        return
    disk = [key for key in ("offload_optimizer", "offload_param") if getattr(chosen, key) == "nvme"]
    if disk and chosen.nvme_path is None:
        yield f"deepspeed.{disk[0]}=nvme needs deepspeed.nvme_path, a folder on a local NVMe disk"
    if chosen.nvme_path is not None and not disk:
        yield "deepspeed.nvme_path has no effect unless deepspeed.offload_optimizer or offload_param is nvme"
    if chosen.offload_optimizer == "nvme" and chosen.stage < 3:
        yield "deepspeed.offload_optimizer=nvme needs deepspeed=zero3; use cpu, or zero3"
    if chosen.offload_optimizer == "nvme" and not chosen.gather_on_save:
        yield (
            "deepspeed.gather_on_save=false takes the weights of a checkpoint from its optimizer states, which do not "
            "have them with deepspeed.offload_optimizer=nvme; set one of the two otherwise"
        )
    if chosen.offload_optimizer != "none" and config.optim.name == "adamw_8bit":
        yield (
            f"deepspeed.offload_optimizer={chosen.offload_optimizer} computes the optimizer's step on the CPU, but "
            "optim=adamw_8bit needs a GPU; use optim=adamw"
        )


def rehearsed_rows_are_known(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.train.rehearse and config.data.streaming:
        yield (
            "train.rehearse=true computes the largest micro-batch of an epoch before the first step, but with "
            "data.streaming=true the lengths of rows are not known in advance; set one of the two to false"
        )


def streams_are_endless(config: RunConfig, given: frozenset[str]) -> Lines:
    if not config.data.streaming:
        return
    if config.train.max_steps is None:
        yield "data.streaming=true needs train.max_steps, because the rows in an epoch are not known"
    for source in config.data.train:
        if source.repeats is not None:
            yield f"data.train: repeats has no effect on {source.path} while data.streaming=true; use weight"


TRAINING_RULES: tuple[Rule, ...] = (
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
    best_metric_is_evaluated,
    patience_is_used,
    generation_settings_are_used,
    own_code_is_allowed,
    wandb_settings_are_used,
    artifacts_have_weights,
    deepspeed_settings_are_used,
    offloading_is_possible,
    rehearsed_rows_are_known,
    streams_are_endless,
)
