"""``lock-worker exporter``: the metrics of the fleet, with no worker running."""
