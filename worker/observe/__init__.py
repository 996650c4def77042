"""What an operator sees of a worker from outside."""
