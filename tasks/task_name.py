"""The name of the task, for those who send, read or run it and need nothing else of it."""

TASK_NAME = "moderation.lock_conversation"
