"""What is done: jobs, conversations, the API and its answers, and how each job ends."""
