"""The words around the thoughts before an answer, which are the same in all chat formats."""

import re

BEGIN, END = "<think>", "</think>"
BEGIN_THOUGHTS = f"{BEGIN}\n"
"""The text after which a model writes its thoughts."""
NO_THOUGHTS = f"{BEGIN}\n\n{END}\n\n"
"""The text of empty thoughts, after which a model answers at once."""

# A chat template may write <think> into the prompt, so that an answer begins within the thoughts.
_THOUGHTS = re.compile(rf"\s*(?:{BEGIN})?.*?{END}\s*", re.DOTALL)
_UNFINISHED = re.compile(rf"\s*{BEGIN}")


def without_thoughts(answer: str) -> str:
    """Return an answer without the thoughts at its beginning. It is empty if the thoughts do not end."""
    if _UNFINISHED.match(answer) and END not in answer:
        return ""
    found = _THOUGHTS.match(answer)
    return answer[found.end() :] if found else answer
