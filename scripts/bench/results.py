"""The data that a result contains besides its figures, and the file that it is written to."""

import argparse
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from qwenvl_train.reporting.folder import environment, write_json_atomic


def surroundings(packages: Iterable[str], hardware: Iterable[str], gpus: list[str]) -> dict[str, Any]:
    """Return the conditions of the measurement. Of the hardware, only data that affect the figures are included."""
    made_on = environment(gpus, run={})
    return {
        "hardware": {key: made_on["hardware"][key] for key in hardware},
        "versions": {"python": made_on["python"], **{name: version(name) for name in packages}},
        "checkout": made_on["checkout"],
    }


def add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, help="where to write the result as JSON")


def write(result: dict[str, Any], output: Path | None) -> None:
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(output, result)
