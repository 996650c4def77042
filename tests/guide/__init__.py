"""Read this folder first. Each test is one promise of the product, end to end: what goes in, and what comes out.

Everything is real: a Redis server, a Managem API that fails as scripted (``sandbox``), the worker as an operator starts
it. ``stage`` is all of it in one hand (``tests/system/stage.py``). Read in this order:

1. ``test_one_job``: a job is locked and told once; any language can send one; a bad message is told and kept.
2. ``test_api_in_trouble``: a failed call is tried again; an API that asks for fewer calls costs no job an attempt.
3. ``test_workers_die``: the jobs of a killed worker are taken again, each with one event.
4. ``test_same_job_again``: a duplicate is dropped.
5. ``test_kinds_of_jobs``: a job for later; a dry run.
6. ``test_afterwards``: a dead letter is replayed; a consumer group reads the stream; status says where all stands.

What the other folders hold:

| folder | what its tests are about |
| --- | --- |
| ``system`` | the whole worker in depth: each answer of the API, each trouble of Redis, a death at each point |
| ``cli`` | the command ``lock-worker``, as a shell runs it |
| ``tasks``, ``message``, ``managem`` | what is done: the job, the bytes that it comes in, the call |
| ``broker`` | each atomic move in Redis, its Lua file and what stands in Redis after it |
| ``runtime``, ``flow_control``, ``observe``, ``celery_bridge`` | the parts of the worker between the two |
| ``model`` | every move of three workers in every order that hypothesis can think of, against a model in Python |
| ``chaos`` | real fleets that are killed, stalled and starved, and a judge who asks what came of every job |
| ``upgrade`` | workers of the release before beside those of this version, and jobs that only a newer one can read |
| ``image`` | the container image, built and run without rights; only by ``make image-test`` |
| ``sandbox`` | the API and the Redis server that the tests and the demo start |
| ``deploy`` | alerts and dashboard, on a real Prometheus and Alertmanager that watch real workers |
| ``docs``, ``benchmarks`` | that the pages say what the code does and what was measured |
"""
