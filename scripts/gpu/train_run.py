"""Run qwenvl-train once, and write the results in its run folder to one file.

    python scripts/gpu/train_run.py [--output command.json] +recipe=sft_lora [key=value …]

The arguments after the options are passed to qwenvl-train.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import results

from qwenvl_train.cli import main as qwenvl_train
from qwenvl_train.reporting.folder import read_json_lines


def told(run: Path, words: list[str]) -> dict[str, Any]:
    rows = read_json_lines(run / "metrics.jsonl")
    return {
        "words": words,
        "summary": json.loads((run / "summary.json").read_text(encoding="utf-8")),
        "steps": [row for row in rows if "loss" in row],
        "evaluations": [row for row in rows if "eval_loss" in row],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    results.add_output(parser)
    parser.add_argument("words", nargs="+")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        where = [f"output_dir={folder}", "run_name=run", "logging.wandb.mode=disabled"]
        code = qwenvl_train([*given.words, *where])
        if code == 0:
            results.write(told(Path(folder) / "run", given.words), given.output)
    sys.exit(code)


if __name__ == "__main__":
    main()
