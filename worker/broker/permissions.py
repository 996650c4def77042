"""Asks a server which commands its access control list forbids this user, without running any of them.

The moves ask the same of the server before they change anything. A test holds this list against their scripts, and
against what ``docs/redis.md`` gives a user. It needs no right but ``EVAL``; ``ACL DRYRUN`` needs an administrator's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker.broker.keys import Keys, ledger_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from redis import Redis

#: Changes nothing. A command that the server does not know counts as allowed: the check of the server tells of that.
_PROBE = """#!lua flags=no-writes
if not redis.acl_check_cmd then
  return false
end
local refused = {}
for at, text in ipairs(ARGV) do
  local asked, is_allowed = pcall(redis.acl_check_cmd, unpack(cjson.decode(text)))
  if asked and not is_allowed then
    refused[#refused + 1] = at
  end
end
return refused
"""


@dataclass(frozen=True, slots=True)
class Names:
    """What the commands are for: the queue's keys, the results stream and channel, the dead and the control stream."""

    keys: Keys
    results: str
    dead: str
    control: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A command that a user may not run, and on which keys."""

    command: str
    on: tuple[str, ...]

    @property
    def rule(self) -> str:
        """The rule of an access control list that allows the command, such as ``+xinfo|groups``."""
        return f"+{self.command.lower().replace(' ', '|')}"


def refused_commands(client: Redis, names: Names) -> list[Refused] | None:
    """Return what the user may not do of all that a worker does; None if the server cannot tell. It changes nothing.

    Raises:
        RedisError: the server does not run scripts for this user, was lost, or took too long.
    """
    needed = list(needed_commands(names))
    answer: Any = client.eval(_PROBE, 0, *[json.dumps(command) for command, _, _ in needed])
    if answer is None:
        return None
    keys: dict[str, list[str]] = {}
    for at in answer:
        _, name, key = needed[at - 1]
        keys.setdefault(name, []).append(key)
    return [Refused(name, tuple(on)) for name, on in keys.items()]


def needed_commands(names: Names) -> Iterator[tuple[Sequence[str], str, str]]:
    """Yield each command that a worker runs on a key, as words that the server can judge, its name, and the key."""
    for kind in (_of_lists, _of_jobs, _of_the_queue, _of_the_fleet, _of_streams):
        for commands, found in kind(names.keys, names):
            for words in (command.split() for command in commands.split(",")):
                name = " ".join(words[: words.index("$")])
                for key in found:
                    yield [{"$": key, "@": names.keys.arrived}.get(word, word) for word in words], name, key
    for words in (["TIME"], ["EVALSHA", "x", "0"]):
        yield words, words[0], "no key"


# In the commands below, $ stands for each of the keys beside them, and @ for the list of messages that woke a worker.


def _of_lists(keys: Keys, _: Names) -> Iterator[tuple[str, Sequence[str]]]:
    yield "RPOP $,LPOP $,LLEN $,LPUSH $ x,RPUSH $ x,TYPE $,EXISTS $,BLMOVE $ @ RIGHT LEFT 1", keys.priority_lists
    yield "RPOP $,LPOP $,LLEN $,TYPE $", [keys.arrived]
    again = [keys.requeued, keys.retries, keys.suspects]
    yield "LPOP $,LPUSH $ x,RPUSH $ x,LPOS $ x,LREM $ 1 x,LLEN $,TYPE $,EXISTS $", again


def _of_jobs(keys: Keys, _: Names) -> Iterator[tuple[str, Sequence[str]]]:
    yield "HSET $ x x,HGET $ x,HMGET $ x,DEL $", [f"{keys.record_prefix}x"]
    yield "GET $,SET $ x,MGET $", [f"{keys.id_prefix}x"]
    yield "ZADD $ 0 x,ZREM $ x,ZRANGE $ 0 0,ZCARD $,TYPE $", [keys.leases, keys.delayed, keys.deadlines, keys.held]
    yield "ZLEXCOUNT $ - +", [keys.held]
    yield "ZCOUNT $ 0 0", [keys.delayed]


def _of_the_queue(keys: Keys, _: Names) -> Iterator[tuple[str, Sequence[str]]]:
    yield "HINCRBY $ x 1,HGETALL $,TYPE $", [keys.counters, keys.maintenance]
    yield "HSET $ x x,HGET $ x,HMGET $ x", [keys.maintenance, keys.arrivals]
    yield "LINDEX $ 0,RPUSH $ x,LTRIM $ 0 0,PEXPIRE $ 1,LRANGE $ 0 0", [keys.samples]
    yield "GET $,SET $ x,DEL $,EXISTS $,TYPE $", [keys.draining]
    yield "HGET $ x,HSET $ x x,PEXPIRE $ 1", [keys.lost_takes]


def _of_the_fleet(keys: Keys, _: Names) -> Iterator[tuple[str, Sequence[str]]]:
    yield "HSET $ x x,HGETALL $,HDEL $ x,PEXPIRE $ 1", [keys.workers]
    yield "ZADD $ 0 x,ZRANGE $ 0 0,ZREM $ x", [keys.queues]
    yield "GET $,SET $ x,PTTL $,EXISTS $,TYPE $", [keys.pause]
    yield "GET $,SET $ x", [keys.rate]
    yield "DEL $,HGET $ x,HMGET $ x,HSET $ x x,TYPE $", [keys.limit]
    yield "HGET $ x,HMGET $ x,HGETALL $,HEXISTS $ x,HLEN $,HSET $ x x,HDEL $ x,TYPE $", [keys.controls]
    yield "EXISTS $,PTTL $,SET $ x,TYPE $", [keys.cancelled]
    yield "GET $,MGET $,SET $ x", [f"{keys.cancelled_prefix}x"]
    yield "HGETALL $,HDEL $ x,HINCRBY $ x 1,PEXPIRE $ 1,DEL $", [f"{keys.rules_prefix}x"]


def _of_streams(_: Keys, names: Names) -> Iterator[tuple[str, Sequence[str]]]:
    streams = [names.results, names.dead]
    yield "XADD $ * x x,XLEN $,XTRIM $ MAXLEN 0,XREVRANGE $ + -,XINFO GROUPS $,XINFO STREAM $", streams
    yield "MEMORY USAGE $,TYPE $", streams
    yield "GET $,SET $ x", [ledger_of(stream) for stream in streams]
    yield "XDEL $ 0-1", [names.dead]
    yield "XADD $ * x x,TYPE $", [names.control]
    yield "PUBLISH $ x", [names.results]
