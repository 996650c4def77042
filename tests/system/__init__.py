"""The worker as a whole: real servers, real processes, jobs in and events out."""
