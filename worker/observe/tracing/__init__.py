"""Records the spans of jobs with OpenTelemetry, where its standard variables ask for it (docs/tracing.md)."""
