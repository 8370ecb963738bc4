"""Scores of whole episodes, of which each sample is a step."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from qwenvl_train.evaluation.metrics.metric import Metric, Part, Scores
from qwenvl_train.evaluation.scoring import ScoredRow

EPISODE = "episode"
"""The sub-score of an episode."""


def with_episodes(scored: Sequence[ScoredRow], metrics: Mapping[str, Metric]) -> list[ScoredRow]:
    """Return the answers, of which the last one of each episode also has the score of the episode: 1 if the main score
    of each of its steps is 1. A figure of this score and its interval are thus over episodes. Episodes of which not all
    steps have an answer have none."""
    found = list(scored)
    for places in _episodes(found):
        for name, metric in metrics.items():
            if metric.of_episodes and all(name in found[place].scores for place in places):
                steps = [next(iter(found[place].scores[name].values())).value for place in places]
                found[places[-1]] = _with_score(found[places[-1]], name, Part(float(min(steps) == 1)))
    return found


def _episodes(scored: Sequence[ScoredRow]) -> list[list[int]]:
    """Return the places of the answers of each episode that has one for each of its steps, in the order of steps."""
    places: defaultdict[tuple[str, str, int], list[int]] = defaultdict(list)
    for place, one in enumerate(scored):
        if episode := one.row.get("episode"):
            places[one.row["entry"], episode["id"], episode["steps"]].append(place)
    return [
        sorted(mine, key=lambda place: (scored[place].row["index"], scored[place].row.get("turn", 1)))
        for (_, _, steps), mine in places.items()
        if len({scored[place].row["index"] for place in mine}) == steps
    ]


def _with_score(one: ScoredRow, metric: str, part: Part) -> ScoredRow:
    scores: Scores = {**one.scores[metric], EPISODE: part}
    return replace(one, scores={**one.scores, metric: scores})
