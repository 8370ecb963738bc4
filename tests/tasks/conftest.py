"""Small files in published formats."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from qwenvl_train.data.formats import to_sample
from qwenvl_train.data.media.locate import Locator
from qwenvl_train.data.render.regions import in_words
from qwenvl_train.tasks.converter import Prompts, Raw, Refused, RowOptions
from qwenvl_train.tasks.table import load_task


@pytest.fixture
def draw(tmp_path) -> Callable[..., Path]:
    """Write an image."""

    def write(name: str, size: tuple[int, int] = (200, 100)) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, "white").save(path)
        return path

    return write


@pytest.fixture
def write(tmp_path) -> Callable[[str, Any], Path]:
    """Write a text, or a value as JSON, or a list of values as JSON lines."""

    def write(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".jsonl"):
            content = "".join(json.dumps(one) + "\n" for one in content)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


def converted(
    task: str, source: Path, form: str | None = None, format: str = "auto", prompt: str = "?", **options: Any
) -> list[Raw | Refused]:
    """Return the rows of a source and what gives none."""
    found = load_task(task)
    return list(
        found.converter(format, source).rows(source, RowOptions(Prompts((prompt,)), form or found.forms[0], **options))
    )


def question_of(row: Any) -> str:
    return row["messages"][0]["content"]


def answer_of(row: Any) -> Any:
    return row["messages"][-1]["content"]


def written(row: Any, family: Any, original: tuple[int, int] = (100, 200), resized: tuple[int, int] = (56, 112)) -> str:
    """Return the answer of a row about one image, as a family has it. Sizes are height and width."""
    locator = Locator(Path(), fenced=False, allow_remote=False, cache=Path())
    sample = to_sample(row, "rows.jsonl", 1, locator, "auto")
    return "".join(in_words(part, family, [(original, resized)], "the row") for part in sample.turns[-1].parts)
