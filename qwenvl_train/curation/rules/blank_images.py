"""Pictures of a single colour."""

from pydantic import NonNegativeFloat

from qwenvl_train.curation.rules.rule import Measure, Rule, RuleSection
from qwenvl_train.curation.verdict import Verdict
from qwenvl_train.curation.view import RowView


class BlankImages(RuleSection):
    min_deviation: NonNegativeFloat
    """The least standard deviation of a colour in a picture of 32 × 32, on a scale from 0 to 255. Faint text on a white
    page has about 1."""


def judge(row: RowView, settings: BlankImages) -> Verdict | None:
    # A clip may begin or end with a black frame, but one that has nothing else is blank.
    clips = [[frame.deviation for frame in clip] for clip in row.clips]
    highest = [max(filter(None, clip), default=0.0) for clip in clips if clip and None not in clip]
    found = [picture.deviation for picture in row.pictures if picture.deviation is not None] + highest
    if not found:
        return None
    least = min(found)
    falls = least < settings.min_deviation
    return Verdict(falls, least, f"its colours differ by {least:.2f} of 255" if falls else "")


RULE = Rule(
    "blank_images", "images of a single colour", False, judge, measure=Measure("how much the colours differ", "of 255")
)
