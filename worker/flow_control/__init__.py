"""When to hold back: gates that each admit so many jobs, or say how long to wait and why; none costs an attempt."""
