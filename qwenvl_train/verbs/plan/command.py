"""The verb plan, which reports before a run how much memory and time the run will take."""

from qwenvl_train.config.compose import Composed
from qwenvl_train.errors import UserError
from qwenvl_train.reporting.console import console_on, say
from qwenvl_train.reporting.stdout import print_json, readers_may_leave
from qwenvl_train.verbs.plan.settings import PlanConfig
from qwenvl_train.verbs.plan.subject import subject_of


def run(composed: Composed[PlanConfig]) -> None:
    subject, fits = subject_of(composed.config), True
    with readers_may_leave():
        if composed.config.output == "text":
            say(console_on(), subject.heading)
        from qwenvl_train.verbs.plan.planning import plan
        from qwenvl_train.verbs.plan.text import print_plan

        planned = plan(composed, subject)
        fits = planned["fits"]
        if composed.config.output == "text":
            print_plan(planned)
        else:
            print_json(planned)
    if composed.config.plan.fit == "require" and not fits:
        raise UserError("the run does not fit on the planned devices (with plan.fit=report, plan only reports it).")
