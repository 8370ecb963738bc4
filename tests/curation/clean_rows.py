# ruff: noqa: E501
"""Rows without faults, of several tasks and languages, many of them close to a fault: captions without a full stop,
tables with equal numbers, questions that list their answers, Chinese with English names."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image as Pillow
from PIL import ImageDraw

from qwenvl_train.data.sample import Image, Region, Sample, Text, ToolCall, Turn

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")
SHAPES = ("circle", "square", "triangle", "star", "hexagon")
PLACES = ("on a wooden table", "beside a narrow road", "in front of a brick wall", "under a large tree")
ZH_COLOURS = dict(zip(COLOURS, ("红色", "绿色", "蓝色", "黄色", "紫色", "橙色"), strict=True))
ZH_SHAPES = dict(zip(SHAPES, ("圆形", "正方形", "三角形", "星形", "六边形"), strict=True))
GET_WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {}, "unit": {}}, "required": ["city"]},
    },
}


def row(question: str, answer: str, picture: Path | None, **more: Any) -> Sample:
    """Return a sample of one question about one picture. `more` goes to the answer or, for tools, to the sample."""
    tools = more.pop("tools", ())
    media = (Image(str(picture)),) if picture else ()
    turns = (
        Turn("user", (*media, Text(question)), train=False),
        Turn("assistant", (Text(answer),) if answer else (), train=True, **more),
    )
    return Sample("row", "rows.jsonl", 1, turns, tools=tools)


def drawn(path: Path, rng: random.Random, size: tuple[int, int] = (160, 120)) -> Path:
    """Draw a picture with a shape and some lines."""
    picture = Pillow.new("RGB", size, tuple(rng.randrange(200, 256) for _ in range(3)))
    pen = ImageDraw.Draw(picture)
    x, y = rng.randrange(10, size[0] // 2), rng.randrange(10, size[1] // 2)
    pen.ellipse((x, y, x + size[0] // 3, y + size[1] // 3), fill=tuple(rng.randrange(0, 160) for _ in range(3)))
    for _ in range(3):
        pen.line([rng.randrange(side) for side in (*size, *size)], fill=(0, 0, 0), width=2)
    picture.save(path)
    return path


def caption(rng: random.Random) -> tuple[str, str]:
    colour, other, shape, place = rng.choice(COLOURS), rng.choice(COLOURS), rng.choice(SHAPES), rng.choice(PLACES)
    return rng.choice(
        [
            ("Describe the picture.", f"a {colour} {shape} {place} next to a {other} cup"),
            (
                "Describe the picture in detail.",
                f"The picture shows a {colour} {shape} {place}. To its left there is a {other} cup, which is half full. "
                f"The light comes from the right, so that the {shape} throws a long shadow. In the background, two "
                "people are walking away from the camera.",
            ),
            (
                "Beschreibe das Bild.",
                f"Das Bild zeigt einen Gegenstand in der Farbe {colour}, der auf einem Tisch liegt. Daneben steht eine "
                "Tasse, die noch halb voll ist. Im Hintergrund gehen zwei Personen spazieren.",
            ),
            ("صف الصورة.", "تظهر الصورة دائرة حمراء كبيرة على طاولة خشبية، وبجانبها كوب أزرق صغير. الخلفية بيضاء تماما."),
            ("この画像を説明してください。", "画像には、木のテーブルの上に置かれた赤いカップと、その横にあるApple社のノートパソコンが写っています。背景は白い壁です。"),
            ("อธิบายภาพนี้", "ภาพนี้แสดงวงกลมสีแดงขนาดใหญ่บนโต๊ะไม้ และมีถ้วยสีน้ำเงินอยู่ข้างๆ"),
        ]
    )  # fmt: skip


def question_answer(rng: random.Random) -> tuple[str, str]:
    colour, shape, count = rng.choice(COLOURS), rng.choice(SHAPES), rng.randrange(2, 40)
    return rng.choice(
        [
            (f"What colour is the {shape}?", colour),
            (f"How many {shape}s are there?", str(count)),
            (f"How many {shape}s are there? Explain.", f"I count them row by row. There are {count} {shape}s in total, so the answer is {count}"),
            (f"Is there a {colour} {shape} in the picture?", f"Yes, there is a {colour} {shape} in the picture."),
            (f"Is the {shape} on the left {colour} or is the {shape} on the right {colour}?", f"The {shape} on the right is {colour}."),
            ("What is the man on the left holding in his right hand?", "The man on the left is holding an umbrella in his right hand."),
            ("Which vitamin does the fruit have most of?", "Vitamin C"),
            ("Who wrote the book on the table?", "The book is by J. R. R. Tolkien"),
            (f"What is in the picture?\nA. a {colour} {shape} on a wooden table\nB. a dog in the snow\nAnswer with the text of the option.", f"a {colour} {shape} on a wooden table"),
            ("What is the gauge reading, and is it normal?", "The gauge reads 4.2 bar. Normal range: 3 to 5 bar"),
            ("What should I do next?", "Do these things:\n1. Switch the device off.\n2. Wait for a minute.\n3. Switch it on again."),
            ("What is on the list?", "- milk\n- bread\n- two apples"),
            ("What is she saying in the comic?", 'She says: "I will be back soon!"'),
            ("How large is the screen?", 'The screen is 15" wide and 9" high.'),
            ("Is this mood happy?", "Yes, the mood is happy :)"),
            ("Write a poem about the picture.", "The sun goes down behind the hill,\nthe river sleeps, the wind is still,\nand in the window, warm and bright,\na candle keeps away the night"),
        ]
    )  # fmt: skip


def text_of_picture(rng: random.Random) -> tuple[str, str]:
    price = rng.randrange(2, 99)
    return rng.choice(
        [
            ("Read all the text in the picture.", f"GRAND OPENING\nSaturday, June {price % 30 + 1}\nFree coffee for the first {price} guests and"),
            ("What does the sign say?", "No parking from 8 to 18. Towing at the owner's expense and"),
            ("Transcribe the receipt.", f"Milk 1.20\nMilk 1.20\nBread {price}.00\nTotal:"),
            ("识别图中的文字。", f"特价 {price} 元，\n欢迎光临 WELCOME TO OUR NEW SHOP ON MAIN STREET"),
            ("What is the title of the document?", "Annual Report (2023)"),
            ("Translate the sign into English.", "Caution: the floor is wet"),
            ("Convert the picture of the formula to LaTeX.", r"$$\sum_{i=1}^{n} \left[ x_i, y_i \right) = \frac{a}{b}$$"),
            ("What does the label on the bottle say?", "The label says “Eau de parfum – fabriqué en France avec des fleurs de Grasse” in gold letters."),
        ]
    )  # fmt: skip


def document(rng: random.Random) -> tuple[str, str]:
    left, cells = rng.randrange(20, 200), [rng.randrange(0, 3) for _ in range(12)]
    rows = "".join(
        f"<tr><td>{a}</td><td>{b}</td><td></td><td></td></tr>\n" for a, b in zip(cells[::2], cells[1::2], strict=True)
    )
    html = (
        f'<html><body>\n<h1 data-bbox="{left} 40 {left + 300} 80">Invoice</h1>\n<p data-bbox="{left} 100 {left + 300} '
        f'140">Dear customer,<br>we send you a list of all items:</p>\n<table data-bbox="{left} 160 {left + 400} 420">'
        f"{rows}</table>\n"
        f'<div class="image" data-bbox="{left} 500 {left + 90} 590"><img data-bbox="{left} 500 {left + 90} 590"/></div>\n'
        "<ul><li>one<li>two</ul>\n</body></html>"
    )
    zeros = "\n".join(f"| Item {index} | 0 | 0 | 0 | 0 | {cells[index]} |" for index in range(6))
    markdown = f"Here is the table:\n\n| Name | a \\| b | `c|d` | e | f | g |\n|---|:-:|---|---|---|--:|\n{zeros}"
    return rng.choice(
        [
            ("QwenVL HTML", html),
            ("Parse the page as HTML.", f"```html\n{html}\n```"),
            ("Give the table as Markdown.", markdown),
            ("What is the <br> tag for?", "The <br> tag breaks a line, and <div> groups elements."),
            ("Extract the table.", "Name | Age\n--- | ---\nAnna | 31\nBen | 7"),
        ]
    )


def grounding(rng: random.Random) -> tuple[str, str]:
    shape = rng.choice(SHAPES)
    left, top = rng.randrange(0, 60), rng.randrange(0, 40)
    boxes = [
        {"bbox_2d": [left + 10 * index, top, left + 10 * index + 9, top + 30], "label": shape} for index in range(5)
    ]
    fields = {"name": "Müller GmbH", "total": "12,50 €", "items": [], "note": "see [1], {draft}"}
    return rng.choice(
        [
            (f"Locate every {shape}. Answer in JSON.", json.dumps(boxes)),
            (f"Locate every {shape}.", f"```json\n{json.dumps(boxes, indent=2)}\n```"),
            (f"Point to the {shape}.", json.dumps([{"point_2d": [left, top], "label": shape}])),
            ("Is there a lion?", "There is none: []"),
            ("Extract the fields as JSON.", json.dumps(fields, ensure_ascii=False, indent=1)),
            ("Give one object per line.", "\n".join(map(json.dumps, boxes))),
            (f"Where is the {shape}?", f"<|object_ref_start|>{shape}<|object_ref_end|><|box_start|>({left},{top}),({left + 50},{top + 40})<|box_end|>"),
            ("Which set is shaded?", "{x | x > 0} is shaded, which is the interval (0, 1]."),
            ("Which source is cited?", "[1] Smith, A. and Jones, B. The art of maps"),
        ]
    )  # fmt: skip


def chinese(rng: random.Random) -> tuple[str, str]:
    colour, other, shape = rng.choice(COLOURS), rng.choice(COLOURS), rng.choice(SHAPES)
    zh, zh_other, zh_shape = ZH_COLOURS[colour], ZH_COLOURS[other], ZH_SHAPES[shape]
    return rng.choice(
        [
            ("描述这张图片。", f"图片中有一个{zh}的{zh_shape}，放在木桌上。左边是一个{zh_other}的杯子，里面装着半杯水。光线从右侧照进来，在桌面上留下长长的影子。"),
            ("图中有什么？", f"一个{zh}的{zh_shape}"),
            ("这是什么品牌？", "这是一台 Apple MacBook Pro 笔记本电脑，旁边放着一部 iPhone 15 Pro Max 手机，屏幕上显示着 Visual Studio Code。"),
            (f"图中有{zh}的{zh_shape}吗？", f"有，图中有一个{zh}的{zh_shape}。"),
            ("图表说明了什么？", "从图表可以看出：\n1. 销售额逐年上升；\n2. 成本基本持平；\n3. 利润在2023年达到最高。"),
            ("海报的标题是什么意思？", "海报的标题是“Never stop exploring the world around you”，意思是永远不要停止探索周围的世界。"),
            ("求三角形的面积。", r"由勾股定理得 $a^2+b^2=c^2$，所以面积为 $\frac{1}{2}ab=6$。答案：6"),
            ("Who painted it?", "It was painted by the Chinese artist 齐白石, whose name is pronounced Qi Baishi, in the year 1948."),
        ]
    )  # fmt: skip


def program(rng: random.Random) -> tuple[str, str]:
    width = rng.randrange(3, 30)
    code = f"for (int i = 0; i < {width}; i++) {{\n    if (a[i] < 0) {{\n        return -1;\n    }}\n}}\nif (b < 0) {{\n    return -1;\n}}"
    return rng.choice(
        [
            ("Write the code in the picture.", f"```c\n{code}\n```"),
            ("What does the code do?", f"It looks for a negative number:\n\n```c\n{code}\n```"),
            ("How do I install it?", "Run this command:\n\n```bash\npip install qwen && pip list\n```\n\nThen start it with `qwen [options`."),
            ("Solve the task.", "<think>\nLet me see. The base is 6 cm and the height is 4 cm. The area is half of their product.\n</think>\n\nThe area is 12 cm²."),
            ("Solve the task step by step.", r"The base is 6 and the height is 4. Hence the area is $\frac{1}{2}\cdot 6\cdot 4 = 12$. \boxed{12}"),
            ("Solve it.", "First, multiply both sides by two. Then subtract three from both sides.\n\n**Answer:** x = 7"),
        ]
    )  # fmt: skip


def hard(rng: random.Random) -> tuple[str, str]:
    """Rows that are right, but come so near to a fault that some rules take them for one."""
    colour, shape, place = rng.choice(COLOURS), rng.choice(SHAPES), rng.choice(PLACES)
    return rng.choice(
        [
            ("Describe all pictures.", "\n".join(f"Picture {index}: a {colour} {shape} {place}." for index in range(1, 6))),
            ("Write a song.", "Row, row, row your boat,\ngently down the stream,\nmerrily, merrily, merrily, merrily,\nlife is but a dream.\n" * 2),
            ("Are the lines parallel?", f"Both lines cross the {colour} one at a right angle. Therefore they are parallel to each other"),
            ("图中有什么？", f"图中有一个{ZH_COLOURS[colour]}的{ZH_SHAPES[shape]}。它放在木桌的左边"),
            ("Describe the picture.", f"A {colour} {shape} stands {place}. Photo by our own reporter"),
            ("What is the slogan about?", "It is about sports shoes, and it goes: just do it..."),
            (f"Explain why the {colour} {shape} {place} is so large.", f"The {colour} {shape} {place} is so large because it is near."),
            (f"The caption is: a {colour} {shape} {place}. Is it right? If so, say it.", f"a {colour} {shape} {place}"),
            ("这个按钮有什么功能？", "这个按钮的功能是 sign in with your email address，点击之后会进入登录页面，然后需要输入密码。"),
            ("What is on the menu?", "The menu has three dishes, which are soupe à l'oignon, boeuf bourguignon and a tarte aux pommes with cream."),
            ("What does div mean?", "<div> is a block element, and groups other elements."),
            ("Show the schema.", '```json\n{"name": "a string", // required\n "age": 7}\n```'),
            ("Give the table.", f"| x | |x| |\n|---|---|\n| -1 | 1 |\n| {rng.randrange(9)} | 2 |"),
            ("Where is the horizontal line? Answer in JSON.", f'[{{"bbox_2d": [10, {rng.randrange(9, 99)}, 90, {rng.choice((50, 60))}], "label": "line"}}]'),
            ("How do I say it in the shop?", "You point at the bread and say: ein Brot bitte, und dann noch zwei von den kleinen Brötchen da oben."),
            ("Continue the code.", "Sure. Add this to the page:\n\n```html\n  <td>7</td>\n</tr>\n```"),
        ]
    )  # fmt: skip


def call(rng: random.Random) -> Sample:
    city = rng.choice(("Berlin", "北京", "São Paulo"))
    json_call = json.dumps({"name": "get_weather", "arguments": {"city": city}}, ensure_ascii=False)
    xml = f"<tool_call>\n<function=get_weather>\n<parameter=city>\n{city}\n</parameter>\n</function>\n</tool_call>"
    question, tools = f"What is the weather in {city}?", (GET_WEATHER,)
    return rng.choice(
        [
            row(question, f"<tool_call>\n{json_call}\n</tool_call>", None, tools=tools),
            row(question, f"I will look that up\n\n{xml}\n{xml}", None, tools=tools),
            row(question, "", None, tools=tools, calls=(ToolCall("get_weather", json.dumps({"city": city})),)),
            row(question, "Let me look, and", None, tools=tools, calls=(ToolCall("get_weather", '{"city": "Rome"}'),)),
            row(question, "It is sunny and 21 °C.", None, tools=tools),
        ]
    )


TASKS: tuple[Callable[[random.Random], tuple[str, str] | Sample], ...] = (
    caption, question_answer, text_of_picture, document, grounding, chinese, program, call, hard,
)  # fmt: skip


def clean_rows(folder: Path, seed: int = 0, each: int = 36) -> Iterator[Sample]:
    """Yield rows of all tasks in turn."""
    rng = random.Random(seed)
    pictures = [drawn(folder / f"clean-{index}.png", rng) for index in range(8)]
    for _ in range(each):
        for task in TASKS:
            made = task(rng)
            yield made if isinstance(made, Sample) else row(*made, rng.choice(pictures))


def region(box: tuple[float, ...], image: int = 0) -> Region:
    return Region(box, "shape", image)
