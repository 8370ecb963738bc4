"""The supported model families, by the model_type of a checkpoint."""

from qwenvl_train.errors import UserError
from qwenvl_train.families import qwen2_5_vl, qwen2_vl, qwen3_5, qwen3_5_moe, qwen3_vl, qwen3_vl_moe
from qwenvl_train.families.family import Family

FAMILIES: dict[str, Family] = {
    module.FAMILY.model_type: module.FAMILY
    for module in (qwen2_vl, qwen2_5_vl, qwen3_vl, qwen3_vl_moe, qwen3_5, qwen3_5_moe)
}


def family_of(model_type: str, where: str) -> Family:
    if model_type not in FAMILIES:
        raise UserError(
            f"{where} holds a model of type {model_type!r}, which is not supported; "
            f"supported are {', '.join(FAMILIES)}. Qwen3.6 and 3.8 are of type qwen3_5 or qwen3_5_moe."
        )
    return FAMILIES[model_type]
