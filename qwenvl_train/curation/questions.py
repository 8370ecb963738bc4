"""What a question asks for, as far as its words tell."""

import re
from functools import lru_cache

# Copying, reading, extracting, translating and rewriting take their answer from text that is given.
_GIVEN_TEXT = re.compile(
    r"\b(?:translat|transcri|transliterat|rewrit|rephras|paraphras|proofread|summari[sz]|extract|"
    r"OCR\b|copy\b|quote\b|repeat\b|spell\b|correct (?:the|this|any)|fix the|fill in|complete the|convert|"
    r"read (?:the|all|out|aloud|any|what|this)|(?:according to|based on) the (?:text|passage|article|context)|"
    r"what (?:does|do|is|are) (?:\w+ ){0,4}(?:say|says|written|read|reads|text|words)\b|"
    r"(?:the|any|all) (?:\w+ )?text\b|"
    r"(?:context|passage|article|document|paragraph|text)\s*:|"
    r"übersetz|abschreib|lies |zusammenfass|umformulier|ergänz|"
    r"traduis|traduire|transcris|résum|traduc|transcrib|resum)"
    r"|翻译|翻譯|译成|译为|识别|識別|提取|抽取|抄写|转写|改写|润色|复述|总结|概括|摘要|纠正|补全|文字|文本|写的是|写着|写了|阅读|"
    r"訳し|翻訳|書き起こ|読み取|要約|言い換え|文字|テキスト|抜き出|"
    r"ترجم|اقرأ|استخرج|النص|نص|لخص",
    re.IGNORECASE,
)
_OPTIONS = re.compile(
    r"(?:^|[\s(（])\(?([A-Da-d1-4])[).．、:：]\s*\S.{0,200}?[\s(（]\(?(?!\1)[B-Eb-e2-5][).．、:：]\s*\S|"
    r"\b(?:options?|choices?|choose|select|pick|which (?:one )?of the following|Optionen|wähle)\b|"
    r"选项|選択肢|选择|以下哪|下列哪",
    re.IGNORECASE | re.DOTALL,
)
_ALTERNATIVE = re.compile(r"\b(?:or|oder|ou)\b|还是|還是|或者|それとも|または|أم |أو ", re.IGNORECASE)
_YES_OR_NO = re.compile(
    r"\s*(?:yes|no|not|true|false|correct|incorrect|ja|nein|oui|non|sí|si|نعم|لا|はい|いいえ|是|不|否|对|没有|有)"
    r"(?:\b|[,，。、.!]|$|的)|[^\n]{0,40}[吗嗎][?？]?\s*$",
    re.IGNORECASE,
)


@lru_cache(maxsize=1024)
def asks_for_given_text(question: str) -> bool:
    """Return whether a question asks for text that is in the picture or in the question, such as to transcribe or to
    translate it."""
    return bool(_GIVEN_TEXT.search(question))


def gives_options(question: str) -> bool:
    """Return whether a question lists answers to choose from, or asks whether it is one or the other."""
    return bool(_OPTIONS.search(question) or _ALTERNATIVE.search(question))


def is_yes_or_no(answer: str) -> bool:
    """Return whether an answer begins with yes or no."""
    return bool(_YES_OR_NO.match(answer))
