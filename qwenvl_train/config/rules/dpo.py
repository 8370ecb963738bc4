"""The rules about the settings of method=dpo."""

from qwenvl_train.config.rules.rule import Lines, Rule
from qwenvl_train.config.schema import COMPONENTS, RunConfig


def preference_settings_are_used(config: RunConfig, given: frozenset[str]) -> Lines:
    keys = sorted(key for key in given if key.startswith("dpo."))
    if config.method != "dpo":
        for key in keys:
            yield f"{key} has no effect while method={config.method}; use a DPO recipe, such as +recipe=dpo_lora"
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
        yield "dpo.loss=sft alone does not compare answers; use an SFT recipe, such as +recipe=sft_lora"
    if "exo_pair" in dpo.loss and not dpo.label_smoothing:
        yield "dpo.loss=exo_pair needs dpo.label_smoothing above 0, such as 0.001"
    if dpo.wpo and "sft" in dpo.loss:
        yield "dpo.wpo=true weights pairs, but dpo.loss=sft is a mean over tokens; remove one of them"


def reference_can_be_had(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.method != "dpo":
        return
    adapted = any(config.tuned(component) and config.adapted(component) for component in COMPONENTS)
    if config.dpo.reference == "adapter" and not adapted:
        yield "dpo.reference=adapter needs a component with adapters (lora.llm=true, …); use model or cached"
    if config.dpo.reference == "cached" and config.deepspeed.stage == 3:
        yield (
            "dpo.reference=cached runs the model before its weights are sharded, but deepspeed=zero3 shards them "
            "while loading; use dpo.reference=adapter or model, or deepspeed=zero2"
        )
    if config.dpo.reference == "cached" and config.data.streaming:
        yield (
            "dpo.reference=cached needs all rows before training, but data.streaming=true reads them during "
            "training; use dpo.reference=adapter or model"
        )


DPO_RULES: tuple[Rule, ...] = (
    preference_settings_are_used,
    preference_losses_are_whole,
    reference_can_be_had,
)
