"""The rows of the runs on several processes."""

import json
from pathlib import Path

import pytest

from tests.conftest import conversation
from tests.streams import write_stream


@pytest.fixture(scope="session")
def files(pictures, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    answers = ["Red.", "A red circle " * 12, "No", "The ring is left of the square. " * 3] * 4
    mixed = [
        conversation(
            ("user", [pictures[index % 4], f"What is it? {index}"] if index % 4 > 1 else [f"Who? {index}"]),
            ("assistant", [answer]),
            id=str(index),
        )
        for index, answer in enumerate(answers)
    ]
    answers = ["Red.", "A red circle " * 6, "No", "It is the ring. " * 3] * 4
    asked = [
        {"prompt": f"<image>What? {index}", "images": [str(pictures[index % 4])]} if index % 4 > 1 else {"prompt": "?"}
        for index in range(16)
    ]
    pairs = [
        asked[index] | {"chosen": answer, "rejected": answers[-index - 1] + "?", "id": str(index)}
        for index, answer in enumerate(answers)
    ]
    for name, lines in {"mixed": mixed, "pairs": pairs}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    stream = write_stream(folder / "stream", pictures)
    with (stream / "a.jsonl").open("a") as file:
        file.write("{\n")
    return {"mixed": folder / "mixed.jsonl", "pairs": folder / "pairs.jsonl", "stream": stream}
