"""The settings of the verb dashboard, and the rules that they keep to."""

from qwenvl_train.config.rules.rule import Lines
from qwenvl_train.config.schema import RunConfig
from qwenvl_train.config.section import Section
from qwenvl_train.config.verb import Verb


class DashboardSection(Section):
    name: str
    """The name of the workspace in W&B."""
    url: str | None
    """The address of a workspace, whose sections are replaced. With null, a new one is made."""
    dry_run: bool
    """Whether to print the layout instead of saving it."""


class DashboardConfig(RunConfig):
    dashboard: DashboardSection


def only_where_it_is_made(config: DashboardConfig, given: frozenset[str]) -> Lines:
    for key in sorted(given):
        if not key.startswith(("dashboard.", "logging.wandb.")):
            yield f"{key} has no effect on a dashboard, which shows all runs of logging.wandb.project"
    if config.dashboard.url is not None:
        for key in ("logging.wandb.project", "logging.wandb.entity", "dashboard.name"):
            if key in given:
                yield f"{key} has no effect with dashboard.url, which names a workspace"


DASHBOARD = Verb(
    "dashboard", DashboardConfig, (only_where_it_is_made,), "qwenvl_train.verbs.dashboard.command:run", reads=()
)
