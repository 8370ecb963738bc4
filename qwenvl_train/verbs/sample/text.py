"""Prints the results of drawn answers on the terminal."""

import shlex
from collections.abc import Iterator, Sequence

from qwenvl_train.reporting.console import console_on, say
from qwenvl_train.reporting.wording import count, duration, many, percent
from qwenvl_train.verbs.sample.results import Results


def print_results(results: Results, model: Sequence[str]) -> None:
    """Print all of the results, and the commands that go on from them.

    Args:
        model: The arguments of these commands that name the model.
    """
    console = console_on()
    for line in results.drawn.samples.samples.describe():
        say(console, line)
    for line in (*_answers(results), *_metrics(results), *_rates(results), "", *_files(results), ""):
        say(console, line, hanging=4)
    for words in _next(results):
        say(console, shlex.join(["qwenvl-train", *words, *model]), hanging=4)


def _answers(results: Results) -> Iterator[str]:
    drawn, problems = results.drawn, results.figures.problems
    before = len(drawn.answers) - drawn.generated
    tries = f"{count(drawn.config.sample.tries)} to each of {many(results.figures.questions, 'question')}"
    if drawn.generated:
        line = f"{many(drawn.generated, 'answer')} in {duration(drawn.seconds)}, {tries}"
        yield line + (f"; {many(before, 'further answer')} from before" if before else "")
    else:
        yield f"all {many(before, 'answer')} are from before, {tries}; nothing was drawn"
    if problems:
        yield f"{many(len(problems), 'row')} could not be used; the first: {problems[0].reason}"


def _metrics(results: Results) -> Iterator[str]:
    for entry, chosen in results.chosen.items():
        yield f"{entry}: judged by {chosen.metrics[0]} ({chosen.reason})"
    figures = results.figures
    if figures.thoughts_judged:
        yield f"the thoughts of {many(figures.thoughts_judged, 'right answer')} judged: do they use the image?"
    if figures.thoughts_not_judged:
        answers = many(figures.thoughts_not_judged, "answer")
        yield f"the thoughts of {answers} could not be judged; the first: {figures.not_judged_because}"
    for fault, number in figures.faults.most_common():
        yield f"{many(number, 'answer')} left out: {fault}"


def _rates(results: Results) -> Iterator[str]:
    """Yield the pass rates in words, in quarters."""
    tries, solved = results.drawn.config.sample.tries, results.figures.solved
    yield f"{percent(results.pass_rate)} of the answers are right and without faults. Of the questions,"
    shares = {number: number / tries for number in solved}
    groups = {
        "never right": lambda share: share == 0,
        "right in up to a quarter of the answers": lambda share: 0 < share <= 0.25,
        "in up to half": lambda share: 0.25 < share <= 0.5,
        "in up to three quarters": lambda share: 0.5 < share <= 0.75,
        "in more": lambda share: 0.75 < share < 1,
        "always right": lambda share: share == 1,
    }
    width = max(map(len, groups))
    for words, holds in groups.items():
        those = sum(solved[number] for number, share in shares.items() if holds(share))
        yield f"  {words:<{width}}  {count(those):>6}  {percent(those / results.figures.questions):>7}"


def _files(results: Results) -> Iterator[str]:
    folder, figures = results.drawn.folder.path, results.figures
    outside = f"; {many(figures.outside, 'question')} outside of sample.pass_rate" if figures.outside else ""
    yield f"rows      {folder / 'sft.jsonl'}  {count(figures.sft)}{outside}"
    yield f"pairs     {folder / 'pairs.jsonl'}  {count(figures.pairs)}"
    yield f"unsolved  {folder / 'unsolved.jsonl'}  {count(figures.unsolved)}"
    yield f"answers   {folder / 'answers.jsonl'}  {count(len(results.drawn.answers))}"


def _next(results: Results) -> Iterator[list[str]]:
    folder, figures = results.drawn.folder.path, results.figures
    if figures.sft:
        yield ["+recipe=sft_lora", f"data.train={folder / 'sft.jsonl'}"]
    if figures.pairs:
        yield ["+recipe=dpo_lora", f"data.train={folder / 'pairs.jsonl'}"]
