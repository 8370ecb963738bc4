"""Measure the CPU time of each verb until its first line of output, and that of `import torch`.

    python scripts/bench/first_line.py [--rounds 5] [--output first_line.json]

A verb is killed after its first line. The verbs run alternately, and the median of each is reported.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile

import results

VERBS = {
    "inspect": ["inspect"],
    "plan": ["plan", "+recipe=sft_lora"],
    "train": ["train", "+recipe=sft_lora"],
}


def cpu_seconds(words: list[str]) -> float:
    """Return the user and system time of a Python process until its first line on stdout."""
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    if not process.stdout.readline():
        sys.exit(f"no line of output: {' '.join(words)}")
    process.send_signal(signal.SIGKILL)
    usage = os.wait4(process.pid, 0)[2]
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    results.add_output(parser)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ways = {"import torch": ["-c", "import torch; print(torch.__version__, flush=True)"]} | {
            verb: ["-m", "qwenvl_train", *words, f"output_dir={folder}"] for verb, words in VERBS.items()
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(given.rounds):
            for name, words in ways.items():
                taken[name].append(cpu_seconds(words))
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    for name, seconds in medians.items():
        print(f"{name:14}{seconds:6.2f} s{seconds / medians['import torch']:7.2f} ×")
    packages = ("torch", "transformers", "accelerate", "hydra-core")
    found = {"cpu_seconds": medians, "rounds": given.rounds}
    results.write(results.surroundings(packages, ("cpu",), []) | found, given.output)


if __name__ == "__main__":
    main()
