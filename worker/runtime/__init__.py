"""The asyncio side of a worker: takes jobs, runs them, settles them and keeps their leases. It imports no Celery."""
