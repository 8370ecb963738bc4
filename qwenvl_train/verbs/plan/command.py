"""The verb plan, which reports before a run how much memory and time the run will take."""

from qwenvl_train.config.compose import Composed
from qwenvl_train.reporting.stdout import readers_may_leave
from qwenvl_train.verbs.plan.settings import PlanConfig
from qwenvl_train.verbs.plan.subject import subject_of


def run(composed: Composed[PlanConfig]) -> None:
    subject = subject_of(composed.config)
    with readers_may_leave():
        if composed.config.output == "text":
            print(subject.heading, flush=True)
        from qwenvl_train.verbs.plan.planning import plan

        plan(composed, subject)
