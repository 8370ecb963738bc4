import json
import os
import pty
import struct
import time
from dataclasses import replace
from pathlib import Path

import pytest
import wandb
from wandb.proto import wandb_internal_pb2

from qwenvl_train.config.schema import WandbConfig
from qwenvl_train.errors import UserError
from qwenvl_train.reporting.tracking import tracked
from qwenvl_train.reporting.wandb import WandbRun
from qwenvl_train.reporting.wandb_login import has_login

from .rows import SUMMARY, evaluation_row, training_row
from .wandb_server import KEY

pytestmark = pytest.mark.usefixtures("no_wandb_user")

NOWHERE = "http://127.0.0.1:9"
"""A port that refuses connections at once, as if the host were down."""


def config(mode: str = "auto", **changes) -> WandbConfig:
    return WandbConfig(
        **{"mode": mode, "project": "p", "entity": None, "group": None, "tags": (), "artifacts": "none", **changes}
    )


def logged(run, said, mode="auto", **changes) -> Path:
    """Log one whole run, and return the folder that wandb wrote."""
    reporter = WandbRun(config(mode, **changes), said.append)
    reporter.start(run)
    reporter.log(training_row(1))
    reporter.log(evaluation_row(1, 0.5))
    reporter.finish(SUMMARY)
    return Path(reporter._run.dir).parent


def records(folder: Path) -> list:
    """Return the records of an offline run as `wandb sync` reads them, from LevelDB's log format with blocks of 32
    KiB."""
    data = next(folder.glob("*.wandb")).read_bytes()
    found, parts, at = [], b"", 7
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            found.append(wandb_internal_pb2.Record.FromString(parts))
            parts = b""
    return found


def run_of(folder: Path):
    return next(record.run for record in records(folder) if record.HasField("run"))


