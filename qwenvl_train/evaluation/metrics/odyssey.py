"""Whether an agent's next step is right, as GUI-Odyssey evaluates it."""

from rapidfuzz.distance import Levenshtein

from qwenvl_train.evaluation.metrics.agent_action import Convention
from qwenvl_train.evaluation.metrics.metric import Metric

SIMILARITY = 0.5
"""The similarity, 1 - edit distance / longer length, from which two texts are the same."""


def are_similar(given: str, wanted: str) -> bool:
    """Return whether one of two texts contains the other, or they are similar. An empty text contains only itself."""
    given, wanted = given.strip(), wanted.strip()
    if given and wanted and (given in wanted or wanted in given):
        return True
    return Levenshtein.normalized_similarity(given, wanted) >= SIMILARITY


ODYSSEY = Metric(
    "agent_action_odyssey",
    "agent_action with a point in the element's box as it is or within 0.14 of the screen, and a text that contains "
    "the other or has 1 - edit distance / longer length of 0.5 or more, with case (GUI-Odyssey)",
    Convention(0.14, 1.0, are_similar).score,
    of_episodes=True,
)
