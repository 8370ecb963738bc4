"""Rows that a filter keeps or leaves out, and what it has told of them."""

import json
from pathlib import Path

AGAIN = "the bin and then the bin and then " * 12
GOOD = "A red circle lies on the white table beside the window of the room."


def said(answer: str, question: str = "What is it?", **more) -> dict:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **more}


def result(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def falls(folder: Path) -> dict[str, int]:
    return {rule["name"]: rule["falls"] for rule in result(folder)["rules"] if rule["falls"]}
