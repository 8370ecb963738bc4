"""Reporting to Weights & Biases, without a prompt and without a long wait. The run is online if there is a login, and
offline otherwise."""

import json
import os
import secrets
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

from qwenvl_train.config.flat import flat
from qwenvl_train.config.schema import WandbConfig
from qwenvl_train.errors import UserError
from qwenvl_train.reporting.checkpoints import evaluation_in
from qwenvl_train.reporting.folder import write_json_atomic, write_text_atomic
from qwenvl_train.reporting.recorded import read_json
from qwenvl_train.reporting.reporter import Reporter, Row, RunInfo
from qwenvl_train.reporting.tracking import ALL_SECTIONS, LENGTHS, tracked, tracked_answers
from qwenvl_train.reporting.wandb_content import artifact_of, table_of_answers
from qwenvl_train.reporting.wandb_login import api_key, has_login, host, hush
from qwenvl_train.step_folders import step_of

ID_FILE = "wandb_id.txt"
STORED_SUMMARY = Path("wandb", "summary.json")
"""What W&B's table of runs shows of the run. `wandb sync` replaces it by that of the folder that it reads last, so a
part of the run that is written later has it, too."""
CONNECT_SECONDS = 15
UPLOAD_SECONDS, UPLOAD_SECONDS_OF_ARTIFACTS = 60, 1200
SUMMARIES = {
    "train/loss": "min,last",
    "eval/loss": "min,last",
    "eval/exact_match": "max,last",
    "eval/token_accuracy": "max,last",
    "eval/rewards/accuracies": "max,last",
    "scores/*": "min,max,last",
}
"""What W&B's table of runs shows of a metric. Of some scores, lower values are better."""

ANSWERS, REPORT = "answers/samples", "report"
"""The names of the table of answers and of the report."""
EVALUATIONS = "evaluations"
"""The section of the scores that are added after the run."""

_DATA_FOLDER = "WANDB_DATA_DIR"
"""The variable for the folder in which wandb keeps the files of tables."""


@dataclass(frozen=True)
class _Task:
    what: str
    send: Callable[[], None]


