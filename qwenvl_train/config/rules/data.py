"""The rules about data and about limits on media."""

from pathlib import Path

from qwenvl_train.config.rules.rule import Lines, Rule
from qwenvl_train.config.schema import RunConfig


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


def revision_is_used(config: RunConfig, given: frozenset[str]) -> Lines:
    if "model.revision" in given and config.model.revision is not None and Path(config.model.path).is_dir():
        yield f"model.revision has no effect, since model.path={config.model.path} is a local folder"


def packing_has_a_length(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.data.packing and config.data.max_length is None:
        yield "data.packing=true needs data.max_length, which limits the length of packed rows"
    if config.data.packing and config.data.bucketing:
        yield "data.bucketing=true has no effect while data.packing=true; set data.packing=false"


def pack_length_is_possible(config: RunConfig, given: frozenset[str]) -> Lines:
    length, most = config.data.pack_length, config.data.max_length
    if not config.data.packing:
        if "data.pack_length" in given and length != "auto":
            yield f"data.pack_length={length} has no effect while data.packing=false"
    elif length != "auto" and most is not None and length > most:
        yield f"data.pack_length={length} is above data.max_length={most}; raise that, or lower data.pack_length"
    elif length != "auto" and most is not None and length < most and config.data.streaming:
        yield (
            f"data.pack_length={length} may be below the longest sample of a stream, which is not known in advance; "
            f"lower data.max_length to {length}, too, or set data.pack_length=auto"
        )


def length_policy_is_used(config: RunConfig, given: frozenset[str]) -> Lines:
    if "data.too_long" in given and config.data.too_long != "error" and config.data.max_length is None:
        yield f"data.too_long={config.data.too_long} has no effect without data.max_length"


def a_share_is_known_in_advance(config: RunConfig, given: frozenset[str]) -> Lines:
    if config.data.eval_share is not None and config.data.streaming:
        yield (
            f"data.eval={config.data.eval} takes samples out of data.train before training, but with "
            "data.streaming=true they are read during it; name files, or set data.streaming=false"
        )


def skipping_is_used(config: RunConfig, given: frozenset[str]) -> Lines:
    if "data.max_skipped" in given and config.data.on_error != "skip" and config.data.too_long != "skip":
        yield "data.max_skipped has no effect without data.on_error=skip or data.too_long=skip"


def mixtures_are_whole(config: RunConfig, given: frozenset[str]) -> Lines:
    weighted = [source.weight is not None for source in config.data.train]
    if any(weighted) and not all(weighted):
        yield "data.train: only some entries have a weight; give one to all or to none"
    if any(weighted) and len(weighted) == 1:
        yield "data.train: weight has no effect on a single entry"
    for source in config.data.train:
        if source.weight is not None and source.repeats is not None:
            yield f"data.train: {source.path} has both weight and repeats; set one of the two"
    for source in config.data.eval_entries:
        if source.weight is not None or source.repeats is not None:
            yield f"data.eval: weight and repeats have no effect on {source.path}; each held-out row is scored once"


DATA_RULES: tuple[Rule, ...] = (
    pixel_limits_are_ordered,
    frame_limits_are_ordered,
    revision_is_used,
    packing_has_a_length,
    pack_length_is_possible,
    length_policy_is_used,
    a_share_is_known_in_advance,
    skipping_is_used,
    mixtures_are_whole,
)
