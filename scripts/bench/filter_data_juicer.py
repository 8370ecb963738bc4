"""The operators of data-juicer that do what rules of `filter` do. Run by scripts/bench/filter.py in an environment of
its own, since data-juicer needs older versions of packages that this project needs:
python filter_data_juicer.py rows.jsonl
"""

import json
import resource
import sys
import time

from data_juicer.core.data import NestedDataset
from data_juicer.ops.deduplicator.document_minhash_deduplicator import DocumentMinhashDeduplicator
from data_juicer.ops.filter.word_repetition_filter import WordRepetitionFilter
from data_juicer.ops.filter.words_num_filter import WordsNumFilter


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    operators = [
        WordRepetitionFilter(rep_len=10, max_ratio=0.3, num_proc=1),
        WordsNumFilter(min_num=1, max_num=10000, num_proc=1),
        DocumentMinhashDeduplicator(
            window_size=3, lowercase=True, jaccard_threshold=0.8, num_permutations=128, num_proc=1
        ),
    ]
    start, cpu = time.perf_counter(), cpu_seconds()
    with open(sys.argv[1], encoding="utf-8") as file:
        rows = [{"text": json.loads(line)["messages"][1]["content"]} for line in file]
    kept = NestedDataset.from_list(rows).process(operators)
    figures = {"seconds": time.perf_counter() - start, "cpu_seconds": cpu_seconds() - cpu, "kept": len(kept)}
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
