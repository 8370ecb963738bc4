"""The JSON output of inspect, one line for each sample, for scripts and for tests."""

from typing import Any

from qwenvl_train.verbs.inspect.facts import Broken, Clip, Inspected, Picture


def as_json(item: Inspected | Broken) -> dict[str, Any]:
    """Return the object for one line of output=json. If no run can train on the row, `error` holds the reason."""
    if isinstance(item, Broken):
        return {"id": item.id, "source": item.source, "line": item.line, "error": item.problem}
    return {
        "id": item.id,
        "source": item.source,
        "line": item.line,
        "length": item.length,
        "input_ids": item.input_ids.tolist(),
        "labels": item.labels.tolist(),
        "position_ids": item.position_ids.tolist(),
        "supervised_text": item.supervised_text,
        "images": [_picture_as_json(medium) for medium in item.media if isinstance(medium, Picture)],
        "videos": [_clip_as_json(medium) for medium in item.media if isinstance(medium, Clip)],
        **({"error": item.problem} if item.problem else {}),
    }


def _picture_as_json(picture: Picture) -> dict[str, Any]:
    return {
        "path": picture.path,
        "original": list(picture.original),
        "resized": list(picture.resized),
        "grid_thw": list(picture.grid),
        "tokens": picture.tokens,
    }


def _clip_as_json(clip: Clip) -> dict[str, Any]:
    return {
        "path": clip.path,
        "frames": clip.frames,
        "fps": clip.fps,
        "resized": list(clip.resized),
        "grid_thw": list(clip.grid),
        "tokens": clip.tokens,
        "timestamps": list(clip.timestamps),
    }
