"""Checks that a checkpoint's own chat template writes conversations as this project renders them."""

from dataclasses import replace
from typing import Any

from qwenvl_train.errors import UserError
from qwenvl_train.families.family import Family

_ASKED = "Which bird?"
_THOUGHT = "<think>\nIt is small.\n</think>\n\n"


def as_template(processor, family: Family, where: str) -> Family:
    """Return the family with the thoughts that the checkpoint's chat template writes, or none.

    Raise UserError when the template writes a conversation differently from both. Such a checkpoint would be trained on
    one format and served in another.
    """
    written = processor.apply_chat_template(_conversation(""), tokenize=False)
    expected = _expected(family, "")
    if written == expected:
        return family
    # The thoughts of earlier answers are left out, and an answer without thoughts has empty ones.
    thoughtful = processor.apply_chat_template(_conversation(_THOUGHT), tokenize=False, add_generation_prompt=True)
    empty, prompt = "<think>\n\n</think>\n\n", "<|im_start|>assistant\n<think>\n"
    if (written, thoughtful) == (_expected(family, empty), _expected(family, _THOUGHT) + prompt):
        return replace(family, thinking=True)
    raise UserError(
        f"The chat template of {where} does not format conversations as {family.name} does: "
        f"it gives {written!r}, expected {expected!r}. Use a checkpoint with the published template."
    )


def _expected(family: Family, before_last: str) -> str:
    system = "" if family.default_system is None else f"<|im_start|>system\n{family.default_system}<|im_end|>\n"
    return (
        f"{system}<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{_ASKED}"
        "<|vision_start|><|video_pad|><|vision_end|><|im_end|>\n"
        f"<|im_start|>assistant\nA wren.<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n"
        f"<|im_start|>assistant\n{before_last}Yes.<|im_end|>\n"
    )


def _conversation(thought: str) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": [_part("image", "x"), _part("text", _ASKED), _part("video", "x")]},
        {"role": "assistant", "content": [_part("text", f"{thought}A wren.")]},
        {"role": "user", "content": [_part("text", "Sure?")]},
        {"role": "assistant", "content": [_part("text", f"{thought}Yes.")]},
    ]


def _part(kind: str, value: str) -> dict[str, str]:
    return {"type": kind, kind: value}