def test_without_login_auto_writes_a_whole_run_into_the_run_folder(run, said):
    folder = logged(run, said, project="receipts", group="g", tags=("a", "b"))
    assert folder.name.startswith("offline-run-")
    assert len(said) == 1
    assert said[0].endswith(f"wandb sync {folder}")
    assert "not logged in to api." in said[0]

    found, begun = records(folder), run_of(folder)
    assert (begun.project, begun.display_name, begun.run_group) == ("receipts", "receipts", "g")
    assert list(begun.tags) == ["a", "b"]
    assert {"train", "components"} <= {update.key for update in begun.config.update}

    history = [
        {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
        for record in found
        if record.HasField("history")
    ]
    (training,) = [row for row in history if "train/loss" in row]
    assert training["step"] == "1"
    assert float(training["speed/tokens_per_second"]) == training_row(1)["tokens_per_second"]
    (evaluation,) = [row for row in history if "eval/exact_match" in row]
    assert (evaluation["eval/exact_match"], evaluation["step"]) == ("0.5", "1")
    defined = {r.metric.glob_name: r.metric.step_metric for r in found if r.HasField("metric") and r.metric.glob_name}
    assert set(defined.values()) == {"step"}
    sections = {name.partition("/")[0] for name in tracked(training_row(1)) | tracked(evaluation_row(1, 0.5))}
    assert {f"{section}/*" for section in sections} <= defined.keys()


def test_a_resumed_run_is_the_same_wandb_run_and_a_new_one_is_not(run, said):
    folders = [logged(begun, said) for begun in (run, replace(run, start_step=40), run)]
    ids = [run_of(folder).run_id for folder in folders]
    assert ids[0] == ids[1] != ids[2]
    assert (run.folder / "wandb_id.txt").read_text().strip() == ids[2]


def test_one_command_uploads_all_parts_of_a_run_that_are_not_uploaded(run, said):
    """In the order in which they were made, without the parts of a run that began again."""
    resumed = replace(run, start_step=40)
    _, first, second, third = [logged(one, said) for one in (run, run, resumed, resumed)]
    assert said[-1].endswith(f": wandb sync {first} {second} {third}")
    for folder in (first, second):
        next(folder.glob("*.wandb")).with_suffix(".wandb.synced").touch()
    fourth = logged(resumed, said)
    assert said[-1].endswith(f": wandb sync {third} {fourth}")


def test_nothing_but_our_line_is_printed(run, capfd):
    WandbRun(config()).start(run)
    wandb.finish()
    out, err = capfd.readouterr()
    assert out.startswith("W&B is offline: ")
    assert out.count("\n") == 1
    assert err == ""


def test_a_host_that_is_down_costs_seconds_and_falls_back(run, said, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", NOWHERE)
    monkeypatch.setattr("qwenvl_train.reporting.wandb.CONNECT_SECONDS", 1)
    begun = time.monotonic()
    folder = logged(run, said)
    assert time.monotonic() - begun < 20
    assert folder.name.startswith("offline-run-")
    assert len(said) == 1
    assert said[0].startswith("W&B is offline: 127.0.0.1:9 cannot be used (")
    assert any(record.HasField("history") for record in records(folder))


@pytest.mark.parametrize("error", [wandb.errors.CommError("no route"), TimeoutError("no route")])
def test_whatever_init_raises_on_the_network_falls_back(run, said, monkeypatch, error):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    init = wandb.init

    def unreachable(mode, **arguments):
        if mode == "online":
            raise error
        return init(mode=mode, **arguments)

    monkeypatch.setattr(wandb, "init", unreachable)
    assert logged(run, said).name.startswith("offline-run-")
    assert "cannot be used (no route)" in said[0]


def test_online_without_login_is_the_users_fault_and_no_prompt(run, said, monkeypatch):
    leader, terminal = pty.openpty()  # wandb prompts only on a terminal
    with os.fdopen(terminal, "r") as keyboard:
        monkeypatch.setattr("sys.stdin", keyboard)
        with pytest.raises(UserError, match=r"you are not logged in to .*wandb login"):
            WandbRun(config("online"), said.append).start(run)
    os.close(leader)


def test_offline_stays_offline_with_a_login(run, said, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert logged(run, said, "offline").name.startswith("offline-run-")
    assert "offline mode is set" in said[0]


def test_auto_follows_wandbs_own_switch(run, said, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    reporter = WandbRun(config(), said.append)
    assert not reporter.shows_answers
    reporter.start(run)
    reporter.log(training_row(1))
    reporter.finish(SUMMARY)
    assert said == []
    assert not (run.folder / "wandb").exists()


@pytest.mark.parametrize(
    ("machine", "host", "found"),
    [
        ("api.wandb.ai", None, True),
        ("example.org", None, False),
        ("wandb.example.org", "https://wandb.example.org", True),
        ("api.wandb.ai", "https://wandb.example.org", False),
    ],
)
def test_a_netrc_login_counts_for_its_own_host_only(tmp_path, monkeypatch, machine, host, found):
    (tmp_path / ".netrc").write_text(f"machine {machine}\n  login user\n  password {KEY}\n")
    if host:
        monkeypatch.setenv("WANDB_BASE_URL", host)
    assert has_login() is found


def test_a_run_that_failed_is_marked_so(run, said, monkeypatch):
    codes = []
    reporter = WandbRun(config(), said.append)
    reporter.start(run)
    finish = reporter._run.finish
    monkeypatch.setattr(reporter._run, "finish", lambda exit_code: codes.append(exit_code) or finish(exit_code))
    reporter.finish({**SUMMARY, "status": "failed"})
    assert codes == [1]


def test_an_upload_that_takes_too_long_is_said_and_left(run, said, monkeypatch):
    reporter = WandbRun(config(), said.append)
    reporter.start(run)

    def slow(exit_code):
        raise TimeoutError

    monkeypatch.setattr(reporter._run, "finish", slow)
    reporter.finish(SUMMARY)
    assert said[-1].startswith("W&B did not receive the whole run within 60 s. Upload the rest with: wandb sync ")


def test_a_resumed_online_run_continues_its_own_and_says_where_it_is(run, said, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    (run.folder / "wandb_id.txt").write_text("4f1c22aa\n")
    asked = {}

    class Opened:
        url = "https://wandb.example.org/p/runs/4f1c22aa"
        offline = False

        def define_metric(self, *_, **__): ...

        def log(self, _): ...

    def init(**arguments):
        asked.update(arguments)
        return Opened()

    monkeypatch.setattr(wandb, "init", init)
    WandbRun(config(entity="team"), said.append).start(replace(run, start_step=40))
    assert (asked["mode"], asked["id"], asked["resume"]) == ("online", "4f1c22aa", "allow")
    components = {row["component"]: row for row in run.components}
    assert (asked["entity"], asked["config"]) == ("team", run.config | {"components": components})
    assert asked["settings"].api_key == KEY
    assert said == ["W&B: https://wandb.example.org/p/runs/4f1c22aa"]


def test_a_run_folder_that_was_copied_can_be_uploaded(run, said, tmp_path, monkeypatch):
    """No file lies outside it, and no record names an absolute path in it. Tables would do both."""
    elsewhere = tmp_path / "elsewhere"
    monkeypatch.setenv("WANDB_DATA_DIR", str(elsewhere))
    (run.folder / "report.html").write_text("<p>all of it</p>", encoding="utf-8")
    folder = logged(run, said)
    assert not [path for path in elsewhere.rglob("*") if path.is_file()]
    assert not [record for record in records(folder) if record.HasField("artifact")]
    (page,) = (folder / "files" / "media" / "html").iterdir()
    assert page.read_text(encoding="utf-8") == "<p>all of it</p>"
    items = [item for record in records(folder) for item in record.history.item]
    values = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}
    assert folder / "files" / values["report/path"] == page
