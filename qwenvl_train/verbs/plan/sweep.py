"""The plans of a sweep, beside each other: `plan -m`."""

from qwenvl_train.config.sweep import Job
from qwenvl_train.errors import UserError, message_of
from qwenvl_train.reporting.stdout import print_json, readers_may_leave
from qwenvl_train.reporting.wording import many
from qwenvl_train.verbs.plan.settings import PlanConfig
from qwenvl_train.verbs.plan.subject import subject_of
from qwenvl_train.verbs.plan.text import PlanDict, print_plans


def run(jobs: list[Job[PlanConfig]]) -> None:
    """Print the plans of all jobs: as one list with output=json, and else one line for each."""
    plans: list[PlanDict] = []
    with readers_may_leave():
        for job in jobs:
            plans.append({"job": job.name} | _planned(job))
            if job.composed.config.output == "text":
                print_plans(plans[-1:])
        if jobs[0].composed.config.output == "json":
            print_json(plans)
    required = {job.name for job in jobs if job.composed.config.plan.fit == "require"}
    unfit = [plan["job"] for plan in plans if not plan.get("fits", True) and plan["job"] in required]
    broken = [plan["job"] for plan in plans if "problem" in plan]
    if unfit or broken:
        lines = [f"{many(len(unfit), 'run does', 'runs do')} not fit: {', '.join(unfit)}"] if unfit else []
        lines += [f"{many(len(broken), 'run')} cannot be planned: {', '.join(broken)}"] if broken else []
        raise UserError("\n".join(lines))


def _planned(job: Job[PlanConfig]) -> PlanDict:
    from qwenvl_train.verbs.plan.planning import plan

    try:
        return plan(job.composed, subject_of(job.composed.config))
    except UserError as error:
        return {"problem": message_of(error)}
