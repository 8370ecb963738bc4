"""The metrics by name. A new metric is a module in this folder, and one entry here.

A module is imported only when its metric is used, since some need packages that the package itself does not.
"""

from difflib import get_close_matches
from pkgutil import resolve_name

from qwenvl_train.errors import UserError
from qwenvl_train.evaluation.metrics.metric import Metric

METRICS = {
    "exact_match": "exact_match:EXACT_MATCH",
    "contains": "contains:CONTAINS",
    "choice": "choice:CHOICE",
    "number": "number:NUMBER",
    "anls": "anls:ANLS",
    "edit_similarity": "edit_similarity:EDIT_SIMILARITY",
    "page_text": "page_text:PAGE_TEXT",
    "cer": "error_rates:CER",
    "wer": "error_rates:WER",
    "lines_cer": "page_text:LINES_CER",
    "fields": "fields:FIELDS",
    "teds": "teds:TEDS",
    "teds_struct": "teds:TEDS_STRUCT",
    "grounding": "grounding:GROUNDING",
    "layout": "layout:LAYOUT",
    "temporal": "temporal:TEMPORAL",
    "agent_action": "agent_action:AGENT_ACTION",
    "agent_action_android_control": "agent_action:ANDROID_CONTROL",
    "agent_action_os_atlas": "agent_action:OS_ATLAS",
    "agent_action_odyssey": "odyssey:ODYSSEY",
    "screenspot": "screenspot:SCREENSPOT",
}
"""Where each metric is, as module:name in this folder."""
EXTRA = ("apted", "jiwer", "lxml", "rapidfuzz")
"""The packages of the extra `eval`."""


def load_metric(name: str) -> Metric:
    """Return the metric of this name, or the user's own metric if the name is dotted, such as my_package.my_metric."""
    refuse_unknown(name)
    return _built_in(name) if name in METRICS else _own(name)


def refuse_unknown(name: str, setting: str | None = None) -> None:
    """Raise UserError if there is no metric of this name, unless it may be the user's own. The setting that names it is
    told, too."""
    if name in METRICS or "." in name:
        return
    near = get_close_matches(name, METRICS, n=1)
    hint = (
        f"did you mean {near[0]}?" if near else f"it is one of {', '.join(METRICS)}, or your own as package.function."
    )
    there = f"{setting}: there" if setting else "There"
    raise UserError(f"{there} is no metric {name}; {hint}")


def _built_in(name: str) -> Metric:
    try:
        return resolve_name(f"{__package__}.{METRICS[name]}")
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing not in EXTRA:
            raise
    raise UserError(f"The metric {name} needs {missing}: pip install 'qwenvl-train[eval]'.")


def _own(name: str) -> Metric:
    try:
        found = resolve_name(name)
    except Exception as error:  # importing runs the user's code, which can raise anything
        raise UserError(f"The metric {name} cannot be imported: {type(error).__name__}: {error}.") from None
    if isinstance(found, Metric):
        return found
    if not callable(found):
        raise UserError(
            f"The metric {name} is a {type(found).__name__}; it must be a function of (answer, expected, question), or "
            "a Metric."
        )
    lines = (found.__doc__ or "").strip().splitlines()
    return Metric(name.rpartition(".")[2].rpartition(":")[2], lines[0] if lines else f"your function {name}", found)
