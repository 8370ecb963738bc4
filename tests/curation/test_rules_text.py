"""The rules on the words of questions and answers."""

from dataclasses import replace

import pytest

from qwenvl_train.curation.rules import unwanted
from qwenvl_train.data.sample import Coordinates, Reference, Text, ToolCall, Turn
from qwenvl_train.errors import UserError
from tests.curation.clean_rows import region, row
from tests.curation.judging import falls, judged

FIRST = "The picture shows a red car on a road. "


@pytest.mark.parametrize(
    "answer",
    [
        FIRST + "It is standing in front of a",
        FIRST + "Behind the car there are",
        FIRST + "To its left,",
        "The picture shows a red car and",
        "The man (who is wearing a red hat",
        'The sign above the door says "No entry for',
        "It shows a car, a bus, a tram,",
        "The picture shows a dog that is...",
        "The picture shows a dog that is…",
        "The steps are the following ones:",
        "The story is told in three parts. To be continued...",
        "1. Open the lid.\n2. Pour the water.\n3.",
        "- a red cup\n- ",
        "1. Open the lid carefully.\n2. Pour in the water.\n3. Close the lid and wait until",
        FIRST + "It is a well-",
        "```python\nprint(1)\n",
        "See:\n\n```json\n{}",
        "<think>\nI should look at the",
        "图片中有一只狗。它坐在绿色的草",
        "图片中有一只狗，",
        "图片中有红色的汽车和",
        "图片中有一个人（穿着红色",
        "海报上写的是「今天",
        "画像には犬がいます。犬は茶色で、",
        "画像には犬がいます。その隣には赤い",
        "未完待续",
        "Das Bild zeigt einen Hund und",
        "Das Bild zeigt einen Hund. Er liegt auf dem grünen",
        "تظهر الصورة كلبا بنيا كبيرا،",
        "تظهر الصورة كلبا بنيا كبيرا. يجلس الكلب على",
        "Der Hund liegt, weil",
        "Le chien est brun et",
    ],
)
def test_unfinished_answers_fall(answer):
    assert falls("unfinished", answer)


@pytest.mark.parametrize(
    "answer",
    [
        "a red circle",
        "cat",
        "42",
        "3.5 cm",
        "A",
        "Yes",
        "a man riding a wave on top of a surfboard",
        "Vitamin A",
        "Option B",
        "[0, 1)",
        "(a)",
        FIRST,
        FIRST + "The answer is 42",
        FIRST + "It costs 12 €",
        FIRST + "**Answer: yes**",
        FIRST + "It is by Jane Austen",
        FIRST + "See https://example.com/a_(b)",
        "It was painted by Dr. Smith",
        "Wait for me :(",
        "Great! :)",
        "a) red b) blue",
        'He says "Stop!"',
        'The screen is 15" wide.',
        "“A red cup.”",
        '[{"bbox_2d": [1, 2, 3, 4]}]',
        '{"a": ',
        "<table><tr><td>1</td>",
        "| a | b |\n|---|---|\n| 1 | 2 |",
        "Run it:\n\n```bash\nls\n```",
        r"Hence $x = 4",
        FIRST + r"The area is $\frac{1}{2}$",
        "The sun goes down,\nthe wind is still,\nand in the window\nburns a light",
        "1. Milk\n2. Bread\n3. Two apples",
        "- milk\n- bread",
        "图片中有一只狗。",
        "红色",
        "图片中有一只狗。它坐在草地上！",
        "图片中有一只狗。答案：B",
        "图中有红色、蓝色和绿色",
        "他说：“你好。”",
        "画像には犬がいます。",
        "هل هذا كلب؟",
        "कुत्ता भूरा है।",
        "The steps are:\n1. Open the lid.\n2. Close it.",
        "ANNUAL REPORT",
        "Name:",
        "<think>\nLet me see\n</think>\n\nFour",
        "The set is {1, 2, 3}",
        "Hello, World!",
        "e.g. a cup",
    ],
)
def test_whole_answers_stay(answer):
    assert not falls("unfinished", answer)


def test_text_of_a_picture_may_end_anywhere():
    for question in ("Read the text in the picture.", "What does the sign say?", "识别图中的文字。", "Transcribe it."):
        assert not falls("unfinished", "Sale on all shoes. From Monday to Friday and", question)


def test_boxes_and_calls_end_an_answer():
    sample = row("Where?", "", None)
    with_box = replace(
        sample.turns[1], parts=(Text("The "), Reference("cup"), Text(" is at "), Coordinates(region((1, 2))))
    )
    with_call = replace(sample.turns[1], parts=(Text("I will look, and"),), calls=(ToolCall("look", "{}"),))
    for answer in (with_box, with_call):
        assert not judged("unfinished", replace(sample, turns=(sample.turns[0], answer))).falls


def test_thoughts_given_apart_are_finished():
    sample = row("Where?", "On the table", None, thoughts="Let me look, and")
    assert not judged("unfinished", sample).falls


