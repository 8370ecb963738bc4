"""Checks that a checkpoint's own chat template writes conversations as this project renders them."""

from typing import Any

from qwenvl_train.errors import UserError
from qwenvl_train.families.family import Family

_ASKED = "Which bird?"


def check_template(processor, family: Family, where: str) -> None:
    """Raise UserError when the checkpoint's chat template writes a conversation differently from the family's format.

    Such a checkpoint would be trained on one format and served in another.
    """
    expected = "" if family.default_system is None else f"<|im_start|>system\n{family.default_system}<|im_end|>\n"
    expected += (
        f"<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{_ASKED}"
        "<|vision_start|><|video_pad|><|vision_end|><|im_end|>\n"
        "<|im_start|>assistant\nA wren.<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n"
        "<|im_start|>assistant\nYes.<|im_end|>\n"
    )
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [_part("image", "x"), _part("text", _ASKED), _part("video", "x")]},
        {"role": "assistant", "content": [_part("text", "A wren.")]},
        {"role": "user", "content": [_part("text", "Sure?")]},
        {"role": "assistant", "content": [_part("text", "Yes.")]},
    ]
    written = processor.apply_chat_template(messages, tokenize=False)
    if written != expected:
        raise UserError(
            f"The chat template of {where} does not format conversations as {family.name} does: "
            f"it gives {written!r}, expected {expected!r}. Use a checkpoint with the published template."
        )


def _part(kind: str, value: str) -> dict[str, str]:
    return {"type": kind, kind: value}
