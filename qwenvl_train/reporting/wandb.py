"""Reporting to Weights & Biases, without a prompt and without a long wait. The run is online if there is a login, and
offline otherwise."""

import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from netrc import NetrcParseError, netrc
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from qwenvl_train.config.flat import flat
from qwenvl_train.config.schema import WandbConfig
from qwenvl_train.errors import UserError
from qwenvl_train.reporting.checkpoints import evaluation_in
from qwenvl_train.reporting.folder import write_json_atomic, write_text_atomic
from qwenvl_train.reporting.pictures import Shape
from qwenvl_train.reporting.recorded import read_json
from qwenvl_train.reporting.reporter import Reporter, Row, RunInfo
from qwenvl_train.reporting.tracking import ALL_SECTIONS, LENGTHS, TrackedAnswer, tracked, tracked_answers
from qwenvl_train.step_folders import step_of

ID_FILE = "wandb_id.txt"
STORED_SUMMARY = Path("wandb", "summary.json")
"""What W&B's table of runs shows of the run. `wandb sync` replaces it by that of the folder that it reads last, so a
part of the run that is written later has it, too."""
CONNECT_SECONDS = 15
UPLOAD_SECONDS, UPLOAD_SECONDS_OF_ARTIFACTS = 60, 1200
PUBLIC_HOST = "api.wandb.ai"
PUBLIC_HOST_NOW = ".forge.coreweave.com"
"""The end of the host name that newer wandb packages use for the public service. A login that was made with an older
package is stored under PUBLIC_HOST."""


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

KINDS = ("expected", "before", "after", "answer")
"""The kinds of boxes and points over a picture, which W&B can show and hide. Their index is W&B's class."""
_ONLY_TO_RESUME = re.compile(
    r"global_step|latest$|optimizer|scheduler|scaler|rng_state|training_args|trainer_state|zero_to_fp32|progress.json|"
    r"stream.json|SHA256SUMS"
)
"""The beginnings of the names of files in a checkpoint that no artifact has."""
_DOT = 0.01
"""Half the width of the box that W&B shows instead of a point, as a share of the width of the picture."""
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
        self._say(f"W&B is offline: {reason}. Upload the run later with: wandb sync {_local(opened)}")
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
            self._run.log_artifact(_artifact(name, folder, facts | _origin(self._info)), aliases=aliases)

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


def _artifact(name: str, folder: Path, metadata: Row) -> Any:
    """Return a folder with a model as an artifact of W&B, without what only resuming needs."""
    import wandb

    artifact = wandb.Artifact(re.sub(r"[^\w.-]", "-", name), type="model", metadata=metadata)
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not _ONLY_TO_RESUME.match(str(file.relative_to(folder))):
            artifact.add_file(str(file), str(file.relative_to(folder)), skip_cache=True)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder.name} was deleted by train.keep before all of it was read")
    return artifact


def table_of_answers(answers: list[TrackedAnswer]) -> Any:
    """Return a W&B table with a row for each answer. Boxes and points are drawn over the first picture."""
    import wandb

    pictures = max((len(answer.pictures) for answer in answers), default=0)
    named = ["picture", *(f"picture {number}" for number in range(2, pictures + 1))][:pictures]
    pairs = any(answer.rejected is not None for answer in answers)
    given = list(dict.fromkeys(when for answer in answers for when in answer.answers))
    texts = ["prompt", *(["chosen", "rejected"] if pairs else ["expected"]), *given]
    clips = ["video"] if any(answer.videos for answer in answers) else []
    judged = ["right", *(["changed"] if "after" in given else [])]
    scores = list(dict.fromkeys(name for answer in answers for name in answer.scores))
    table = wandb.Table(columns=["sample", *named, *clips, *texts, *judged, *scores])
    for answer in answers:
        images = [
            wandb.Image(picture, boxes=_boxes(answer.shapes) if number == 0 else None)
            for number, picture in enumerate(answer.pictures)
        ]
        video = [wandb.Video(str(answer.videos[0]), format=answer.videos[0].suffix[1:]) if answer.videos else None]
        row = [answer.sample, *images, *[None] * (pictures - len(images)), *(video if clips else []), answer.prompt]
        row += [answer.expected, *([answer.rejected] if pairs else []), *(answer.answers.get(when) for when in given)]
        row += [getattr(answer, name) for name in judged]
        table.add_data(*row, *(answer.scores.get(name) for name in scores))
    return table


def _boxes(shapes: list[Shape]) -> dict[str, Any] | None:
    """Return boxes and points in W&B's form, in groups that can be shown and hidden."""
    groups: dict[str, Any] = {}
    for shape in shapes:
        group = groups.setdefault(shape.kind, {"box_data": [], "class_labels": dict(enumerate(KINDS))})
        around = _DOT if shape.point else 0
        group["box_data"].append(
            {
                "position": {
                    "minX": shape.left - around,
                    "maxX": shape.left + shape.width + around,
                    "minY": shape.top - around,
                    "maxY": shape.top + shape.height + around,
                },
                "class_id": KINDS.index(shape.kind),
                "box_caption": shape.name,
            }
        )
    return groups or None


def hush() -> None:
    """Silence wandb, and let its questions to the server fail soon if there is no answer. It would ask for hours, also
    at the end of the process. This is called before wandb.init, since its login prints messages on its own."""
    import wandb

    wandb.setup(settings=wandb.Settings(silent=True, x_graphql_retry_max=2, x_graphql_retry_wait_max_seconds=2.0))


def has_login() -> bool:
    return bool(os.environ.get("WANDB_IDENTITY_TOKEN_FILE") or api_key())


def api_key() -> str | None:
    """Return the key from the environment, wandb's settings or the netrc file, without a prompt."""
    return os.environ.get("WANDB_API_KEY") or _settings().api_key or _netrc_key(host())


def _settings() -> Any:
    """Return wandb's settings, also if its own process cannot be reached: that is told when the run starts."""
    import wandb

    try:
        return wandb.setup().settings
    except Exception:
        return wandb.Settings()


def _netrc_key(host: str) -> str | None:
    try:
        entries = netrc(Path(os.environ.get("NETRC", "~/.netrc")).expanduser())
    except (OSError, NetrcParseError):
        return None
    hosts = (host, PUBLIC_HOST) if host.endswith(PUBLIC_HOST_NOW) else (host,)
    found = (entries.authenticators(name) for name in hosts)
    return next((key for _, _, key in filter(None, found) if key), None)


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


def host() -> str:
    return urlsplit(_settings().base_url).netloc


def _local(opened: Any) -> Path:
    return Path(opened.dir).parent


def first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text and not text.startswith("<") else type(error).__name__
