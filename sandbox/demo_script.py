"""The faults of the demo: the prefix of an id decides what happens to its calls."""

from __future__ import annotations

from sandbox.faults import Drop, Respond
from sandbox.script import Rule, Script

DEMO_SCRIPT = Script(
    rules=(
        Rule(ids="missing*", then=Respond(status=404)),
        Rule(ids="forbidden*", then=Respond(status=403)),
        Rule(ids="busy*", nth_call=1, then=Respond(status=429, headers={"Retry-After": "1"})),
        Rule(ids="flaky*", nth_call=1, then=Respond(status=503)),
        Rule(ids="flaky*", nth_call=2, then=Drop(at="request", reset=True)),
    )
)
