"""log.txt holds what a run prints and what libraries log and warn, and the terminal only their errors."""

import io
import logging
import os
import re
import sys
import warnings
from multiprocessing import get_context

import pytest

from qwenvl_train.errors import UserError
from qwenvl_train.reporting.console import console_on, say
from qwenvl_train.reporting.run_log import RunLog, log_file, write_before_exit

LIBRARY = "a_library"
START = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d rank 0 "


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.txt"


class TorchHandler(logging.Handler):
    """As torch has one, which is no StreamHandler."""

    @property
    def stream(self):
        return sys.stderr

    def emit(self, record):
        self.stream.write(self.format(record))


@pytest.fixture(params=[logging.StreamHandler, TorchHandler])
def library(request):
    """A logger with a handler for the terminal, as transformers and DeepSpeed add theirs."""
    logger = logging.getLogger(f"{LIBRARY}.module")
    root = logging.getLogger(LIBRARY)
    handler = request.param()

    def import_library() -> logging.Logger:
        root.addHandler(handler)
        root.propagate = False
        return logger

    yield import_library
    root.removeHandler(handler)
    root.propagate = True


def lines(path) -> list[str]:
    """The lines without the first one, which has the command."""
    first, *others = path.read_text(encoding="utf-8").splitlines()
    assert re.fullmatch(f"{START}INFO qwenvl_train: started: .+", first)
    return [re.sub(START, "", line) for line in others]


def fail_with(error: BaseException, path=None, warn=None) -> None:
    with RunLog() as log:
        if path:
            log.open(path)
        if warn:
            warn("this may be why")
        raise error


def test_what_libraries_say_is_in_the_file_and_not_on_the_terminal(path, library, capfd):
    with RunLog() as log:
        logger = library()  # imported during the run
        logger.warning("before the folder is known")
        log.open(path)
        logger.info("not wanted")
        logger.warning("while it trains: %d %%", 5)
        warnings.warn("be careful", stacklevel=1)
    first, second, *third = lines(path)
    assert first == f"WARNING {LIBRARY}.module: before the folder is known"
    assert second == f"WARNING {LIBRARY}.module: while it trains: 5 %"
    assert re.fullmatch(r"WARNING py.warnings: .+test_run_log.py:\d+: UserWarning: be careful", third[0])
    assert capfd.readouterr() == ("", "")


def test_what_the_run_prints_is_in_the_file_too(path, capsys):
    say(console_on(), "not in a run")
    with RunLog() as log:
        say(console_on(), "480 samples\n→ 120 steps")
        log.open(path)
        say(console_on(), "step 1/120")
    assert lines(path) == [f"INFO qwenvl_train: {line}" for line in ("480 samples", "→ 120 steps", "step 1/120")]
    assert capsys.readouterr().out == "not in a run\n480 samples\n→ 120 steps\nstep 1/120\n"


def test_errors_of_libraries_are_on_the_terminal_too(path, library, capfd):
    with RunLog() as log:
        library().error("out of order")
        log.open(path)
    assert lines(path) == [f"ERROR {LIBRARY}.module: out of order"]
    assert re.fullmatch(f"{START}ERROR {LIBRARY}.module: out of order\n", capfd.readouterr().err)


def test_users_may_ask_libraries_for_more(path, library, capfd):
    with RunLog() as log:
        log.open(path)
        logger = library()
        logger.setLevel(logging.INFO)  # as TRANSFORMERS_VERBOSITY=info does
        logger.info("loading")
    logger.setLevel(logging.NOTSET)
    assert lines(path) == [f"INFO {LIBRARY}.module: loading"]
    assert capfd.readouterr().err == ""


def test_a_resumed_run_appends(path):
    for step in (1, 2):
        with RunLog() as log:
            log.open(path)
            say(console_on(), f"step {step}")
    assert [line for line in lines(path) if "started" not in line] == [
        "INFO qwenvl_train: step 1", "INFO qwenvl_train: step 2",
    ]  # fmt: skip


def test_the_end_of_a_run_is_in_the_file(path):
    for error in (UserError("the disk is full"), KeyboardInterrupt(), ZeroDivisionError("a fault")):
        with pytest.raises(type(error)):
            fail_with(error, path)
    told = [line for line in lines(path) if "started" not in line]
    assert told[:3] == [
        "ERROR qwenvl_train: the disk is full", "ERROR qwenvl_train: interrupted",
        "CRITICAL qwenvl_train: the run has failed",
    ]  # fmt: skip
    assert told[3] == "Traceback (most recent call last):"
    assert told[-1] == "ZeroDivisionError: a fault"


