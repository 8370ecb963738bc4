"""The files of a run folder. Each file is written under a temporary name, synced and renamed, so that no reader ever
sees half of a file."""

import json
import math
import os
import platform
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

import qwenvl_train
from qwenvl_train.errors import UserError
from qwenvl_train.files import replacing
from qwenvl_train.reporting.repeat import command
from qwenvl_train.reporting.reporter import Row

PACKAGES = (
    "qwenvl-train",
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "deepspeed",
    "datasets",
)


def plain(value: Any) -> Any:
    """Convert a value to JSON's own types. NaN and infinity become null, since JSON cannot express them."""
    match value:
        case dict():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case float():
            return value if math.isfinite(value) else None
        case None | bool() | int() | str():
            return value
        case Path():
            return str(value)
        case _ if hasattr(value, "item"):  # scalars of numpy and torch
            return plain(value.item())
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def json_line(row: Row) -> str:
    return json.dumps(plain(row), ensure_ascii=False) + "\n"


def write_text_atomic(path: Path, text: str) -> None:
    with replacing(path, sync=True) as file:
        file.write(text.encode())


def write_json_atomic(path: Path, value: Any) -> None:
    write_text_atomic(path, json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")


def write_json_lines_atomic(path: Path, rows: Iterable[Row]) -> None:
    write_text_atomic(path, "".join(map(json_line, rows)))


def read_json_lines(path: Path) -> list[Row]:
    """Return the rows of a JSON Lines file. The list is empty if the file does not exist.

    Raises:
        UserError: If a line is not JSON.
    """
    rows: list[Row] = []
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            rows += [json.loads(line)] if line else []
        except ValueError as error:
            raise UserError(f"{path}, line {number}: this is not JSON ({error}); restore or delete the file.") from None
    return rows


class RunFolder:
    """The folder runs/<name>. This class writes everything in it except the checkpoints and the metrics."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def write_config(self, config: dict[str, Any]) -> None:
        text = yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)
        write_text_atomic(self.path / "config.yaml", text)

    def write_environment(self, gpus: list[str], run: Row, facts: Row, start_step: int = 0) -> None:
        """Write environment.json. `facts` are what the caller knows of the origin of the run. If the run is resumed,
        `start_step` is above 0, and this start is appended to those in the file."""
        path = self.path / "environment.json"
        earlier: Row = {}
        if start_step:
            with suppress(OSError, ValueError):
                earlier = json.loads(path.read_text(encoding="utf-8"))
        starts = [*earlier.get("starts", []), {"step": start_step, "time": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}]
        write_json_atomic(path, environment(gpus, run) | facts | {"starts": starts})

    def write_components(self, rows: list[Row]) -> None:
        write_json_atomic(self.path / "components.json", rows)

    def write_summary(self, summary: Row) -> None:
        write_json_atomic(self.path / "summary.json", summary)

    def write_predictions(self, rows: Iterable[Row]) -> None:
        """Write predictions.jsonl. A row has id, source, line, images (paths), prompt, expected, before and after."""
        write_json_lines_atomic(self.path / "predictions.jsonl", rows)

    def write_answers(self, step: int, rows: Iterable[Row], scores: list[Row]) -> None:
        """Write answers/step-N.jsonl, the answers that were generated and scored at an evaluation, and their scores to
        answers/step-N.json."""
        (self.path / "answers").mkdir(exist_ok=True)
        write_json_lines_atomic(self.path / "answers" / f"step-{step}.jsonl", rows)
        write_json_atomic(self.path / "answers" / f"step-{step}.json", scores)


def environment(gpus: list[str], run: Row) -> Row:
    """Return the facts that are needed to repeat the run. The caller passes the names of the GPUs, since only torch
    knows them, and the facts of the run."""
    return {
        "command": command(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": package_versions(),
        "checkout": checkout(Path(qwenvl_train.__file__).parent),
        "working_directory": str(Path.cwd()),
        "run": run,
        "hardware": {
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "memory_gib": _memory_gib(),
            "gpus": gpus,
        },
    }


def package_versions() -> Row:
    return {name: _version(name) for name in PACKAGES}


def checkout(package: Path) -> Row | None:
    """Return the commit that the package runs from. Return None if the package is installed, even if it is installed
    inside another checkout."""
    root = package.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no") != ""
    except (OSError, subprocess.SubprocessError):  # git is not installed, or it refuses to read the checkout
        return None
    return {"commit": commit, "uncommitted_changes": changed}


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):  # this system does not report the figure
        return None
