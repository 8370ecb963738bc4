"""Measure how fast `filter` judges rows of text, alone and beside data-juicer's operators that do the same:
python scripts/bench/filter.py [--data-juicer PYTHON] [--output tests/baselines/filter.json]

The rows are drawn: a question, and an answer of five sentences with about 60 words. `report` and `strict` apply all
rules of these presets. `same` applies three rules, repeated_ngrams, lengths and duplicates by text, and data-juicer its
word_repetition_filter, words_num_filter and document_minhash_deduplicator with the same thresholds. PYTHON is that of
an environment with py-data-juicer. Each way is one process, and all ways run alternately, so that other load on the
computer affects them alike; starting, and importing, are not counted.
"""

ROWS, ROUNDS = 10_000, 5
_TEXT = (
    "the a red blue circle square table window person street car holding looking small large left right near behind "
    "front of with and under sky building tree dog cat white black green bright morning light"
)
_OURS = """
import json, resource, sys, time
from pathlib import Path
from qwenvl_train.config.compose import compose
from qwenvl_train.verbs.filter.command import filter_rows
from qwenvl_train.verbs.filter.settings import FILTER
def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
config = compose(sys.argv[1:], FILTER).config
start, before = time.perf_counter(), cpu()
figures = filter_rows(config, told=False)
print(json.dumps({"seconds": time.perf_counter() - start, "cpu_seconds": cpu() - before, "kept": figures.kept}))
"""
