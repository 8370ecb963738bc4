"""The W&B workspace: it shows what runs log, and a server gets it whole."""

import json
import re
import sys

import pytest
import wandb

from qwenvl_train.cli import main
from qwenvl_train.config.compose import compose
from qwenvl_train.reporting.reporter import Forecast
from qwenvl_train.reporting.tracking import tracked
from qwenvl_train.reporting.wandb import ANSWERS, REPORT
from qwenvl_train.run import preparing
from qwenvl_train.verbs.dashboard.command import workspace
from qwenvl_train.verbs.dashboard.layout import LAYOUT, Answers, Pages, Plot, in_words
from qwenvl_train.verbs.dashboard.settings import DASHBOARD
from tests.commands import QUIET, read_lines, train
from tests.conftest import conversation
from tests.reporting.wandb_server import wandb_server

PLOTS = [panel for section in LAYOUT for panel in section.panels if isinstance(panel, Plot)]


@pytest.fixture
def names(pictures, checkpoints, tmp_path, monkeypatch) -> set[str]:
    """The names that a run of SFT and one of DPO log, each on two files."""
    monkeypatch.setattr(preparing, "peak_tflops", lambda precision: 1.0)
    monkeypatch.setattr(preparing, "forecast_of", lambda *_: Forecast(1.0, 2.0))
    rows = [conversation(("user", [picture, "What?"]), ("assistant", ["Red."])) for picture in pictures]
    found: set[str] = set()
    for recipe in ("sft_lora", "dpo_lora"):
        files = [tmp_path / f"{recipe}-{number}.jsonl" for number in range(2)]
        for file in files:
            lines = [row | ({"rejected_response": "Blue."} if recipe == "dpo_lora" else {}) for row in rows]
            file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        entries = f"[{files[0]},{files[1]}]"
        settings = (
            f"+recipe={recipe}", f"model.path={checkpoints['qwen2_5_vl']}", f"data.train={entries}",
            f"data.eval={entries}", "data.workers=0", "train.max_steps=2", "train.log_steps=1", "train.save_steps=1",
            "eval.generate=true", "eval.max_new_tokens=2", "eval.samples=2", QUIET,
        )  # fmt: skip
        if recipe == "dpo_lora":
            settings += ("dpo.loss=[sigmoid,sft]", "dpo.weights=[1,1]")
        folder = train(tmp_path, *settings, name=recipe)
        forecast = Forecast(**json.loads((folder / "environment.json").read_text(encoding="utf-8"))["forecast"])
        found |= {name for row in read_lines(folder / "metrics.jsonl") for name in tracked(row, forecast)}
    return found


def test_every_panel_shows_what_runs_log(names):
    for plot in PLOTS:
        if plot.pattern is None:
            assert set(plot.metrics) <= names, plot.title
            assert plot.metrics
        else:
            assert any(re.fullmatch(plot.pattern, name) for name in names), plot.title
    assert {panel.table for section in LAYOUT for panel in section.panels if isinstance(panel, Answers)} == {ANSWERS}
    assert {panel.key for section in LAYOUT for panel in section.panels if isinstance(panel, Pages)} == {REPORT}


def test_the_workspace_has_all_panels(monkeypatch):
    made = workspace(compose(["logging.wandb.entity=team", "logging.wandb.project=receipts"], DASHBOARD).config)
    spec = json.loads(made._to_model().spec.model_dump_json(by_alias=True))
    sections = spec["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == [section.name for section in LAYOUT]
    panels = [panel for section in sections for panel in section["panels"]]
    assert len(panels) == sum(len(section.panels) for section in LAYOUT)
    lines = [panel["config"] for panel in panels if panel["viewType"] == "Run History Line Plot"]
    assert [line["chartTitle"] for line in lines] == [plot.title for plot in PLOTS]
    assert {line["xAxis"] for line in lines} == {"step"}
    for line, plot in zip(lines, PLOTS, strict=True):
        assert (line["metrics"] or []) == list(plot.metrics)
        assert line["metricRegex"] == plot.pattern


@pytest.mark.usefixtures("no_wandb_user")
def test_a_server_gets_the_workspace(monkeypatch, capsys):
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
        wandb.teardown()
        assert main(["dashboard", "logging.wandb.project=receipts", "dashboard.name=ours"]) == 0
    (view,) = server.views
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("team", "receipts", "ours")
    names = [section["name"] for section in json.loads(view["spec"])["section"]["panelBankConfig"]["sections"]]
    assert names == [section.name for section in LAYOUT]
    told = capsys.readouterr().out
    assert told.startswith(f"dashboard   {server.url}/team/receipts?nw=")


@pytest.mark.usefixtures("no_wandb_user")
def test_without_a_login_the_layout_can_be_printed(capsys):
    assert main(["dashboard", "dashboard.dry_run=true"]) == 0
    assert capsys.readouterr().out.splitlines() == in_words()
    assert main(["dashboard"]) == 2
    assert "you are not logged in to" in capsys.readouterr().err


@pytest.mark.usefixtures("no_wandb_user")
def test_a_server_that_is_down_is_told(monkeypatch, capsys):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    wandb.teardown()
    assert main(["dashboard", "logging.wandb.entity=team"]) == 2
    assert "dashboard: 127.0.0.1:9 did not save the workspace of qwenvl-train:" in capsys.readouterr().err


def test_settings_without_effect_are_named(capsys):
    assert main(["dashboard", "train.lr=1e-4", "dashboard.url=https://x/y", "dashboard.name=z"]) == 2
    told = capsys.readouterr().err
    assert "train.lr has no effect on a dashboard" in told
    assert "dashboard.name has no effect with dashboard.url" in told


def test_without_the_package_the_message_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    assert main(["dashboard"]) == 2
    assert "pip install 'qwenvl-train[dashboard]'" in capsys.readouterr().err