class WandbRun(Reporter):
    """A reporter that sends the run to Weights & Biases. It is built only if logging.wandb.mode is not disabled, since
    importing wandb takes a second."""

    def __init__(self, config: WandbConfig, say: Callable[[str], None] = print) -> None:
        self._config = config
        self._say = say
        self._tasks: Queue[_Task | None] = Queue()
        """Tables and artifacts that are to be sent. None comes after the last one."""
        self._is_finishing = self._has_failed = False
        # Raises an error before any other work if the mode is online and there is no login.
        self.shows_answers = self._mode() != "disabled"

    def start(self, run: RunInfo) -> None:
        self._folder, self._info = run.folder, run
        self._own_data_folder = _DATA_FOLDER not in os.environ
        if self._own_data_folder:
            os.environ[_DATA_FOLDER] = str(run.folder.absolute() / "wandb" / "data")
        with self._going_on():
            self._start(run)
        # For tables and artifacts, unlike for figures, wandb waits for the server.
        self._sending = Thread(target=self._send_tasks, daemon=True)
        self._sending.start()

    def _start(self, run: RunInfo) -> None:
        import wandb

        hush()
        self._run = self._open(run)
        self._run.define_metric("step", hidden=True)
        for name, summary in SUMMARIES.items():
            self._run.define_metric(name, step_metric="step", summary=summary)
        # Without "*", since wandb takes any of several patterns that fit.
        for name in (f"{section}/*" for section in (*ALL_SECTIONS, EVALUATIONS)):
            if name not in SUMMARIES:
                self._run.define_metric(name, step_metric="step")
        self._run.define_metric(REPORT, step_metric="step")
        if run.lengths is not None:
            histogram = wandb.Histogram(np_histogram=(run.lengths.counts, run.lengths.edges))
            self._run.log({"step": run.start_step, LENGTHS: histogram})

    def _upload_seconds(self) -> int:
        """Return for how many seconds the end of the run waits for uploads. The run must not seem to be stalled."""
        if self._config.artifacts == "none":
            return UPLOAD_SECONDS
        stall = self._info.config["train"].get("stall_seconds") or UPLOAD_SECONDS_OF_ARTIFACTS
        return int(min(UPLOAD_SECONDS_OF_ARTIFACTS, stall / 2))

    def _open(self, run: RunInfo) -> Any:
        import wandb

        run_id = run_id_of(run)
        match self._mode():
            case "disabled":
                return self._init(run, run_id, "disabled")
            case "online":
                try:
                    opened = self._init(run, run_id, "online")
                except (wandb.Error, OSError) as error:  # OSError includes TimeoutError and all network errors
                    reason = f"{host()} cannot be used ({first_line(error)})"
                    wandb.teardown()  # without this, the failed attempt keeps the run id in use
                    hush()
                else:
                    self._say(f"W&B: {opened.url}")
                    return opened
            case _:
                reason = "offline mode is set" if self._asked() == "offline" else f"not logged in to {host()}"
        opened = self._init(run, run_id, "offline")
        self._say(f"W&B is offline: {reason}. Upload the run later with: {sync_command(opened)}")
        return opened

    def _mode(self) -> str:
        match self._asked():
            case "auto":
                return "online" if has_login() else "offline"
            case "online" if not has_login():
                raise UserError(
                    f"logging.wandb.mode is online, but you are not logged in to {host()}. "
                    "Run `wandb login`, or set logging.wandb.mode=offline."
                )
            case asked:
                return asked

    def _asked(self) -> str:
        """Return the mode in the configuration. If it is auto, return the mode in WANDB_MODE where the user has set
        that variable."""
        return os.environ.get("WANDB_MODE", "auto") if self._config.mode == "auto" else self._config.mode

    def _init(self, run: RunInfo, run_id: str, mode: str) -> Any:
        import wandb

        settings = wandb.Settings(
            silent=True,
            # What the run sends is tried as often as by wandb's own defaults, unlike the questions of `hush`.
            x_graphql_retry_max=20,
            x_graphql_retry_wait_max_seconds=60.0,
            api_key=api_key() if mode == "online" else None,  # if wandb gets a key, it never prompts
            init_timeout=CONNECT_SECONDS,
            finish_timeout=self._upload_seconds() / 2,
            finish_timeout_raises=True,
        )
        return wandb.init(
            mode=mode,
            id=run_id,
            # Also offline: `wandb sync` then adds to the run, instead of writing over its first rows.
            resume="allow" if run.resumed else None,
            name=run.name,
            # The agent of a sweep says in the environment where its runs belong.
            project=None if _in_sweep() else self._config.project,
            entity=None if _in_sweep() else self._config.entity,
            group=self._config.group,
            tags=list(self._config.tags),
            dir=str(run.folder),
            config=run.config | _facts(run),
            settings=settings,
        )

    @property
    def opened(self) -> Any:
        """The run, as wandb has it."""
        return self._run

    def log(self, row: Row) -> None:
        """Send a row with its step as a metric, since wandb's own counter refuses steps that a resumed run repeats."""
        with self._going_on():
            self._run.log({"step": row["step"], **tracked(row, self._info.forecast)})

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """Keep an error of W&B from ending the run, and tell the first one. wandb itself handles a server that cannot
        be reached, but its own process may be killed."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            if not self._has_failed:
                self._say(f"W&B has failed, and the run goes on without it: {first_line(error)}")
            self._has_failed = True

    def answered(self, step: int, rows: list[Row]) -> None:
        self.send_answers(ANSWERS, step, rows)

    def send_answers(self, name: str, step: int, rows: list[Row]) -> None:
        """Send a table of answers, whose rows are those of a predictions.jsonl."""

        def send() -> None:
            self._run.log({"step": step, name: table_of_answers(tracked_answers(rows))})

        self._tasks.put(_Task(f"the answers of step {step}", send))

    def saved(self, checkpoint: Path) -> None:
        if self._config.artifacts == "all":
            self._send_checkpoint(checkpoint, [])

    def _send_checkpoint(self, checkpoint: Path, aliases: list[str]) -> None:
        facts = {"step": step_of(checkpoint), "metrics": evaluation_in(checkpoint)}
        self.send_model(self._info.name, checkpoint, facts, [checkpoint.name, *aliases])

    def send_model(self, name: str, folder: Path, facts: Row, aliases: list[str]) -> None:
        """Send a folder with a model as an artifact."""

        def send() -> None:
            self._run.log_artifact(artifact_of(name, folder, facts | _origin(self._info)), aliases=aliases)

        self._tasks.put(_Task(f"the model in {folder.name}", send))

    def _send_tasks(self) -> None:
        while task := self._tasks.get():
            try:
                task.send()
            except Exception as error:  # such as that of a server that cannot be reached
                if not self._is_finishing and not self._has_failed:
                    self._say(f"W&B did not receive {task.what}: {first_line(error)}")

    def finish(self, summary: Row) -> None:
        best = summary.get("best")
        if self._config.artifacts != "none" and isinstance(best, dict) and summary["status"] == "done":
            self._send_checkpoint(best["checkpoint"], ["best"])
        self.close(partial(self._summarize, summary), summary["status"] == "done")

    def close(self, last: Callable[[], None], succeeded: bool) -> None:
        """Send what waits and then what `last` adds, and end. `succeeded` says whether W&B shows the run as finished or
        as failed."""
        import wandb

        self._tasks.put(None)
        self._sending.join(self._upload_seconds() / 2)
        self._is_finishing = True
        with self._going_on():
            last()
            self._complete_summary()
            self._end(succeeded)
        if self._has_failed:
            with suppress(Exception):  # it would be raised at the end of the process
                wandb.teardown()
        if self._own_data_folder:
            os.environ.pop(_DATA_FOLDER, None)

    def _summarize(self, summary: Row) -> None:
        import wandb

        self._run.summary.update(flat(summary, "/"))
        if (page := self._folder / "report.html").is_file():
            self._run.log({REPORT: wandb.Html(page.read_text(encoding="utf-8"), False, data_is_not_path=True)})

    def _complete_summary(self) -> None:
        """Add what earlier parts of the run have in its summary if this part is written offline, and store it."""
        if self._run.disabled:
            return
        summary, file = self._run.summary, self._folder / STORED_SUMMARY
        names = summary.keys()
        if self._info.resumed and self._run.offline and (stored := read_json(file)):
            summary.update({name: value for name, value in stored.items() if name not in names})
        write_json_atomic(file, {name: summary.get(name) for name in summary.keys() if not name.startswith("_")})  # noqa: SIM118

    def _end(self, succeeded: bool) -> None:
        import wandb

        try:
            self._run.finish(exit_code=0 if succeeded else 1)
        except TimeoutError:
            later = f"wandb sync --no-skip-online {_local(self._run)}"
            self._say(
                f"W&B did not receive the whole run within {self._upload_seconds()} s. Upload the rest with: {later}"
            )
        else:
            wandb.teardown()  # unlike finish, this waits until the last rows are on disk


def _facts(run: RunInfo) -> Row:
    """Return what W&B stores beside the settings: the components, and the command, packages, code, data and hardware
    of environment.json."""
    facts: Row = {"components": {row["component"]: row for row in run.components}}
    if (file := run.folder / "environment.json").is_file():
        facts["environment"] = json.loads(file.read_text(encoding="utf-8"))
    return facts


def _origin(run: RunInfo) -> Row:
    """Return what a model of the run was made of."""
    facts = _facts(run).get("environment", {})
    return {"base": run.lineage, "data": run.config["data"]["train"], "code": facts.get("checkout")}


def _in_sweep() -> bool:
    """Return whether `wandb agent` has started this process."""
    return "WANDB_SWEEP_ID" in os.environ


def run_id_of(run: RunInfo) -> str:
    """Return the id of the W&B run. A resumed run keeps the id that its run folder holds, and a run that starts from
    the beginning gets a new one, in a sweep that of the agent."""
    path = run.folder / ID_FILE
    if run.resumed and path.exists():
        return path.read_text(encoding="utf-8").strip()
    run_id = os.environ.get("WANDB_RUN_ID", "") if _in_sweep() else ""
    run_id = run_id or secrets.token_hex(4)
    write_text_atomic(path, run_id + "\n")
    return run_id


def _local(opened: Any) -> Path:
    return Path(opened.dir).parent


def sync_command(opened: Any) -> str:
    """Return the command that uploads an offline run: all its folders that are not uploaded yet, in the order in which
    they were made."""
    folder = _local(opened)
    # A name begins with the time. `wandb sync` leaves a file beside what it has uploaded.
    parts = {
        file.parent
        for file in folder.parent.glob(f"offline-run-*/run-{opened.id}.wandb")
        if not file.with_suffix(".wandb.synced").exists()
    }
    return shlex.join(["wandb", "sync", *map(str, sorted(parts | {folder}))])


def first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text and not text.startswith("<") else type(error).__name__
