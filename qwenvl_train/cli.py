"""The command qwenvl-train. It finds the verb, composes and checks its configuration, and runs it."""

import logging
import os
import re
import sys
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from shutil import get_terminal_size

from qwenvl_train import __version__
from qwenvl_train.config.flags import read_flags
from qwenvl_train.config.options import Names, nearest, recipe_files
from qwenvl_train.errors import UserError, message_of
from qwenvl_train.files import is_full_disk
from qwenvl_train.reporting.encoding import replace_unencodable
from qwenvl_train.reporting.stdout import reserve_stdout
from qwenvl_train.reporting.wrapping import wrapped
from qwenvl_train.usage import help_of
from qwenvl_train.verbs.table import FOLDER_VERBS, VERBS, load_verb, run_on_folders

# Some launchers append this argument for each process. It is ignored: the rank is read from the environment.
_LOCAL_RANK = re.compile(r"--local[-_]rank=\d+")

SILENCED = {
    "HF_HUB_DISABLE_TELEMETRY": "1",  # of huggingface_hub, and of transformers and TRL, which use it
    "DISABLE_SAFETENSORS_CONVERSION": "1",  # transformers would ask a service to convert a model without safetensors
    "WANDB_ERROR_REPORTING": "false",
    "GRADIO_ANALYTICS_ENABLED": "False",
}
"""Variables that keep libraries from sending facts about their use to their makers."""


def main(argv: Sequence[str] | None = None) -> int:
    replace_unencodable()
    arguments = [word for word in (sys.argv[1:] if argv is None else argv) if not _LOCAL_RANK.fullmatch(word)]
    try:
        _run(arguments)
    except UserError as error:
        _report(error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if not is_full_disk(error):
            raise
        _report(UserError(f"the disk is full: {' '.join(str(error).split())}. Free some space and start again."))
        return 2
    return 0


def _run(words: list[str]) -> None:
    flags, arguments = read_flags(words)
    names = Names.within(flags.folder)
    if arguments[:1] == ["help"] or not {"-h", "--help"}.isdisjoint(arguments):
        print(help_of(_verb_in(arguments), names), end="")
    elif "--version" in arguments:
        print(f"qwenvl-train {__version__}")
    elif flags.several:
        _run_sweep(*_split_verb(arguments), names)
    else:
        _run_verb(*_split_verb(arguments), names)


def _run_verb(name: str, arguments: list[str], names: Names) -> None:
    if name in FOLDER_VERBS:
        run_on_folders(name, arguments)
        return
    prepare_environment(name)
    from qwenvl_train.config.compose import compose
    from qwenvl_train.data.sources.finding import refuse_missing

    verb = load_verb(name)
    composed = compose(arguments, verb, names)
    refuse_missing(composed.config.data, verb.reads)
    with _output(composed.config):
        verb.run(composed)


def _run_sweep(name: str, arguments: list[str], names: Names) -> None:
    prepare_environment(name)
    from qwenvl_train.config.sweep import jobs_of
    from qwenvl_train.data.sources.finding import refuse_missing

    verb = load_verb(name)
    if verb.sweep is None:
        raise UserError(f"-m: {name} takes one value of each setting; use -m with train and plan.")
    jobs = jobs_of(arguments, verb, names)
    for job in jobs:
        refuse_missing(job.composed.config.data, verb.reads)
    with _output(jobs[0].composed.config):
        verb.run_several(jobs)


def _output(config: object) -> AbstractContextManager:
    """Return the context in which a verb with this configuration writes to stdout."""
    if sys.stderr.isatty():
        print("loading libraries …", file=sys.stderr)
    return reserve_stdout() if getattr(config, "output", None) == "json" else nullcontext()


def _split_verb(arguments: list[str]) -> tuple[str, list[str]]:
    """Return the verb and the remaining arguments. The first argument is the verb unless it is a setting."""
    if not arguments or "=" in arguments[0] or arguments[0][:1] in "-+~":
        return "train", arguments
    word, rest = arguments[0], arguments[1:]
    if word in VERBS or word in FOLDER_VERBS:
        return word, rest
    verbs = ", ".join([*VERBS, *FOLDER_VERBS, "help"])
    raise UserError(f"{word}: there is no such verb{_meant_by(word)} Verbs: {verbs}")


def _verb_in(arguments: list[str]) -> str | None:
    """Return the verb that help is asked for, if one is named."""
    return next((word for word in arguments if word in VERBS or word in FOLDER_VERBS), None)


def _meant_by(word: str) -> str:
    if word in recipe_files():
        return f"; did you mean +recipe={word}?"
    verb = nearest(word, [*VERBS, *FOLDER_VERBS])
    return f"; did you mean {verb}?" if verb else "."


def prepare_environment(verb: str) -> None:
    """Set environment variables that libraries read when they are imported. Values that the user has set are kept."""
    for name, value in SILENCED.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if verb != "train":  # which writes warnings to log.txt
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Threads that spin long while they wait make a run on a busy machine many times slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # Packed rows differ in length, and a memory block that was split for one length cannot be reused for another.
    if not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & os.environ.keys():
        os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
    _quieten_libraries()


def _quieten_libraries() -> None:
    """Silence messages of libraries about themselves at import and about their future versions, which do not concern
    users of this command."""
    for category in (FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category)
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # Said of intervals that differ from those of the checkpoint, although those of the settings hold.
    logging.getLogger("transformers.trainer_utils").addFilter(
        lambda record: "arguments do not match the ones in the `trainer_state.json`" not in record.getMessage()
    )
    logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to CPU" not in record.getMessage())


def _report(error: UserError) -> None:
    """Print the error. If all processes fail with the same error, only the first one prints it."""
    if os.environ.get("RANK", "0") == "0" or not error.on_every_process:
        message = message_of(error)
        lines = message.splitlines()
        text = message if len(lines) == 1 else "\n".join([f"{len(lines)} problems", *(f"  {line}" for line in lines)])
        print(_for_terminal(f"qwenvl-train: {text}"), file=sys.stderr)


def _for_terminal(text: str) -> str:
    """Return the text in lines that break between words. A log file gets whole lines."""
    if not sys.stderr.isatty():
        return text
    width = get_terminal_size().columns
    return "\n".join(wrapped(line, width, hanging="    ") for line in text.splitlines())
