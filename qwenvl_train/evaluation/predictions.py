"""The rows of predictions.jsonl: held-out samples with the answers that the model gives before and after training."""

from typing import Any, Literal

Row = dict[str, Any]


def prediction(answered: Row, when: Literal["before", "after"], stored: Row | None) -> Row:
    """Return the row of predictions.jsonl of an answer.

    Args:
        answered: The row of the answer, as `answering` makes it. `scores` are its figures by metric, if it has any, and
            `right` tells whether the first metric counts it as right.
        when: The time at which the answer was generated.
        stored: The row that the file has so far, from which the other answer is taken.
    """
    stored = stored or {}
    found = answered.get("regions", {})
    regions = {"expected": found.get("expected", []), **_joined("regions", when, found.get("answer", []), stored, [])}
    scores = _joined("scores", when, answered.get("scores", {}), stored, {})
    right = _joined("right", when, answered.get("right"), stored, None)
    return {
        **{key: answered[key] for key in ("id", "source", "line", "turn")},
        "images": [path for path in answered["images"] if path is not None],
        **({"videos": answered["videos"]} if answered["videos"] else {}),
        **{key: answered[key] for key in ("prompt", "expected", "rejected") if key in answered},
        "before": stored.get("before"),
        "after": stored.get("after"),
        when: answered["answer"],
        **({"regions": regions} if any(regions.values()) else {}),
        **({"scores": scores} if any(scores.values()) else {}),
        **({"right": right} if any(one is not None for one in right.values()) else {}),
    }


def _joined(key: str, when: str, value: Any, stored: Row, absent: Any) -> dict[str, Any]:
    """Return what the row has under `key` of the answers before and after training."""
    known = stored.get(key, {})
    return {"before": known.get("before", absent), "after": known.get("after", absent), when: value}


def place_of(row: Row) -> tuple[str, int, int]:
    """Return what identifies the answer of a row."""
    return row["source"], row["line"], row.get("turn", 1)
