"""The next step on a phone: a call of mobile_use."""

from qwenvl_train.tasks.agents.steps import FORMS
from qwenvl_train.tasks.converter import Task
from qwenvl_train.tasks.mobile_agent.aitw import AITW
from qwenvl_train.tasks.mobile_agent.amex import AMEX
from qwenvl_train.tasks.mobile_agent.android_control import ANDROID_CONTROL
from qwenvl_train.tasks.mobile_agent.odyssey import ODYSSEY

TASK = Task("mobile_agent", (ANDROID_CONTROL, ODYSSEY, AITW, AMEX), FORMS)
