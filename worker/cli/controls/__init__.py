"""What the commands that steer a fleet share: their options, what they write to Redis, and the wait for the workers."""
