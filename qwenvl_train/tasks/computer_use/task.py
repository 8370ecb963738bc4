"""The next step on a computer: calls of computer_use."""

from qwenvl_train.tasks.computer_use.agentnet import AGENTNET
from qwenvl_train.tasks.computer_use.forms import FORMS
from qwenvl_train.tasks.computer_use.os_atlas import OS_ATLAS
from qwenvl_train.tasks.computer_use.screenspot import PRO, V2
from qwenvl_train.tasks.converter import Task

TASK = Task("computer_use", (AGENTNET, OS_ATLAS, V2, PRO), FORMS)
