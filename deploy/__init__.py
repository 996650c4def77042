"""What an operator deploys beside the worker: alert rules and a dashboard."""
