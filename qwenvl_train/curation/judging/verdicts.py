"""What judgements mean for rows: pure functions of a judgement and of the settings."""

import math
from collections.abc import Iterator

from qwenvl_train.curation.judging.classes import Tree
from qwenvl_train.curation.judging.judge import Judgement
from qwenvl_train.curation.judging.settings import NeedlessImage, ScoresSection
from qwenvl_train.curation.verdict import Verdict


def of_class(judgement: Judgement, tree: Tree) -> Verdict | None:
    """Return the verdict on the class of a row, whose value is the probability of the class.

    A row falls if its class is dropped. Limits concern several rows, see `over_limit`.
    """
    found = judgement.assigned
    if found is None:
        return None
    falls = tree[found.domain][found.name].drop
    evidence = f"the class {found.domain}/{found.name} is dropped (probability {found.probability:.0%})"
    return Verdict(falls, found.probability, evidence if falls else "")


def of_scores(judgement: Judgement, settings: ScoresSection, tree: Tree) -> Verdict | None:
    """Return the verdict on the scores of a row. Its value is the score that is furthest below its least value, or else
    the mean of the scores."""
    if not judgement.scores:
        return None
    low = [(score - least, name, score, least) for name, score, least in _limits(judgement, settings, tree)]
    low = sorted(one for one in low if one[0] < 0)
    if not low:
        return Verdict(False, mean_score(judgement))
    told = ", ".join(f"{name} is {score:.2f}, below {least:g}" for _, name, score, least in low)
    return Verdict(True, low[0][2], told)


def _limits(judgement: Judgement, settings: ScoresSection, tree: Tree) -> Iterator[tuple[str, float, float]]:
    """Yield each score that has a least value, with that of the row's class if it has its own."""
    found = judgement.assigned
    own = tree[found.domain][found.name].min if found is not None else {}
    for name, score in judgement.scores.items():
        least = own[name] if name in own else settings.each[name].min
        if least is not None:
            yield name, score, least


def mean_score(judgement: Judgement) -> float | None:
    """Return the mean of the scores, by which the rows of a class are ranked. None without scores."""
    scores = judgement.scores.values()
    return sum(scores) / len(scores) if scores else None


def of_picture(judgement: Judgement, settings: NeedlessImage) -> Verdict | None:
    """Return the verdict on the use of a row's pictures. Its value is what they add to the mean log-probability."""
    use = judgement.image_use
    if use is None:
        return None
    alone, both = math.exp(use.without_picture), math.exp(use.with_picture)
    falls = use.gain <= settings.max_gain and alone >= settings.min_probability
    told = f"the answer's tokens have a probability of {alone:.0%} without the image and of {both:.0%} with it"
    return Verdict(falls, use.gain, told if falls else "")
