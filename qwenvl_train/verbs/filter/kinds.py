"""What all kinds of rules are shown with: those that judge a row by itself, near-duplicates, judgements by a model."""

from qwenvl_train.curation.duplicates import described_duplicates
from qwenvl_train.curation.judging.described import DESCRIBED
from qwenvl_train.curation.rules.rule import Described
from qwenvl_train.curation.rules.table import RULES
from qwenvl_train.verbs.filter.judged import UNUSABLE
from qwenvl_train.verbs.filter.settings import FilterSection


def described_rules(section: FilterSection) -> dict[str, Described]:
    """Return all rules by name."""
    unusable = Described(UNUSABLE, "no training can use the row", False)
    found = (unusable, *RULES.values(), described_duplicates(section.duplicates), *DESCRIBED)
    return {one.name: one for one in found}
