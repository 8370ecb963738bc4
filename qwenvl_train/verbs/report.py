"""The verb report. It makes report.html again from the files of a run folder, also for a run that was killed."""

from pathlib import Path

from qwenvl_train.holder import in_use
from qwenvl_train.reporting.pages.report import write_report
from qwenvl_train.reporting.recorded import refuse_other_folder


def run(folder: Path) -> None:
    refuse_other_folder("report", folder)
    if not (folder / "summary.json").is_file():
        state = "is still running" if in_use(folder) else "has ended without a summary"
        print(f"{folder} {state}; the report shows what it has recorded so far")
    print(f"report      {write_report(folder)}")
