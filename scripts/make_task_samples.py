"""Draw the sample sets of tasks: python scripts/make_task_samples.py [--output data] [--only recognition]

Each is drawn in a format that people have, and converted as they would convert theirs.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from samples.sources import SAMPLE_SETS, Fresh

SEED = 2027


def make(task: str, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for media in ("images", "clips"):
        (folder / media).mkdir(parents=True)
    fresh, samples = Fresh(SEED), SAMPLE_SETS[task]
    for split, count in samples.counts.items():
        source = samples.draw(folder, split, count, fresh)
        words = [f"+task={task}", f"source={source}", f"to={folder / f'{split}.jsonl'}", *samples.words]
        subprocess.run([sys.executable, "-m", "qwenvl_train", "convert", *words], check=True)
    for media in ("images", "clips"):
        if not any((folder / media).iterdir()):
            (folder / media).rmdir()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent.parent / "data")
    parser.add_argument("--only", choices=SAMPLE_SETS, help="make this one alone")
    options = parser.parse_args()
    for task in [options.only] if options.only else SAMPLE_SETS:
        make(task, options.output / task)


if __name__ == "__main__":
    main()