@pytest.fixture
def listed(tmp_path):
    def listed(text: str | bytes) -> str:
        path = tmp_path / "words.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        unwanted.patterns_in.cache_clear()
        return str(path)

    return listed


@pytest.mark.parametrize(
    ("entries", "answer", "is_found"),
    [
        ("cup", "A red CUP.", True),
        ("cup", "A cupboard.", False),
        ("cup", "Two cups", False),
        ("red  cup", "A red\ncup", True),
        ("STRASSE", "Eine Straße", True),
        ("杯子", "红色杯子在左边", True),
        ("杯子", "盘子在左边", False),
        ("/cup\\w*/", "A CUPBOARD.", True),
        ("/^no/", "no cup", False),
        ("# cup", "A cup", False),
        ("\n\n", "A cup", False),
        ("c++", "I like C++ most", True),
        ("c++", "c+ most", False),
        ("a\ncup\nbar", "bars and cups", False),
        ("كلب", "هذا كلب بني", True),
    ],
)
def test_unwanted_words_are_found_as_whole_words(listed, entries, answer, is_found):
    assert falls("unwanted", answer, words=listed(entries)) == is_found


def test_unwanted_words_are_found_in_all_but_system_turns(listed):
    path = listed("cup")
    assert judged("unwanted", row("A cup?", "Yes", None), words=path).falls
    assert judged("unwanted", row("What?", "Yes", None, thoughts="a cup"), words=path).falls
    sample = row("What?", "Yes", None)
    system = Turn("system", (Text("Say nothing about a cup."),), train=False)
    assert not judged("unwanted", replace(sample, turns=(system, *sample.turns)), words=path).falls
    assert judged("unwanted", row("A cup?", "Yes", None), words=None) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("/(/", "words.txt:1 is no regular expression"),
        (b"\xff\xfe", "is no text in UTF-8"),
        (None, "cannot be read: No such file"),
    ],
)
def test_faulty_lists_are_errors(listed, tmp_path, content, message):
    path = listed(content) if content else str(tmp_path / "none.txt")
    with pytest.raises(UserError, match=message):
        judged("unwanted", row("A cup?", "Yes", None), words=path)


TEXTS = {
    "en": "The picture shows a large red circle on a wooden table beside a small cup.",
    "de": "Das Bild zeigt einen großen roten Kreis auf einem Tisch neben einer kleinen Tasse.",
    "fr": "L'image montre un grand cercle rouge sur une table à côté d'une petite tasse.",
    "zh": "图片中有一个红色的圆形，放在木桌上，左边是一个蓝色的小杯子。",
    "ja": "画像には、木のテーブルの上に置かれた大きな赤い円と、小さなカップが写っています。",
    "ar": "تظهر الصورة دائرة حمراء كبيرة على طاولة خشبية بجانب كوب صغير.",
}


@pytest.mark.parametrize("code", TEXTS)
def test_languages_are_told_apart(code):
    assert not falls("language", TEXTS[code], languages=[code])
    assert falls("language", TEXTS[code], languages=[other for other in TEXTS if other != code])
    assert judged("language", row("What?", TEXTS[code], None), languages=None) is None


@pytest.mark.parametrize(
    "answer",
    [
        "ein roter Kreis",
        '{"Beschreibung": "Das Bild zeigt einen großen roten Kreis auf einem Tisch"}',
        "The German text reads: „Das Bild zeigt einen großen roten Kreis auf einem Tisch“, as you can see here.",
    ],
)
def test_short_texts_data_and_quotations_are_not_taken_for_a_language(answer):
    assert not falls("language", answer, languages=["en"])
    assert not falls("language", TEXTS["de"], "What does the sign say?", languages=["en"])


@pytest.mark.parametrize(
    "answer",
    [
        f"{TEXTS['en']} 旁边有一个红色的杯子。",
        "The picture shows 一只棕色的小狗坐在草地上 on a sunny day in the park.",
        f"{TEXTS['zh']}The dog is sitting on the grass.",
        "图片中有一个红色的圆形，and there is a small blue cup on the left，放在木桌上。",
        f"{TEXTS['ar']} There is also a small dog on the left.",
        f"{TEXTS['en']} {TEXTS['de']}",
        f"{TEXTS['de']} {TEXTS['fr']}",
        f"{TEXTS['en']} На столе стоит маленькая чашка.",
        f"{TEXTS['ja']}There is also a small dog on the left.",
        f"{TEXTS['en']} 画像には犬が写っています。",
    ],
)
def test_mixed_languages_fall(answer):
    assert falls("mixed_languages", answer, "What is in the picture?")


