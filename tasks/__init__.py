"""What a job does: its fields, its calls to the API, what their answers mean, and its result event."""
