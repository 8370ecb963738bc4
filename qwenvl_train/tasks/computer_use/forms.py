"""The forms of computer_use: those of agents, and a click on an element that is described."""

from qwenvl_train.errors import UserError
from qwenvl_train.tasks.agents.steps import FORMS as OF_AGENTS
from qwenvl_train.tasks.converter import RowOptions

CLICK = "click"
FORMS = (*OF_AGENTS, CLICK)


def refuse_click(options: RowOptions, name: str) -> None:
    """Raise UserError if the form is that of ScreenSpot."""
    if options.form == CLICK:
        raise UserError(f"convert.form=click is for ScreenSpot; {name} has the forms {', '.join(OF_AGENTS)}.")


def refuse_others(options: RowOptions) -> None:
    """Raise UserError unless the form is that of ScreenSpot."""
    if options.form != CLICK:
        raise UserError(f"convert.form={options.form}: ScreenSpot has single clicks; set convert.form=click.")
