"""One module a queue: its worker's app and how jobs are enqueued. It runs in that queue's environment."""
