"""The dashboard for Grafana: its code, and the JSON that it makes."""
