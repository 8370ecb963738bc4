"""The differences between the model families, as one frozen record for each family."""

from dataclasses import dataclass
from typing import Literal

from qwenvl_train.config.schema import Component
from qwenvl_train.families.chat_format import PLAIN, ChatFormat


@dataclass(frozen=True)
class Family:
    """The properties of one model family.

    Module paths are those of the AutoModelForImageTextToText class that transformers has for this model_type.
    """

    model_type: str
    name: str
    """Name of the family as the papers write it."""
    components: dict[Component, tuple[str, ...]]
    """Path prefixes of each component. Together they cover every parameter exactly once."""
    default_system: str | None
    """The system turn that the published chat template adds to a conversation without one. None if it adds none."""
    video_time: Literal["pairs", "seconds", "timestamps"]
    """How the model learns the time of a frame pair: "pairs" are counted, positions grow with the "seconds", or
    "timestamps" are written as words before each pair."""
    video_limits: Literal["frame", "clip"]
    """Whether the pixel limits of the checkpoint's video processor hold for one frame or for the whole clip."""
    coordinates: Literal["relative", "resized"]
    """Unit of boxes and points: thousandths of the picture ("relative"), or pixels of the resized picture."""
    regions: Literal["tokens", "json"]
    """Whether answers list regions between special tokens for them, or as JSON."""
    chat: ChatFormat = PLAIN
    """The chat format. That of the checkpoint's own chat template replaces this one."""
    other_chats: tuple[ChatFormat, ...] = ()
    """The other chat formats that published checkpoints of the family have."""
    tokens_per_second: float = 0
    """Growth of positions per second if `video_time` is "seconds". The checkpoint's own value replaces this one."""
    window_size: int | None = None
    """Side in pixels of the attention windows of most vision blocks. The checkpoint's own value replaces this one."""
    position_side: int | None = None
    """Side of the square of learned positions in the vision tower. The checkpoint's own value replaces this one."""
    linear_attention: bool = False
    """Whether some decoder layers are Gated DeltaNet layers, which carry a state from token to token."""
    expert_weights: tuple[str, ...] = ()
    """Paths of the expert weights in one decoder layer. They are three-dimensional parameters, not modules."""
    vision_path: str = "model.visual"
    language_path: str = "model.language_model"
