"""Add the common header to the result of one part: machine, versions, commit and exit code.

    python scripts/gpu/header.py RESULT.json --exit CODE --seconds SECONDS

If a part was stopped before it wrote a result, the file contains only the header. The commit is read from the
environment variable COMMIT, since the copy on a GPU machine often has no git history. Torch is not imported.
"""

import argparse
import json
import os
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from qwenvl_train.reporting.folder import environment, write_json_atomic


def header(part: str, exit_code: int, seconds: float) -> dict[str, Any]:
    gpu = _gpu()
    found = environment([gpu["name"]] if gpu else [], run={})
    return {
        "part": part,
        "exit": exit_code,
        "seconds": seconds,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": os.environ.get("COMMIT", "unknown"),
        "device": gpu["name"] if gpu else found["hardware"]["cpu"],
        "driver": gpu["driver_version"] if gpu else None,
        "device_memory": gpu["memory.total"] if gpu else None,
        "python": found["python"],
        **found["packages"],
        **{name: _version(name) for name in ("liger-kernel", "triton")},
        "hardware": found["hardware"],
    }


def _gpu() -> dict[str, str] | None:
    """Return the data that nvidia-smi reports for the first GPU."""
    asked = ("name", "driver_version", "memory.total")
    command = ["nvidia-smi", f"--query-gpu={','.join(asked)}", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    first = told.splitlines()[0]
    return dict(zip(asked, (word.strip() for word in first.split(",")), strict=True))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("--exit", type=int, required=True, help="the exit code of the part")
    parser.add_argument("--seconds", type=float, required=True, help="how long the part took")
    given = parser.parse_args()
    result = json.loads(given.result.read_text(encoding="utf-8")) if given.result.exists() else {}
    write_json_atomic(given.result, {"header": header(given.result.stem, given.exit, given.seconds)} | result)


if __name__ == "__main__":
    main()
