"""The keys of raw rows, turns and parts: which keys are present, and which key a misspelt one was meant to be."""

from collections.abc import Collection, Iterable
from typing import Any

from qwenvl_train.config.options import nearest
from qwenvl_train.errors import UserError

MEDIA = ("image", "images", "video", "videos")
REJECTED_MEDIA = {
    "rejected_image": "image",
    "rejected_images": "images",
    "rejected_video": "video",
    "rejected_videos": "videos",
}
"""The columns that hold the media of the rejected answer when it is about media of its own. Each is mapped to the
column that it replaces."""
REJECTING = ("chosen", "rejected", "rejected_response", "rejected_messages", *REJECTED_MEDIA)
COLUMNS = {
    *MEDIA,
    *REJECTING,
    *("id", "conversations", "messages", "system", "tools", "objects", "add_vision_id"),
    *("answers", "metric", "targets", "episode"),
    *("prompt", "completion", "query", "response", "history", "instruction", "input", "output"),
}


def present(given: dict) -> dict[str, Any]:
    """Return the keys that have a value. A key without a value counts as absent, since table files give every row the
    keys of all rows."""
    return {key: value for key, value in given.items() if value is not None}


def has_own_media(row: dict) -> bool:
    """Return whether the rejected answer of a preference row is about media of its own."""
    return any(row.get(key) for key in REJECTED_MEDIA)


def with_rejected_media(row: dict) -> dict:
    """Return the raw row with the media of the rejected answer. Columns that the rejected answer does not replace are
    shared with the chosen answer."""
    own = {key: row[rejected] for rejected, key in REJECTED_MEDIA.items() if row.get(rejected)}
    replaced = {name for key in own for name in (key.removesuffix("s"), key.removesuffix("s") + "s")}
    return {key: value for key, value in row.items() if key not in replaced} | own


def refuse_unknown(given: Iterable[str], known: Collection[str], place: str) -> None:
    for key in given:
        if key not in known:
            meant = nearest(str(key), known)
            raise UserError(
                f"{place} has the unknown key {key!r}; "
                + (f"did you mean {meant!r}?" if meant else f"known keys: {', '.join(sorted(known))}.")
            )


def misspelt(row: dict, meant: Collection[str]) -> str:
    """Return a sentence about the first unknown column whose name is close to one of `meant` that the row lacks, or an
    empty string."""
    missing = [key for key in meant if key not in row]
    for key in row:
        if key not in COLUMNS and (near := nearest(str(key), missing)):
            return f" Is the column {key!r} a misspelling of {near!r}?"
    return ""
