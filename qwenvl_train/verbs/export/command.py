"""The verb export. It writes a trained model in the form that servers load, and compares it with the run."""

import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from qwenvl_train.config.compose import Composed
from qwenvl_train.config.inference import run_folder_of
from qwenvl_train.errors import UserError
from qwenvl_train.reporting.attached import Export
from qwenvl_train.run.attaching import wandb_run
from qwenvl_train.step_folders import step_of
from qwenvl_train.verbs.export.settings import ExportConfig


def run(composed: Composed[ExportConfig]) -> None:
    config = composed.config
    final = _destination(config)
    print(f"exporting {config.run or config.model.path} to {final} …", flush=True)
    tracked = wandb_run("export.wandb", config.export.wandb, config)
    from qwenvl_train.verbs.export.exporting import export

    with _staging(final) as staging:
        exported = export(config, staging, final)
    print("\n".join(exported.lines))
    if tracked:
        form, facts = config.export.form, {"size_gb": exported.size / 1e9, "compared": exported.compared or "no"}
        step = step_of(exported.checkpoint)
        tracked.add_export(Export(final, step, f"{form}-{exported.dtype}", facts))


def _destination(config: ExportConfig) -> Path:
    """Return the folder to write, which does not exist or is empty."""
    if config.export.to is not None:
        final = Path(config.export.to).expanduser()
    elif config.run is not None:
        final = run_folder_of(config.run) / "export" / config.export.form
    else:
        raise UserError("export: name what to export with run=, or with model.path= and export.to=.")
    if final.exists() and not final.is_dir():
        raise UserError(f"export.to={final} is a file; name a folder that does not exist.")
    if final.is_dir() and any(final.iterdir()):
        raise UserError(f"export.to={final} is not empty; delete it, or name another folder in export.to.")
    return final


@contextmanager
def _staging(final: Path) -> Iterator[Path]:
    """Yield an empty folder beside `final`, which is gone at the end, also after SIGTERM. One that a killed export has
    left is replaced."""
    new = [path for path in final.absolute().parents if not path.exists()]
    staging = final.with_name(f".{final.name}.part")
    before = signal.signal(signal.SIGTERM, _exit)
    try:
        try:
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
        except OSError as error:
            raise UserError(f"export.to={final} cannot be written: {error.strerror}.") from None
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        with suppress(OSError):
            for path in new:
                path.rmdir()
        signal.signal(signal.SIGTERM, before)


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
