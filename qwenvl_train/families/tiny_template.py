"""The chat templates of the tiny models, which write the same text as the published ones."""

from qwenvl_train.families import FAMILIES

_TEMPLATE = """\
{% set seen = namespace(pictures=0, videos=0) %}\
{% macro words(content) %}{% if content is string %}{{ content }}{% else %}{% for part in content or [] %}\
{% if part.type == 'image' %}{% set seen.pictures = seen.pictures + 1 %}\
{% if add_vision_id %}Picture {{ seen.pictures }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>\
{% elif part.type == 'video' %}{% set seen.videos = seen.videos + 1 %}\
{% if add_vision_id %}Video {{ seen.videos }}: {% endif %}<|vision_start|><|video_pad|><|vision_end|>\
{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}{% endmacro %}\
{% macro called(call) %}{% set asked = call.function or call %}<tool_call>
{"name": "{{ asked.name }}", "arguments": \
{{ asked.arguments if asked.arguments is string else asked.arguments | tojson }}}
</tool_call>{% endmacro %}\
{% set own = messages and messages[0].role == 'system' %}\
{% set system = words(messages[0].content) if own else DEFAULT_SYSTEM %}\
{% if own or system or tools %}<|im_start|>system
{{ system }}{% if tools %}{{ '\\n\\n' if system }}TOOLS_BEFORE\
{% for tool in tools %}{{ '\\n' }}{{ tool | tojson }}{% endfor %}\
{{ '\\n' }}TOOLS_AFTER{% endif %}<|im_end|>
{% endif %}\
{% for message in (messages[1:] if own else messages) %}\
{% if message.role == 'tool' %}{% if loop.previtem is not defined or loop.previtem.role != 'tool' %}<|im_start|>user\
{% endif %}{{ '\\n' }}<tool_response>
{{ words(message.content) }}
</tool_response>{% if loop.nextitem is not defined or loop.nextitem.role != 'tool' %}<|im_end|>
{% endif %}{% else %}<|im_start|>{{ message.role }}
{{ words(message.content) }}{% for call in message.tool_calls or [] %}\
{{ '\\n' if not loop.first or message.content }}{{ called(call) }}{% endfor %}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""The template of the families whose answers have no thoughts, including tools and numbered media."""

_THINKING_TEMPLATE = """\
{% set seen = namespace(pictures=0, videos=0, question=-1) %}\
{% macro words(content, counted=true) %}{% if content is string %}{{ content }}{% else %}\
{% for part in content or [] %}\
{% if part.type == 'image' %}{% set seen.pictures = seen.pictures + counted %}\
{% if add_vision_id %}Picture {{ seen.pictures }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>\
{% elif part.type == 'video' %}{% set seen.videos = seen.videos + counted %}\
{% if add_vision_id %}Video {{ seen.videos }}: {% endif %}<|vision_start|><|video_pad|><|vision_end|>\
{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}{% endmacro %}\
{% macro written(value) %}{% if value is string %}{{ value }}{% elif value is mapping or value is sequence %}\
{{ value | tojson }}{% else %}{{ value | string }}{% endif %}{% endmacro %}\
{% macro called(call) %}{% set asked = call.function or call %}<tool_call>
<function={{ asked.name }}>
{% for key, value in asked.arguments | items %}<parameter={{ key }}>
{{ written(value) }}
</parameter>
{% endfor %}</function>
</tool_call>{% endmacro %}\
{% for message in messages %}{% if message.role == 'user' %}{% set text = words(message.content, false) | trim %}\
{% if not (text.startswith('<tool_response>') and text.endswith('</tool_response>')) %}\
{% set seen.question = loop.index0 %}{% endif %}{% endif %}{% endfor %}\
{% if seen.question < 0 %}{{ raise_exception('There is no question.') }}{% endif %}\
{% set own = messages[0].role == 'system' %}\
{% set system = words(messages[0].content) | trim if own else '' %}\
{% if own or tools %}<|im_start|>system
{% if tools %}TOOLS_BEFORE{% for tool in tools %}{{ '\\n' }}{{ tool | tojson }}{% endfor %}\
{{ '\\n' }}TOOLS_AFTER{{ '\\n\\n' if system }}{% endif %}{{ system }}<|im_end|>
{% endif %}\
{% for message in messages %}{% set text = words(message.content) | trim %}\
{% if message.role == 'user' %}<|im_start|>user
{{ text }}<|im_end|>
{% elif message.role == 'assistant' %}<|im_start|>assistant
{% set thought = '' %}\
{% if message.reasoning_content is string %}{% set thought = message.reasoning_content | trim %}\
{% elif '</think>' in text %}{% set thought = text.split('</think>')[0].split('<think>')[-1] | trim %}\
{% set text = text.split('</think>')[-1].lstrip('\\n') %}{% endif %}\
{% if loop.index0 > seen.question %}<think>
{{ thought }}
</think>

{% endif %}{{ text }}{% for call in message.tool_calls or [] %}\
{{ '\\n' if not loop.first else '\\n\\n' if text | trim }}{{ called(call) }}{% endfor %}<|im_end|>
{% elif message.role == 'tool' %}{% if loop.previtem is not defined or loop.previtem.role != 'tool' %}<|im_start|>user\
{% endif %}{{ '\\n' }}<tool_response>
{{ text }}
</tool_response>{% if loop.nextitem is not defined or loop.nextitem.role != 'tool' %}<|im_end|>
{% endif %}{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
<think>
{% if not enable_thinking %}

</think>

{% endif %}{% endif %}"""
"""The template of Qwen3.5 without thinking by default."""


def chat_template(model_type: str) -> str:
    """Return the chat template of a family.

    The templates of Qwen2-VL and Qwen2.5-VL add a default system turn. All templates support tools, unlike the
    published ones of these two.
    """
    family = FAMILIES[model_type]
    template = _TEMPLATE if family.chat.thinking is None else _THINKING_TEMPLATE
    tools = family.chat.tools
    template = template.replace("DEFAULT_SYSTEM", f"'{family.default_system or ''}'")
    return template.replace("TOOLS_BEFORE", tools.before).replace("TOOLS_AFTER", tools.after.lstrip("\n"))
