"""Words, lines and sentences of a text in any language."""

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache

UNSPACED = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff"
    r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Characters of scripts that have no spaces between words, each of which counts as a word. They are those of Thai, Lao,
Burmese, Khmer, Japanese and Chinese."""
# Vowel signs and accents that Python does not count as characters of words.
_MARKS = r"\u0300-\u036f\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0963\u0966-\u096f\u0971-\u0dff"
_SPACED = rf"(?:[^\W_{UNSPACED}]|[{_MARKS}])+"
_TOKEN = re.compile(rf"[{UNSPACED}]|{_SPACED}(?:['’-]{_SPACED})*")
# In ASCII, which most texts are, the same words are found much faster: in lower case, and with spaces in place of all
# characters that are not part of words.
_ASCII = {code: chr(code).lower() if chr(code).isalnum() or chr(code) in "'-" else " " for code in range(128)}
_LOOSE = re.compile(r"['-](?:(?<![a-z0-9]['-])|(?![a-z0-9]))")
"""Apostrophes and hyphens that do not stand between letters or figures."""

ENDS = ".!?…。！？؟۔।։"
"""Characters that end sentences."""
CLOSERS = "\"'”’»›)]}）」』】》*_`"
"""Characters that may follow the end of a sentence."""
# It begins with a character, and not with a condition, so that other characters are passed quickly.
_SENTENCE_END = re.compile(
    rf"[{ENDS}\n](?:(?<=[.!?…؟۔।։])[{re.escape(CLOSERS)}]*\s+|(?<=[。！？])[{re.escape(CLOSERS)}]*\s*|(?<=\n)\n*)"
)

FENCE = re.compile(r"^[ \t]*```[ \t]*+([\w+-]*+)[^\n`]*+\n(.*?)(?:^[ \t]*```[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
"""A block of code: its language and its content. One that is not closed goes on to the end of the text."""
_PROSE = frozenset({"", "text", "txt", "plaintext", "markdown", "md"})
_PROSE_AND_DATA = _PROSE | {"html", "json", "xml", "csv"}
_INLINE_CODE = re.compile(r"(?<!`)(`{1,2})(?!`)[^\n]+?(?<!`)\1(?!`)")
_TAG = re.compile(r"<\|box_start\|>[^<]*<\|box_end\|>|</?[a-zA-Z!][^<>]{0,500}>|<\|[^<>|]{1,50}\|>")
_TOOL_CALL = re.compile(r"<tool_call>.*?(?:</tool_call>|\Z)", re.DOTALL)
# Formulas have up to 300 commands, since each beginning without an end is searched for it.
_FORMULA = re.compile(
    r"\$\$.+?\$\$|\$[^$\n]+\$|\\\[[^\\]*+(?:\\[^\[\]][^\\]*+){0,300}+\\\]|\\\([^\\]*+(?:\\[^()][^\\]*+){0,300}+\\\)|"
    r"\\begin\{(\w+\*?)\}[^\\]*+(?:\\(?!end\{\1\})[^\\]*+){0,300}+\\end\{\1\}|\\boxed\{[^\n]{0,2000}\}",
    re.DOTALL,
)
_ADDRESS = re.compile(r"(?:https?://|www\.)[^\s<>\"'()）】。]+(?:\([^\s()]*\)[^\s<>\"'()）】。]*)*")
# Each alternative begins with its character, so that other characters are passed quickly. Where the marks of a pair
# differ, the length is bounded, since each opening mark without a closing one is searched for it.
_QUOTED = re.compile(
    r"\"[^\"\n]*\"|“[^”\n]{0,1000}+”|„[^“”\n]{0,1000}+[“”]|«[^»\n]{0,1000}+»|‘[^’\n]{0,1000}+’|'(?<!\w')[^'\n]*'(?!\w)|"
    r"「[^」\n]{0,1000}+」|『[^』\n]{0,1000}+』|《[^》\n]{0,1000}+》|【[^】\n]{0,1000}+】|\([^)\n]{0,1000}+\)|（[^）\n]{0,1000}+）|"
    r"\[[^\]\n]{0,1000}+\]|\*[^*\n]+\*|_(?<!\w_)[^_\n]+_(?!\w)"
)
_MEMBER = re.compile(r'"(?:[^"\\]|\\.)*"\s*[:,]')
_TABLE_ROW = re.compile(r"^[ \t]*\|.*$", re.MULTILINE)

_KEPT = 64
"""The number of texts whose words and sentences are kept, since several rules ask for those of one text."""


@dataclass(frozen=True)
class Passage:
    """A text with its words, lines and sentences, each of which is found once, when a rule asks for it."""

    text: str

    @cached_property
    def prose(self) -> str:
        """The text without blocks of code and data, tool calls, formulas, tags, rows of tables and addresses."""
        return prose(self.text)

    @cached_property
    def own_words(self) -> str:
        """The prose without what stands in quotation marks, brackets and italics, which is quoted or explained."""
        return _QUOTED.sub(" ", self.prose)

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the prose."""
        return words(self.prose)

    @cached_property
    def lines(self) -> list[str]:
        """The lines that have words in them, without programs, tags and the members of JSON objects, of which each is
        on a line of its own where JSON is indented."""
        given = untagged(without_programs(self.text)).splitlines()
        return [line for line in map(str.strip, given) if _has_words(line) and not _MEMBER.match(line)]

    @property
    def sentences(self) -> tuple[str, ...]:
        """The sentences of the prose."""
        return sentences(self.prose)


@lru_cache(maxsize=_KEPT)
def words(text: str) -> tuple[str, ...]:
    """Return the words of a text with case folded, without punctuation."""
    if text.isascii():
        folded = text.translate(_ASCII)
        return tuple((_LOOSE.sub(" ", folded) if "'" in folded or "-" in folded else folded).split())
    return tuple(_TOKEN.findall(text.casefold()))


@lru_cache(maxsize=_KEPT)
def sentences(text: str) -> tuple[str, ...]:
    """Return the sentences of a text, where each line ends one, too."""
    pieces, start = [], 0
    for found in _SENTENCE_END.finditer(text):
        pieces.append(text[start : found.start() + 1])
        start = found.end()
    pieces.append(text[start:])
    return tuple(sentence for piece in pieces if (sentence := piece.strip()))


def prose(text: str) -> str:
    """Return a text without blocks of code and data, tool calls, formulas, tags, rows of tables and addresses."""
    text = without_blocks(text, _PROSE)
    if "`" in text:
        text = _INLINE_CODE.sub(" ", text)
    if "<tool_call>" in text:
        text = _TOOL_CALL.sub(" ", text)
    if "$" in text or "\\" in text:
        text = _FORMULA.sub(" ", text)
    if "://" in text or "www." in text:
        text = _ADDRESS.sub(" ", text)
    if "|" in text:
        text = _TABLE_ROW.sub("", text)
    return untagged(text)


def without_programs(text: str) -> str:
    """Return a text without its blocks of code, except for those that hold text or data."""
    return without_blocks(text, _PROSE_AND_DATA)


def without_blocks(text: str, kept: frozenset[str]) -> str:
    """Return a text without its blocks of code, of which only the contents of those in some languages are kept."""
    if "```" not in text:
        return text
    return FENCE.sub(lambda found: found[2] if found[1].lower() in kept else "\n", text)


def untagged(text: str) -> str:
    """Return a text without tags and control tokens."""
    return _TAG.sub(" ", text) if "<" in text else text


def _has_words(line: str) -> bool:
    return any(character.isalnum() for character in line)
