"""What a rule is: a pure function of a row and of its settings."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from qwenvl_train.config.section import Section
from qwenvl_train.curation.verdict import Verdict
from qwenvl_train.curation.view import RowView


def _off(value: object) -> object:
    """YAML reads off as false."""
    return "off" if value is False else value


Use = Annotated[Literal["drop", "mark", "off"], BeforeValidator(_off)]


class RuleSection(Section):
    """The settings of a rule. Each rule adds its thresholds."""

    use: Use
    """drop leaves out the rows that fall to the rule. mark keeps them, and lists them in the verdicts and the report.
    With off, the rule is not applied."""


@dataclass(frozen=True)
class Measure:
    """The figure that a rule measures of a row."""

    what: str
    unit: str = ""
    """The unit, which is shown after the figure. `%` stands for a figure from 0 to 1 that is shown in percent."""


@dataclass(frozen=True)
class Described:
    """What the figures of a rule are shown with."""

    name: str
    summary: str
    """What the rule finds, in a few words that are shown beside its figures."""
    of_report: bool
    """Whether the data work of the Qwen2.5-VL report has such a rule. The others are this project's own."""
    measure: Measure | None = field(default=None, kw_only=True)
    """None for a rule that only says whether a row falls."""


@dataclass(frozen=True)
class Rule(Described):
    """A rule that judges a row by itself."""

    judge: Callable[[RowView, Any], Verdict | None]
    """Takes a row and the settings of the rule. Returns None for a row that the rule does not apply to."""
