"""Understanding videos: when events happen, captions, and questions."""

from qwenvl_train.tasks.converter import Task
from qwenvl_train.tasks.video.activitynet import ACTIVITYNET
from qwenvl_train.tasks.video.charades import CHARADES
from qwenvl_train.tasks.video.clips import FORMS
from qwenvl_train.tasks.video.qvhighlights import QVHIGHLIGHTS
from qwenvl_train.tasks.video.records import RECORDS

TASK = Task("video", (ACTIVITYNET, CHARADES, QVHIGHLIGHTS, RECORDS), FORMS)
