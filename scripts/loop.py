"""Data work on the embedded default, from faulty rows to preferences: python scripts/loop.py [FOLDER] [--seed N]

Draws labelled rows with planted faults, a pool of rows with known answers and held-out rows. Then fine-tunes on all
labelled rows; in the same way on those that a filter keeps; further on right answers that the model draws to the pool;
and on pairs of its right and wrong answers. A control trains on the right answers of these pairs alone. Each command is
printed before it runs. Exits with 1 if a step does not raise the held-out score by more than its interval.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Any

from loop_rows import Sizes, draw_rows

UNFILTERED, FILTERED, SAMPLED, PREFERRED = "unfiltered", "filtered", "sampled", "preferred"
STEPS = (UNFILTERED, FILTERED, SAMPLED, PREFERRED)
WHAT = {
    UNFILTERED: "SFT on all labelled rows",
    FILTERED: "the same SFT on the rows that a filter keeps",
    SAMPLED: "then SFT on right answers that it drew",
    PREFERRED: "then DPO on pairs of right and wrong ones",
}
CONTROL = "control"
"""SFT on the chosen answers of the pairs in place of DPO, from the same checkpoint. It tells what DPO adds, and
there is no claim about it."""


@dataclass(frozen=True)
class Settings:
    """The numbers of steps, the learning rates and the numbers of rows."""

    labelled_steps: int = 75
    labelled_lr: float = 5e-4
    sampled_steps: int = 45
    sampled_lr: float = 2e-4
    preferred_steps: int = 70
    preferred_lr: float = 1e-4
    sizes: Sizes = field(default_factory=Sizes)


@dataclass(frozen=True)
class Score:
    """The score of a step, and how it differs from that of another on the same rows: for steps, of the one before."""

    step: str
    score: float
    low: float
    high: float
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p: float | None = None


def failed_claims(scores: Sequence[Score]) -> list[str]:
    """Return what does not hold of the claim that each step raises the score by more than its interval. The first
    difference is that of filtering against not filtering."""
    found = []
    if [score.step for score in scores] != list(STEPS):
        found.append(f"there are scores of {', '.join(score.step for score in scores)} only")
    for before, score in pairwise(scores):
        low = score.difference_low
        if score.difference is None or low is None:
            found.append(f"{score.step} is not compared with {before.step}")
        elif not low > 0:
            found.append(f"{score.step} is not better than {before.step}: {score.difference:+.1%}, at least {low:+.1%}")
    return found


class Commands:
    """Runs commands of qwenvl-train, printed as a user would type them."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        # A second thread gains nothing with so small a model, and with one the numbers are the same again.
        self._environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def run(self, *words: str, shown: bool = True) -> str:
        """Return the output of a command. `shown` prints it, too, without what is said about each step."""
        command = shlex.join(("qwenvl-train", *words))
        self.ran.append(command)
        print(f"\n$ {command}", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "qwenvl_train", *words],
            env=self._environment, capture_output=True, text=True, encoding="utf-8",
        )  # fmt: skip
        if done.returncode:
            print(done.stdout + done.stderr)
            raise SystemExit(f"the command above ended with exit code {done.returncode}")
        if shown:
            lines = [line for line in done.stdout.splitlines() if not line.startswith("step ")]
            print("\n".join(f"    {line}" for line in lines), flush=True)
        return done.stdout


