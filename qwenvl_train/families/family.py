"""What differs from one model generation to the next, as one frozen record."""

from dataclasses import dataclass

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
    expert_weights: tuple[str, ...] = ()
    """Weights of expert layers, three-dimensional parameters rather than modules, as paths in one decoder layer."""
    vision_path: str = "model.visual"
    language_path: str = "model.language_model"