@pytest.mark.parametrize(
    "answer",
    [
        *TEXTS.values(),
        "海报的标题是“Never stop exploring the world around you”，意思是永远不要停止探索。",
        "这是一台 Apple MacBook Pro，旁边是 iPhone 15 Pro Max 手机和 Visual Studio Code。",
        "The artist 齐白石 (Qi Baishi) painted it in 1948, and it hangs in Beijing today.",
        "The sign says “小心地滑”, which warns of a wet floor in the hall.",
        "红色的圆形 (a large red circle on a table) 位于图片的左侧，旁边有一个蓝色的杯子。",
        "可以用 `print the whole list in order` 这条命令打印，然后运行程序查看结果。",
        r"由 $\text{let the whole area be}$ 可知，图中三角形的面积等于六平方厘米。",
        "画像にはApple社のMacBook Proが写っていて、画面にはVisual Studio Codeが表示されています。",
        "The café serves crème brûlée and a déjà vu of the old days in Paris.",
        "温度为 25 °C，长度为 12 cm，速度为 3 m/s，重量是 5 kg 左右。",
        "한국의 大學校 건물이 보이고, 그 앞에 나무가 여러 그루 서 있습니다. 하늘은 맑습니다.",
    ],
)
def test_one_language_with_names_and_quotations_stays(answer):
    assert not falls("mixed_languages", answer, "What is in the picture?")


def test_other_languages_that_are_asked_for_stay():
    mixed = f"{TEXTS['en']} 旁边有一个红色的杯子。"
    for question in (
        "Translate the sign.",
        "Describe it in English and Chinese.",
        "读出图中的文字。",
        "请用中文和英文描述。",
    ):
        assert not falls("mixed_languages", mixed, question)
    assert not falls(
        "mixed_languages",
        "图中标出了 the part of the cell wall，它位于左侧，颜色是绿色的。",
        "Where is the part of the cell wall ?",
    )


LEAK = "a red circle on a wooden table beside a small blue cup"


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (f"What is shown? It is {LEAK}.", LEAK),
        (f"{TEXTS['zh']}描述这张图片。", TEXTS["zh"]),
        (f"Was ist zu sehen? Tipp: {TEXTS['de']}", TEXTS["de"]),
        (f"Describe the picture. {TEXTS['ar']}", TEXTS["ar"]),
        (f"Describe it.\n\nHint: {LEAK.upper()}", f"{LEAK}."),
        (f"{TEXTS['ja']} 何が見えますか？", TEXTS["ja"]),
    ],
)
def test_leaked_answers_fall(question, answer):
    verdict = judged("leaked_answer", row(question, answer, None))
    assert verdict.falls
    assert verdict.value > 0.7


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is the man on the left holding in his hand?", "The man on the left is holding a cup in his hand."),
        (f"What is it?\nA. {LEAK}\nB. a dog", LEAK),
        (f"Choose: {LEAK}; a dog in the snow.", LEAK),
        (f"Is it {LEAK} or a dog?", LEAK),
        (f"Is there {LEAK}?", f"Yes, there is {LEAK}."),
        (f"Translate: {LEAK}", LEAK),
        (f"Text: {LEAK}. What is on the table?", LEAK),
        (f"Rewrite this sentence: {LEAK}", LEAK),
        ("What is red?", "red"),
        ("How many of the 12 cups are red?", "12"),
        (f"图中有{TEXTS['zh']}吗？", f"是的，{TEXTS['zh']}"),
        (f"以下哪项正确？A. {TEXTS['zh']} B. 狗", TEXTS["zh"]),
        ("Describe the picture.", LEAK),
        ("", LEAK),
        (f"Ist das {LEAK} oder ein Hund?", LEAK),
        (f"Extract the items from: {LEAK}", LEAK),
        (
            "Detect the red circle on a wooden table",
            '[{"bbox_2d": [1, 2, 3, 4], "label": "red circle on a wooden table"}]',
        ),
    ],
)
def test_answers_that_questions_must_contain_stay(question, answer):
    assert not falls("leaked_answer", answer, question)


def test_leaks_of_earlier_questions_fall():
    first, last = row(f"I see {LEAK}.", "Good.", None), row("What is shown?", LEAK, None)
    assert judged("leaked_answer", replace(first, turns=first.turns + last.turns)).falls


@pytest.mark.parametrize(
    ("limit", "is_over"),
    [
        ({"max_answer_words": 5}, False),
        ({"max_answer_words": 4}, True),
        ({"min_answer_words": 5}, False),
        ({"min_answer_words": 6}, True),
        ({"max_answer_characters": 14}, False),
        ({"max_answer_characters": 13}, True),
        ({"max_question_words": 3}, False),
        ({"max_question_words": 2}, True),
        ({"min_question_words": 3}, False),
        ({"min_question_words": 4}, True),
        ({"max_question_characters": 13}, False),
        ({"max_question_characters": 12}, True),
        ({"max_turns": 1}, False),
    ],
)
def test_lengths_are_limited(limit, is_over):
    verdict = judged("lengths", row("What is this?", "It is 图 ok now", None), "light", **limit)
    assert verdict.falls == is_over


def test_lengths_of_conversations_and_of_calls():
    one = row("What?", "This.", None)
    two = replace(one, turns=one.turns * 2)
    assert judged("lengths", two, "light", max_turns=1).falls
    assert judged("lengths", two, "light") is None
    call = row("What?", "", None, calls=(ToolCall("look", "{}"),))
    assert not judged("lengths", call, "light", min_answer_words=1).falls
