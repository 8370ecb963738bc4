"""Read pictures and clips, with their options, from typed parts and columns.

This module makes the checks that need only the options themselves; `media` checks the options against the model and
the file.
"""

from dataclasses import fields
from typing import Any, get_args

from qwenvl_train.data.formats.keys import present, refuse_unknown
from qwenvl_train.data.media.locate import Locator, shown
from qwenvl_train.data.sample import Detail, Image, Limits, Sampling, Video, given_options
from qwenvl_train.errors import UserError

# The keys that can hold the file, for each kind of part.
CONTENT = {
    "image": ("image", "image_url", "url", "path", "base64"),
    "video": ("video", "video_url", "url", "path"),
}
_KINDS = {
    "text": "text",
    "image": "image",
    "image_url": "image",
    "video": "video",
    "video_url": "video",
    "objects": "objects",
}
_LIMITS = tuple(field.name for field in fields(Limits))
_SAMPLING = tuple(field.name for field in fields(Sampling))
_REAL = ("fps", "video_start", "video_end")
# These options choose frames of a video file, so they have no effect on a list of frames.
_OF_FILES = ("nframes", "min_frames", "max_frames", "video_start", "video_end")


def kind_of(part: dict, place: str) -> str:
    """Return the kind of a part, which its type states, or else one of its keys."""
    if "type" in part:
        name = part["type"]
        kind = _KINDS.get(name) if isinstance(name, str) else None
    else:
        kind = next((_KINDS[key] for key in ("objects", *_KINDS) if key in part), None)
    if kind is None:
        raise UserError(f"{place} has the unknown part {shown(part)}; known parts: {', '.join(_KINDS)}.")
    return kind


def opened(kind: str, part: dict, place: str) -> tuple[object, dict]:
    """Return the content of a picture or clip, or None when the part has none, and its options."""
    keys = [key for key in CONTENT[kind] if key in part]
    if len(keys) > 1:
        raise UserError(f"{place}: {' and '.join(keys)} both name the file; keep one of them.")
    options = {key: value for key, value in part.items() if key not in ("type", *keys)}
    if not keys:
        return None, options
    content = part[keys[0]]
    match keys[0]:
        case "image_url" | "video_url" if isinstance(content, dict):
            address = present(content)
            refuse_unknown(address, ("url", "detail"), f"{place}, {keys[0]}")
            content = address.get("url")
            if "detail" in address:
                options["detail"] = address["detail"]
        case "base64" if isinstance(content, str):
            content = f"data:;base64,{content}"
    return content, options


def image(content: object, options: dict, locator: Locator, place: str) -> Image:
    refuse_unknown(options, (*_LIMITS, "detail"), f"{place}: the image")
    _one_of(("detail", "resized_height"), options, place)
    detail = options.get("detail")
    if detail not in (None, *get_args(Detail)):
        raise UserError(f"{place}: detail is {shown(detail)}; give {', '.join(get_args(Detail))}, or max_pixels.")
    return Image(locator.locate(content, place), _limits(options, place), detail)


def video(content: object, options: dict, locator: Locator, place: str) -> Video:
    frames = isinstance(content, list | tuple)
    refuse_unknown(options, (*_LIMITS, *_SAMPLING, *(("sample_fps",) if frames else ())), f"{place}: the video")
    _one_of(("fps", "sample_fps"), options, place)
    options = {("fps" if key == "sample_fps" else key): value for key, value in options.items()}
    limits, sampling = _limits(options, place), _sampling(options, place)
    _one_of(("total_pixels", "resized_height"), options, place)
    if not isinstance(content, list | tuple):
        return Video(locator.locate(content, place), limits, sampling)
    if not content:
        raise UserError(f"{place}: the video is an empty list of frames.")
    for key in _OF_FILES:
        if key in options:
            raise UserError(f"{place}: {key} has no effect on a list of frames; all of them are used.")
    return Video(tuple(locator.locate(frame, place) for frame in content), limits, sampling)


def _limits(options: dict, place: str) -> Limits:
    limits = Limits(**{key: _number(options[key], key, place) for key in _LIMITS if key in options})
    if (limits.resized_height is None) != (limits.resized_width is None):
        raise UserError(f"{place}: resized_height and resized_width must be given together.")
    for key in ("min_pixels", "max_pixels"):
        _one_of((key, "resized_height"), options, place)
    _in_order("min_pixels", "max_pixels", given_options(limits), place)
    return limits


def _sampling(options: dict, place: str) -> Sampling:
    sampling = Sampling(**{key: _number(options[key], key, place) for key in _SAMPLING if key in options})
    for key in ("fps", "min_frames", "max_frames"):
        _one_of((key, "nframes"), options, place)
    _in_order("min_frames", "max_frames", given_options(sampling), place)
    if sampling.video_end is not None and (sampling.video_start or 0) >= sampling.video_end:
        raise UserError(
            f"{place}: video_start ({sampling.video_start}) is not before video_end ({sampling.video_end})."
        )
    return sampling


def _number(value: Any, key: str, place: str) -> Any:
    """Return the value of an option as a number. Whole numbers may be given as 1.0, because table files write them so
    when some rows have no value."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53
    if not number or (value == 0 and key != "video_start") or (key not in _REAL and value != int(value)):
        kind = "a number of seconds, 0 or more" if key == "video_start" else "a number above 0"
        raise UserError(f"{place}: {key} is {shown(value)}; give {kind if key in _REAL else 'a whole number above 0'}.")
    return float(value) if key in _REAL else int(value)


def _one_of(keys: tuple[str, str], options: dict, place: str) -> None:
    if all(key in options for key in keys):
        raise UserError(f"{place}: {keys[0]} and {keys[1]} exclude each other; keep one of them.")


def _in_order(low: str, high: str, values: dict, place: str) -> None:
    if low in values and high in values and values[low] > values[high]:
        raise UserError(f"{place}: {low} ({values[low]}) is above {high} ({values[high]}).")