def test_an_error_of_all_processes_is_written_by_the_first(path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(UserError):
        fail_with(UserError("my.jsonl:3: no such picture"), path)
    assert path.read_text() == ""


@pytest.mark.parametrize(("error", "printed"), [(ZeroDivisionError, True), (UserError, False)])
def test_warnings_before_a_fault_are_printed_if_there_is_no_file(error, printed, library, capfd):
    with pytest.raises(error):
        fail_with(error(), warn=library().warning)
    err = capfd.readouterr().err
    assert bool(re.fullmatch(f"{START}WARNING {LIBRARY}.module: this may be why\n", err)) == printed


def test_a_process_that_is_forked_before_there_is_a_file_prints_its_warnings(path, library, capfd):
    with RunLog() as log:
        worker = get_context("fork").Process(target=library().warning, args=["a worker's"])
        worker.start()
        worker.join()
        log.open(path)
    assert capfd.readouterr().err.endswith(f"WARNING {LIBRARY}.module: a worker's\n")
    assert lines(path) == []


@pytest.mark.parametrize("when", ["opened", "written"])
def test_a_file_that_cannot_be_written_is_one_sentence(when, path, library, capfd):
    if when == "opened":
        path.mkdir()
    else:
        path.symlink_to("/dev/full")
    with RunLog() as log:
        log.open(path)
        for _ in range(3):
            library().warning("a warning")
    told = capfd.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith(f"{path} cannot be written, so that lines are missing in it: ")


def test_nothing_of_logging_is_changed_afterwards(path, library):
    def state():
        loggers = (logging.getLogger(), logging.getLogger(LIBRARY), logging.getLogger("qwenvl_train"))
        shown = [(list(one.handlers), one.level, one.propagate) for one in loggers]
        return shown, logging.getLogRecordFactory(), warnings.showwarning

    logger = library()
    before = state()
    with RunLog() as log:
        logger.warning("a warning")
        log.open(path)
    assert state() == before


def test_captured_warnings_of_a_program_stay_captured(path):
    logging.captureWarnings(True)
    try:
        captured = warnings.showwarning
        with RunLog():
            pass
        assert warnings.showwarning is captured
    finally:
        logging.captureWarnings(False)


def _write(path, rank: int) -> None:
    os.environ["RANK"] = str(rank)
    with RunLog() as log:
        log.open(path)
        for _ in range(50):
            logging.getLogger(LIBRARY).warning(str(rank) * 20_000)


def test_records_of_several_processes_stay_whole(path):
    workers = [get_context("fork").Process(target=_write, args=[path, rank]) for rank in (1, 2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    whole = re.compile(r".{19} rank (\d) WARNING a_library: \1{20000}")
    assert [bool(whole.fullmatch(line)) for line in path.read_text().splitlines()] == [True] * 100


def test_each_further_host_has_a_file_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr("qwenvl_train.reporting.run_log.gethostname", lambda: "node7")
    assert log_file(tmp_path, "node7") == tmp_path / "log.txt"
    assert log_file(tmp_path, "node1") == tmp_path / "log-node7.txt"


def test_a_process_that_ends_at_once_writes_what_it_was_doing(path):
    with RunLog() as log:
        log.open(path)
        write_before_exit("nothing has happened", stacks=True)
    told = lines(path)
    assert told[0] == "ERROR qwenvl_train: nothing has happened"
    assert any("test_a_process_that_ends_at_once" in line for line in told)


class Listened(io.StringIO):
    """A stderr like that which wandb leaves when its process is killed: each line that is printed logs an error."""

    def write(self, text: str) -> int:
        logging.getLogger("wandb").error("error in stderr callback")
        return super().write(text)


@pytest.mark.parametrize("opened", [True, False])
def test_a_stderr_that_logs_errors_itself_ends_nothing(opened, path, monkeypatch):
    def log_both(text: str) -> None:
        logging.getLogger("a.library").warning(text)
        logging.getLogger("a.library").error("out of order")

    monkeypatch.setattr("sys.stderr", Listened())
    with pytest.raises(ZeroDivisionError):
        fail_with(ZeroDivisionError(), path if opened else None, log_both)
    assert sys.stderr.getvalue().count("out of order") == (1 if opened else 2)
