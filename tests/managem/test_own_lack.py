"""A worker that lacks what a connection needs tells its own lack, and not that the API cannot be reached."""

from __future__ import annotations

import os
import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.managem.client import MakeApi, fail_to_lock, lock
from tests.managem.raw_host import RawHost, answer, answering

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Meanwhile this process can open no file and no socket."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    next_free = os.dup(0)
    os.close(next_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_call_that_finds_no_file_descriptor_says_so_and_was_never_sent(make_api: MakeApi) -> None:
    async with RawHost(answering(answer())) as host:
        api = make_api(host.url)
        with no_descriptor_left():
            failure = await fail_to_lock(api)
        assert (failure.kind, failure.status, failure.was_sent) == ("no_resources", None, False)
        assert "ulimit -n" in failure.detail
        assert "CONCURRENCY" in failure.detail
        assert (await lock(api)).status == 200
    assert len(host.requests) == 1


async def test_a_name_that_could_not_be_looked_up_for_lack_of_a_descriptor_is_no_name_that_does_not_exist(
    make_api: MakeApi,
) -> None:
    with no_descriptor_left():
        failure = await fail_to_lock(make_api("http://localhost:9"))
    assert failure.kind == "no_resources"


async def test_connections_that_are_open_are_still_used(make_api: MakeApi) -> None:
    async with RawHost(answering(answer())) as host:
        api = make_api(host.url)
        assert (await lock(api)).status == 200
        with no_descriptor_left():
            assert (await lock(api)).status == 200
    assert host.connections == 1
