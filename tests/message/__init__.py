"""What comes in: any bytes of the queue become a job or a refusal that names what is wrong."""
