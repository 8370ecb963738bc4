"""The words around the thoughts before an answer, which are the same in all chat formats."""

BEGIN, END = "<think>", "</think>"
BEGIN_THOUGHTS = f"{BEGIN}\n"
"""The text after which a model writes its thoughts."""
NO_THOUGHTS = f"{BEGIN}\n\n{END}\n\n"
"""The text of empty thoughts, after which a model answers at once."""


def without_thoughts(answer: str) -> str:
    """Return an answer without the thoughts at its beginning. It is empty if the thoughts do not end."""
    if END not in answer:
        return "" if answer.lstrip().startswith(BEGIN) else answer
    # A chat template may write <think> into the prompt, so that an answer begins within the thoughts.
    return answer.partition(END)[2].lstrip()
