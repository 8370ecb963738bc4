"""The verb dashboard. It makes a W&B workspace with panels for the metrics and answers of all runs of a project."""

from typing import Any

from qwenvl_train.config.compose import Composed
from qwenvl_train.errors import UserError
from qwenvl_train.reporting.wandb import first_line
from qwenvl_train.reporting.wandb_login import has_login, host, hush
from qwenvl_train.verbs.dashboard.layout import LAYOUT, Answers, Pages, Plot, in_words
from qwenvl_train.verbs.dashboard.settings import DashboardConfig

_COLUMNS, _WIDTH, _HEIGHT = 24, 8, 6
"""W&B's grid has 24 columns. A plot has a third of them."""


def run(composed: Composed[DashboardConfig]) -> None:
    config = composed.config
    if config.dashboard.dry_run:
        print("\n".join(in_words()))
        return
    try:
        import wandb_workspaces  # noqa: F401
    except ImportError:
        raise UserError(
            "dashboard needs the package wandb-workspaces: pip install 'qwenvl-train[dashboard]', or set "
            "dashboard.dry_run=true to see the layout."
        ) from None
    if not has_login():
        raise UserError(f"dashboard: you are not logged in to {host()}. Run `wandb login`.")
    hush()
    try:
        made = workspace(config)
        made.save()
    except UserError:
        raise
    except Exception as error:  # of several kinds, by wandb and by what it uses for requests
        where = config.dashboard.url or config.logging.wandb.project
        raise UserError(f"dashboard: {host()} did not save the workspace of {where}: {first_line(error)}") from error
    print(f"dashboard   {made.url}")


def workspace(config: DashboardConfig) -> Any:
    """Return the workspace, as an object of wandb-workspaces."""
    import wandb_workspaces.workspaces as workspaces

    sections = [
        workspaces.Section(name=section.name, is_open=section.is_open, panels=[_panel(one) for one in section.panels])
        for section in LAYOUT
    ]
    if config.dashboard.url is not None:
        found = workspaces.Workspace.from_url(config.dashboard.url)
        found.sections = sections
        return found
    entity = config.logging.wandb.entity or _default_entity()
    return workspaces.Workspace(
        entity=entity, project=config.logging.wandb.project, name=config.dashboard.name, sections=sections
    )


def _default_entity() -> str:
    import wandb

    entity = wandb.Api().default_entity
    if entity is None:
        raise UserError("dashboard: your W&B login has no default team or user; set logging.wandb.entity.")
    return entity


def _panel(panel: Plot | Answers | Pages) -> Any:
    import wandb_workspaces.reports.v2 as reports

    match panel:
        case Plot():
            return reports.LinePlot(
                title=panel.title,
                x="step",
                y=list(panel.metrics),
                metric_regex=panel.pattern,
                log_y=panel.logarithmic or None,
                layout=reports.Layout(w=_WIDTH, h=_HEIGHT),
            )
        case Answers():
            return reports.WeavePanelSummaryTable(
                table_name=panel.table, layout=reports.Layout(w=_COLUMNS, h=2 * _HEIGHT)
            )
        case Pages():
            layout = reports.Layout(w=_COLUMNS, h=2 * _HEIGHT)
            return reports.MediaBrowser(title=panel.title, media_keys=[panel.key], layout=layout)