class Loop:
    def __init__(self, folder: Path, settings: Settings, seed: int) -> None:
        self._folder, self._settings, self._seed, self._commands = folder, settings, seed, Commands()

    def run(self) -> dict[str, Any]:
        """Run all steps. Return the results."""
        folder, settings = self._folder, self._settings
        folder.mkdir(parents=True)
        faults = draw_rows(folder, settings.sizes, self._seed)
        rows = {name: sum(1 for _ in (folder / f"{name}.jsonl").open()) for name in ("labelled", "pool", "held_out")}
        planted = sum(kind is not None for kind in faults.values())
        print(", ".join(f"{count} {name.replace('_', '-')} rows" for name, count in rows.items()), f"in {folder};")
        print(f"{planted} of the labelled ones have a planted fault")

        # Images that cannot be read are left out of training in any case.
        labelled = (f"train.lr={settings.labelled_lr:g}", f"train.max_steps={settings.labelled_steps}")
        self._train(UNFILTERED, "sft_lora", "labelled.jsonl", *labelled, "data.on_error=skip")

        to = folder / "filter"
        english = "filter.language.languages=[en]"
        rows_in = f"data.train={folder / 'labelled.jsonl'}"
        self._commands.run("filter", "+filter=strict", english, rows_in, f"filter.to={to}", "data.workers=0")
        found = filter_figures(faults, [json.loads(line)["id"] for line in (to / "kept.jsonl").open()])
        print_filter(found)
        self._train(FILTERED, "sft_lora", "filter/kept.jsonl", *labelled)
        scores = self._scores(UNFILTERED, FILTERED)

        self._sample(FILTERED, "drawn")
        continued = (f"train.lr={settings.sampled_lr:g}", f"train.max_steps={settings.sampled_steps}")
        self._train(SAMPLED, "sft_lora", "drawn/sft.jsonl", *continued, self._checkpoint(FILTERED))
        scores += self._scores(FILTERED, SAMPLED)[1:]

        # The pairs are drawn again, so that they have the faults that the model still has.
        self._sample(SAMPLED, "drawn_again")
        preferred = (f"train.lr={settings.preferred_lr:g}", f"train.max_steps={settings.preferred_steps}")
        preferred += (self._checkpoint(SAMPLED),)
        self._train(PREFERRED, "dpo_lora", "drawn_again/pairs.jsonl", *preferred, "dpo.loss=[sigmoid,sft]")
        write_chosen(folder / "drawn_again")
        # dpo_lora freezes the merger, too.
        self._train(CONTROL, "sft_lora", "drawn_again/chosen.jsonl", *preferred, "tune_mm_mlp=false")
        _, last, control = self._scores(SAMPLED, PREFERRED, CONTROL)
        _, beside = self._scores(CONTROL, PREFERRED)
        scores.append(last)
        return {
            "seed": self._seed,
            "settings": asdict(settings),
            "rows": rows,
            "filter": found,
            "scores": [asdict(score) for score in scores],
            "control": asdict(control),
            "preferred_beside_control": asdict(beside),
            "failed": failed_claims(scores),
            "commands": self._commands.ran,
        }

    def _train(self, name: str, recipe: str, rows: str, *settings: str) -> None:
        """Train a run. The settings of data=shapes are for rows as small as these."""
        self._commands.run(
            f"+recipe={recipe}", "data=shapes", f"data.train={self._folder / rows}", "data.eval=null",
            "train.epochs=null", *settings, "train.checkpointing=none", f"output_dir={self._folder}",
            f"run_name={name}", f"seed={self._seed}", "logging=local",
        )  # fmt: skip

    def _checkpoint(self, name: str) -> str:
        (checkpoint,) = (self._folder / name / "checkpoints").iterdir()
        return f"model.path={checkpoint}"

    def _sample(self, name: str, to: str) -> None:
        self._commands.run(
            "sample", f"run={self._folder / name}", f"data.train={self._folder / 'pool.jsonl'}",
            f"sample.to={self._folder / to}", "sample.max_new_tokens=16", "eval.metrics=exact_match",
            f"seed={self._seed}",
        )  # fmt: skip

    def _scores(self, name: str, *others: str) -> list[Score]:
        """Return the score of a run, and those of others with their differences from it. Answers are generated once."""
        words = (
            "eval", f"run={self._folder / name}", f"data.eval={self._folder / 'held_out.jsonl'}",
            "eval.metrics=exact_match", "eval.max_new_tokens=16",
            f"eval.compare=[{','.join(str(self._folder / other) for other in others)}]", "output=json",
        )  # fmt: skip
        scores = scores_of((name, *others), json.loads(self._commands.run(*words, shown=False)))
        print("\n".join(f"    {score.step}: {in_words(score)}" for score in scores), flush=True)
        return scores


