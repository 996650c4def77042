"""Every move of a job, on real servers."""
