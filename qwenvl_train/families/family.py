"""What differs from one model generation to the next, as one frozen record."""

from dataclasses import dataclass
from typing import Literal

from qwenvl_train.config.schema import Component


@dataclass(frozen=True)
class Family:
    """Module paths are those of transformers' AutoModelForImageTextToText class for this model_type."""

    model_type: str
    name: str
    """As the papers write it."""
    components: dict[Component, tuple[str, ...]]
    """Path prefixes of each component; together they cover every parameter exactly once."""
    default_system: str | None
    """The system turn that the published chat template adds where a conversation has none."""
    video_time: Literal["pairs", "seconds", "timestamps"]
    """How a frame pair's time is told: counted; in positions that grow with the seconds; or as words before it."""
    video_limits: Literal["frame", "clip"]
    """What the pixel limits of the checkpoint's video processor hold for."""
    coordinates: Literal["relative", "resized"]
    """Boxes and points are told in thousandths of the picture, or in pixels of the resized picture."""
    regions: Literal["tokens", "json"]
    """Answers list regions between tokens made for them, or as JSON."""
    tokens_per_second: float = 0
    """How fast positions grow where video_time is seconds; the checkpoint's own number replaces the published one."""
    window_size: int | None = None
    """Side in pixels of the windows that most vision blocks look within; the checkpoint's own replaces it."""
    position_side: int | None = None
    """Side of the square of learned positions in the vision tower; the checkpoint's own replaces it."""
    expert_weights: tuple[str, ...] = ()
    """Weights of expert layers, three-dimensional parameters rather than modules, as paths in one decoder layer."""
    vision_path: str = "model.visual"
    language_path: str = "model.language_model"
