"""Python's collector of reference cycles, set for a process that makes and drops many objects and keeps few.

By its defaults it looks through all that Celery and its libraries have loaded again and again, which was a fifth of a
job's CPU time. A job leaves no cycles behind, so it is enough to look rarely, and at the young objects alone.

To import this module is to look rarely from then on. Whoever loads the rest imports it first: the default would look at
the same objects hundreds of times while they are loaded, for a tenth of the start.
"""

from __future__ import annotations

import gc

#: Objects made, less objects dropped, between two looks at the young ones. 200 jobs in flight are about 20,000 objects.
_YOUNG_OBJECTS = 10_000


def freeze_loaded_objects() -> None:
    """Called once all is loaded: what is there now is never looked at again."""
    gc.collect()
    gc.freeze()


gc.set_threshold(_YOUNG_OBJECTS)
