"""Pictures that are missing, cut off or damaged."""

from qwenvl_train.curation.rules.rule import Rule, RuleSection
from qwenvl_train.curation.verdict import Verdict
from qwenvl_train.curation.view import RowView


def judge(row: RowView, settings: RuleSection) -> Verdict | None:
    pictures = [*row.pictures, *(frame for clip in row.clips for frame in clip)]
    if not pictures:
        return None
    problems = (picture.problem for picture in pictures)
    return next((Verdict(True, evidence=problem) for problem in problems if problem), Verdict(False))


RULE = Rule("unreadable_images", "images that cannot be decoded", False, judge)
