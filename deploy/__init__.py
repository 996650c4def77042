"""What an operator deploys beside the worker: alert rules, a dashboard, manifests, a unit and compose files."""
