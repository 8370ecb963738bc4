"""Reporting to Weights & Biases, without a prompt and without a long wait. The run is online if there is a login, and
offline otherwise."""

import os
import secrets
from collections.abc import Callable
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from qwenvl_train.config.schema import WandbConfig
from qwenvl_train.errors import UserError
from qwenvl_train.reporting.folder import write_text_atomic
from qwenvl_train.reporting.reporter import Row, RunInfo, flat, is_evaluation

ID_FILE = "wandb_id.txt"
CONNECT_SECONDS = 15
UPLOAD_SECONDS = 60
PUBLIC_HOST = "api.wandb.ai"
PUBLIC_HOST_NOW = ".forge.coreweave.com"
"""The end of the host name that newer wandb packages use for the public service. A login that was made with an older
package is stored under PUBLIC_HOST."""


class WandbRun:
    """A reporter that sends the run to Weights & Biases. It is built only if logging.wandb.mode is not disabled, since
    importing wandb takes a second."""

    def __init__(self, config: WandbConfig, say: Callable[[str], None] = print) -> None:
        self._config = config
        self._say = say
        self._mode()  # raises an error before any other work if the mode is online and there is no login

    def start(self, run: RunInfo) -> None:
        hush()
        self._folder = run.folder
        self._run = self._open(run)
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

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
                    reason = f"{_host()} cannot be used ({_first_line(error)})"
                    wandb.teardown()  # without this, the failed attempt keeps the run id in use
                    hush()
                else:
                    self._say(f"W&B: {opened.url}")
                    return opened
            case _:
                reason = "offline mode is set" if self._asked() == "offline" else f"not logged in to {_host()}"
        opened = self._init(run, run_id, "offline")
        self._say(f"W&B is offline: {reason}. Upload the run later with: wandb sync {_local(opened)}")
        return opened

    def _mode(self) -> str:
        match self._asked():
            case "auto":
                return "online" if has_login() else "offline"
            case "online" if not has_login():
                raise UserError(
                    f"logging.wandb.mode is online, but you are not logged in to {_host()}. "
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
            api_key=api_key() if mode == "online" else None,  # if wandb gets a key, it never prompts
            init_timeout=CONNECT_SECONDS,
            finish_timeout=UPLOAD_SECONDS,
            finish_timeout_raises=True,
        )
        return wandb.init(
            mode=mode,
            id=run_id,
            resume="allow" if run.resumed and mode == "online" else None,
            name=run.name,
            project=self._config.project,
            entity=self._config.entity,
            group=self._config.group,
            tags=list(self._config.tags),
            dir=str(run.folder),
            config=run.config | {"components": {row["component"]: row for row in run.components}},
            settings=settings,
        )

    def log(self, row: Row) -> None:
        """Send a row with its step as a metric, since wandb's own counter refuses steps that a resumed run repeats."""
        prefix = "eval/" if is_evaluation(row) else "train/"
        figures = {
            prefix + key.removeprefix("eval_"): value
            for key, value in flat(row).items()
            if key != "step" and value is not None
        }
        self._run.log({"step": row["step"], **figures})

    def finish(self, summary: Row) -> None:
        import wandb

        self._run.summary.update(flat(summary))
        # Not a table: wandb keeps the files of tables outside the run folder and remembers their absolute paths, so a
        # run folder that was copied could not be uploaded.
        if (page := self._folder / "report.html").is_file():
            self._run.log({"report": wandb.Html(page.read_text(encoding="utf-8"), False, data_is_not_path=True)})
        try:
            self._run.finish(exit_code=0 if summary["status"] == "done" else 1)
        except TimeoutError:
            later = f"wandb sync {_local(self._run)}"
            self._say(f"W&B did not receive the whole run within {UPLOAD_SECONDS} s. Upload the rest with: {later}")
        else:
            wandb.teardown()  # unlike finish, this waits until the last rows are on disk


def hush() -> None:
    """Silence wandb. This is called before wandb.init, since its login prints messages on its own."""
    import wandb

    wandb.setup(settings=wandb.Settings(silent=True))


def has_login() -> bool:
    return bool(os.environ.get("WANDB_IDENTITY_TOKEN_FILE") or api_key())


def api_key() -> str | None:
    """Return the key from the environment, wandb's settings or the netrc file, without a prompt."""
    import wandb

    return os.environ.get("WANDB_API_KEY") or wandb.setup().settings.api_key or _netrc_key(_host())


def _netrc_key(host: str) -> str | None:
    try:
        entries = netrc(Path(os.environ.get("NETRC", "~/.netrc")).expanduser())
    except (OSError, NetrcParseError):
        return None
    hosts = (host, PUBLIC_HOST) if host.endswith(PUBLIC_HOST_NOW) else (host,)
    found = (entries.authenticators(name) for name in hosts)
    return next((key for _, _, key in filter(None, found) if key), None)


def run_id_of(run: RunInfo) -> str:
    """Return the id of the W&B run. A resumed run keeps the id that its run folder holds, and a run that starts from
    the beginning gets a new one."""
    path = run.folder / ID_FILE
    if run.resumed and path.exists():
        return path.read_text(encoding="utf-8").strip()
    run_id = secrets.token_hex(4)
    write_text_atomic(path, run_id + "\n")
    return run_id


def _host() -> str:
    import wandb

    return urlsplit(wandb.setup().settings.base_url).netloc


def _local(opened: Any) -> Path:
    return Path(opened.dir).parent


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text and not text.startswith("<") else type(error).__name__