def write_chosen(folder: Path) -> None:
    """Write the chosen answers of pairs.jsonl as rows for SFT, chosen.jsonl."""
    pairs = map(json.loads, (folder / "pairs.jsonl").open(encoding="utf-8"))
    rows = [{key: value for key, value in pair.items() if key != "rejected_response"} for pair in pairs]
    (folder / "chosen.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def scores_of(steps: Sequence[str], printed: Mapping[str, Any]) -> list[Score]:
    """Return the scores of steps from the JSON line of eval, which compares the first one with the others."""
    first, *others = steps
    (one,) = printed["scores"]
    found = [Score(first, one["value"], one["low"], one["high"])]
    for step, other in zip(others, printed["compare"], strict=True):
        (one,), (change,) = other["scores"], other["differences"]
        change = (change["difference"], change["low"], change["high"], change["probability"])
        found.append(Score(step, one["value"], one["low"], one["high"], *change))
    return found


def in_words(score: Score) -> str:
    words = f"{score.score:.1%}, {score.low:.1%} to {score.high:.1%}"
    if score.difference is None:
        return words
    between = f"{score.difference_low:+.1%} to {score.difference_high:+.1%}"
    return f"{words}; difference {score.difference:+.1%}, {between}, p {score.p:.3f}"


def filter_figures(faults: Mapping[str, str | None], kept: Sequence[str]) -> dict[str, Any]:
    """Return how many rows of each kind of fault the filter has left out, and its precision and recall."""
    kinds: dict[str, list[int]] = {}
    for name, kind in faults.items():
        dropped, rows = kinds.setdefault(kind or "none", [0, 0])
        kinds[kind or "none"] = [dropped + (name not in set(kept)), rows + 1]
    faulty = [counts for kind, counts in kinds.items() if kind != "none"]
    found, planted = (sum(counts[place] for counts in faulty) for place in (0, 1))
    dropped = found + kinds.get("none", [0, 0])[0]
    return {
        "rows": len(faults), "kept": len(kept), "planted": planted, "dropped": dropped,
        "precision": found / dropped if dropped else None, "recall": found / planted if planted else None,
        "dropped_of_kind": dict(sorted(kinds.items())),
    }  # fmt: skip


def print_filter(found: Mapping[str, Any]) -> None:
    print("\n    planted fault      dropped  rows")
    for kind, (dropped, rows) in found["dropped_of_kind"].items():
        print(f"    {kind:18} {dropped:7} {rows:5}")
    print(f"    precision {found['precision']:.1%}, recall {found['recall']:.1%} of the planted faults", flush=True)


def print_table(scores: Sequence[Score], control: Score, beside: Score) -> None:
    """Print a table of the steps, and the control beside the last one.

    Args:
        beside: The score of the last step, with its difference from that of the control.
    """
    what = WHAT | {CONTROL: "SFT on the right ones of these pairs instead"}
    width = max(map(len, what.values()))
    print(f"\n{'step':10}  {'':{width}}   score     95 % interval  difference        95 % interval      p")
    for score in (*scores, control):
        row = f"{score.step:10}  {what[score.step]:{width}}  {score.score:6.1%}  {score.low:6.1%} to {score.high:6.1%}"
        if score.difference is not None:
            between = f"{score.difference_low:+.1%} to {score.difference_high:+.1%}"
            row += f"  {score.difference:+10.1%}  {between:>19}  {score.p:.3f}"
        print(row)
    filtered = next(score for score in scores if score.step == FILTERED)
    print(f"filtered against unfiltered, with the same number of steps: {filtered.difference:+.1%}")
    print(f"the control is compared with {SAMPLED}, too; {PREFERRED} against it: {in_words(beside)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    runs = Path("runs") / f"loop-{datetime.now():%Y%m%d-%H%M%S}"
    parser.add_argument("folder", nargs="?", type=Path, default=runs, help="a new folder (runs/loop-<date>)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.folder.exists():
        parser.error(f"{arguments.folder} exists already; name a new folder")
    start = monotonic()
    result = Loop(arguments.folder, Settings(), arguments.seed).run()
    result["seconds"] = round(monotonic() - start, 1)
    (arguments.folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    print_table(
        [Score(**score) for score in result["scores"]],
        Score(**result["control"]),
        Score(**result["preferred_beside_control"]),
    )
    print(f"\n{result['seconds']:.0f} s; result {arguments.folder / 'result.json'}")
    if result["failed"]:
        print("\n".join(f"FAILED: {claim}" for claim in result["failed"]))
        sys.exit(1)
    print("each step is better than the one before, by more than its interval")


if __name__ == "__main__":
    main()
