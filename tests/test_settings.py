"""Settings are right as a whole, or one message names every problem; no secret shows."""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING

import pytest
import trustme

import settings
from settings import Settings, SettingsError, load
from worker.broker.credential_files import read_password

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Environment = Callable[..., None]

SECRET = "s3cr%2Fet"
NO_REDIS_URL = (
    "REDIS_URL: must start with redis://, rediss://, valkey:// or valkeys://; redis+sentinel:// with Sentinel, "
    "redis+cluster:// with Redis Cluster"
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Environment:
    """An environment without any of the options, and a way to set some."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name, raising=False)

    def put(**options: object) -> None:
        for name, value in options.items():
            monkeypatch.setenv(name, str(value))

    return put


def problems(*, need_token: bool = False) -> list[str]:
    """What is wrong, a line each."""
    with pytest.raises(SettingsError) as caught:
        load(need_token=need_token)
    head, *lines = str(caught.value).splitlines()
    assert head == "the settings are wrong:"
    assert all(line.startswith("  - ") for line in lines)
    return [line.removeprefix("  - ") for line in lines]


def test_authorities_that_cannot_be_read_are_reported_with_all_other_problems(
    environment: Environment, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    for name, value, wrong in (
        ("SSL_CERT_FILE", tmp_path / "missing.pem", "cannot be read (FileNotFoundError)"),
        ("SSL_CERT_FILE", empty, "holds no certificate in PEM format"),
        ("SSL_CERT_FILE", tmp_path, "cannot be read"),
        ("SSL_CERT_DIR", tmp_path / "missing", "is no folder"),
    ):
        environment(SSL_CERT_FILE="", SSL_CERT_DIR="", API_TOKEN="t", CONCURRENCY=0)
        environment(**{name: value})
        found = problems(need_token=True)
        assert len(found) == 2
        assert found[1].startswith(f"{name}: {value} {wrong}")
        environment(API_URL="http://127.0.0.1:8080", CONCURRENCY=1)
        load(need_token=True)  # nothing is verified
        environment(API_URL="", SSL_CERT_FILE="", SSL_CERT_DIR="")


def test_authorities_are_no_matter_for_what_does_not_call_the_api(environment: Environment) -> None:
    environment(SSL_CERT_FILE="/missing.pem")
    load(need_token=False)


def test_every_option_has_a_default() -> None:
    found = load(need_token=False)
    assert found.REDIS_URL.get_secret_value() == "redis://127.0.0.1:6379/0"
    assert found.API_URL == "https://api.managem.co.uk"
    assert (found.LOCK_QUEUE, found.RESULTS_CHANNEL) == ("moderation.lock", "moderation.results")
    assert (found.MAX_ATTEMPTS, found.CONCURRENCY, found.LEASE_SECONDS) == (8, 100, 30.0)
    assert (found.RATE_LIMIT_PER_SECOND, found.BREAKER_FAILURES) == (None, 10)


def test_an_empty_variable_counts_as_not_set(environment: Environment) -> None:
    environment(API_TOKEN="", MAX_ATTEMPTS="", REDIS_URL="")
    assert load(need_token=False).API_TOKEN is None


def test_every_problem_is_named_at_once(environment: Environment, tmp_path: Path) -> None:
    environment(
        REDIS_URL="http://x",
        REDIS_CA_FILE=tmp_path / "none.pem",
        RESULTS_CHANNEL="moderation.lock",
        RESULTS_MAXLEN="many",
        API_URL="http://api.example.org",
        API_TOKEN_FILE=tmp_path / "none",
        ATTEMPT_TIMEOUT_SECONDS=60,
        RETRY_BASE_SECONDS=400,
        HEALTH_PORT=70000,
        LOG_FORMAT="xml",
    )
    assert problems(need_token=True) == [
        NO_REDIS_URL,
        "REDIS_CA_FILE: cannot be read (FileNotFoundError)",
        "RESULTS_CHANNEL: must differ from LOCK_QUEUE",
        "RESULTS_MAXLEN: Input should be a valid integer, unable to parse string as an integer",
        "API_URL: plain http would show the token to the network; use https, or set API_ALLOW_HTTP=true",
        "API_TOKEN_FILE: cannot be read (FileNotFoundError)",
        "RETRY_MAX_DELAY_SECONDS: must not be below RETRY_BASE_SECONDS (400)",
        "LEASE_SECONDS: must be longer than ATTEMPT_TIMEOUT_SECONDS (60), or a job could be taken over during a call",
        "HEALTH_PORT: Input should be less than or equal to 65535",
        "LOG_FORMAT: Input should be 'json' or 'console'",
    ]


def test_a_check_of_two_options_leaves_a_wrong_one_to_its_own_message(environment: Environment) -> None:
    environment(ATTEMPT_TIMEOUT_SECONDS="long", RETRY_BASE_SECONDS="nan", API_ALLOW_HTTP="maybe", API_URL="http://a.b")
    assert [problem.partition(":")[0] for problem in problems()] == [
        "API_ALLOW_HTTP",
        "ATTEMPT_TIMEOUT_SECONDS",
        "RETRY_BASE_SECONDS",
    ]


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://h:6380/15",
        "redis://h/",
        "rediss://user:p%40ss%2Fw%3Frd%23@h:6380/0",
        "redis://:p@ss@h",
        "valkey://[::1]:6379",
        "valkeys://h",
        " redis://h\n",
        "redis+sentinel://:p%40@h1,[::1]:26380,h3/mymaster/2",
        "rediss+sentinel://h1/mymaster",
        "redis+sentinel://h1,h2/mymaster/",
    ],
)
def test_a_redis_url_in_any_usual_form_is_taken(environment: Environment, url: str) -> None:
    environment(REDIS_URL=url)
    found = load(need_token=False)
    assert found.REDIS_URL.get_secret_value() == url.strip()
    assert found.redis_is_tls is url.startswith(("rediss", "valkeys"))


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://h", "must start with redis://"),
        ("unix:///run/redis.sock", "must start with redis://"),
        ("h:6379", "must start with redis://"),
        ("redis:///0", "names no host"),
        ("redis://:6379", "names no host"),
        (f"redis://:{SECRET}@", "names no host"),
        ("redis://h:port", "is not a URL: its host or port cannot be read; write special characters in a password "),
        ("redis://h:65536", "is not a URL: its host or port cannot be read"),
        ("redis://h:0", "must name a port from 1 to 65535"),
        ("redis://[::1", "is not a URL: its host or port cannot be read"),
        ("redis://redis..svc", "is not a URL: its host or port cannot be read"),
        ("redis://.svc", "is not a URL: its host or port cannot be read"),
        (f"redis://{'h' * 64}", "is not a URL: its host or port cannot be read"),
        (f"redis://:{SECRET}/x@h", "is not a URL: its host or port cannot be read; write special characters in a pass"),
        (f"redis://:{SECRET} @h", "is not a URL: it holds a blank or a control character"),
        (f"redis://:{SECRET}\t@h", "is not a URL: it holds a blank or a control character"),
        ("redis://h/db", "must end in a database number such as /0"),
        ("redis://h/0/1", "must end in a database number such as /0"),
        ("redis://h/٣", "must end in a database number such as /0"),
        (f"redis://:{SECRET}#x@h", "is not a URL: its host or port cannot be read; write special characters in a pass"),
        ("rediss://h?ssl_cert_reqs=none", "must hold no query or fragment; use REDIS_CA_FILE "),
        ("sentinel://h1;sentinel://h2", "must start with redis://"),
        ("redis://h1,h2/0", "names several hosts: start it with redis+sentinel:// if they are sentinels"),
        ("redis+sentinel://h1,h2", "must end in the name by which the sentinels know the primary"),
        ("redis+sentinel://h1,h2/mymaster/db", "must end in the name by which the sentinels know the primary"),
        (f"redis+sentinel://:{SECRET}@h1,,h3/mymaster", "names no host"),
        ("redis+cluster://h1,h2:0", "must name a port from 1 to 65535"),
        ("redis+cluster://h1,h2/1", "must end in its hosts, because a cluster has no databases"),
    ],
)
def test_a_wrong_redis_url_is_refused_without_showing_it(environment: Environment, url: str, problem: str) -> None:
    environment(REDIS_URL=url)
    (told,) = problems()
    assert told.startswith(f"REDIS_URL: {problem}")
    assert SECRET not in told


@pytest.mark.parametrize("topology", ["", "+sentinel", "+cluster"])
def test_a_special_character_in_a_password_shows_nothing_of_it_whatever_the_scheme(
    environment: Environment, topology: str
) -> None:
    slips = (
        f"bob:1234/{SECRET}@h", f"bob:1234/{SECRET}@h/mymaster/0", f":1234/{SECRET}@h", f":{SECRET}/@h/mymaster",
        f"bob:12/{SECRET}/3@h", f"bob:p@ss/{SECRET}@h/mymaster", f"bob:1234?{SECRET}@h/mymaster",
        f"bob:1234#{SECRET}@h", f"bob:{SECRET}[@h/mymaster", f"bob:a,b/{SECRET}@h", f"bob:{SECRET}/@h,h2/mymaster",
    )  # fmt: skip
    for name in ("redis", "rediss", "valkey", "valkeys"):
        for slip in slips:
            environment(REDIS_URL=f"{name}{topology}://{slip}")
            (told,) = problems()
            assert told == (
                "REDIS_URL: is not a URL: its host or port cannot be read; write special characters in a password "
                "percent-encoded"
            )


def test_a_password_of_sentinels_without_sentinels_is_refused(environment: Environment) -> None:
    environment(REDIS_URL="redis+cluster://h", LOCK_QUEUE="{mod}.lock", SENTINEL_PASSWORD=SECRET)
    assert problems() == [
        "SENTINEL_PASSWORD: is for sentinels: let REDIS_URL start with redis+sentinel://, or leave it out"
    ]


def test_on_a_cluster_all_names_have_the_hash_tag_of_the_queue_and_streams_get_it_by_default(
    environment: Environment,
) -> None:
    environment(REDIS_URL="redis+cluster://h1,h2:7001", LOCK_QUEUE="{mod}.lock", DEAD_STREAM="dead{mod}")
    found = load(need_token=False)
    assert found.cluster_tag == "{mod}"
    assert found.streams == ("{mod}.results", "dead{mod}", "{mod}.control")
    assert found.redis.hosts == (("h1", 6379), ("h2", 7001))

    environment(REDIS_URL="redis://h1")
    assert load(need_token=False).RESULTS_CHANNEL == "moderation.results"
    assert load(need_token=False).cluster_tag == ""


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ({}, "LOCK_QUEUE: must hold a hash tag on a Redis Cluster"),
        ({"LOCK_QUEUE": "{}{mod}.lock"}, "LOCK_QUEUE: must hold a hash tag"),
        ({"LOCK_QUEUE": "{mod}.lock", "RESULTS_CHANNEL": "moderation.results"},
         "RESULTS_CHANNEL: must hold the hash tag of LOCK_QUEUE on a Redis Cluster"),
        ({"LOCK_QUEUE": "{mod}.lock", "CONTROL_STREAM": "{other}.control"}, "CONTROL_STREAM: must hold the hash tag"),
    ],
)  # fmt: skip
def test_names_of_different_slots_are_refused_with_a_name_that_fits(
    environment: Environment, names: dict[str, str], problem: str
) -> None:
    environment(REDIS_URL="redis+cluster://h1", **names)
    (told,) = problems()
    assert told.startswith(problem)
    assert "write {" in told


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.org",
        "https://api.example.org:8443/v1",
        "http://localhost:8000",
        "http://127.9.9.9",
        "http://[::1]:80",
    ],
)
def test_an_api_url_is_https_or_on_this_machine(environment: Environment, url: str) -> None:
    environment(API_URL=f" {url}/ ")
    assert url == load(need_token=False).API_URL


def test_plain_http_to_another_machine_must_be_allowed(environment: Environment) -> None:
    environment(API_URL="http://api.example.org")
    assert problems()[0].startswith("API_URL: plain http would show the token to the network")
    environment(API_ALLOW_HTTP="true")
    assert load(need_token=False).API_URL == "http://api.example.org"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ftp://h", "must start with https://"),
        ("api.example.org", "must start with https://"),
        ("https://", "names no host"),
        (f"https://me:{SECRET}@h", "must hold no user or password"),
        ("https://@h", "must hold no user or password"),
        ("https://h?", "must hold no query or fragment"),
        ("https://h/#", "must hold no query or fragment"),
        ("https://h:x", "is not a URL: its host or port cannot be read"),
        ("https://api..example.org", "is not a URL: its host or port cannot be read"),
        ("https://h\n.example.org", "is not a URL: it holds a blank or a control character"),
    ],
)
def test_a_wrong_api_url_is_refused_without_showing_it(environment: Environment, url: str, problem: str) -> None:
    environment(API_URL=url)
    (told,) = problems()
    assert told.startswith(f"API_URL: {problem}")
    assert SECRET not in told


@pytest.mark.parametrize(
    "url", ["https://999.1.1.1", "https://☃.example.org", "https://h/" + "p" * 70_000], ids=["address", "name", "long"]
)
def test_a_host_that_the_http_client_cannot_call_stops_a_worker(environment: Environment, url: str) -> None:
    environment(API_URL=url, API_TOKEN=SECRET)
    with pytest.raises(SettingsError) as caught:
        load(need_token=True)
    assert "API_URL: is not a URL: its host is neither a name nor an address, or it is too long" in str(caught.value)
    assert url == load(need_token=False).API_URL


def test_the_token_is_asked_for_where_it_is_needed_along_with_all_other_problems(environment: Environment) -> None:
    missing = "API_TOKEN: is missing; give it or API_TOKEN_FILE"
    assert problems(need_token=True) == [missing]
    environment(MAX_ATTEMPTS=0)
    assert problems(need_token=True) == ["MAX_ATTEMPTS: Input should be greater than or equal to 1", missing]
    environment(MAX_ATTEMPTS=1, API_TOKEN=" token-1\n")
    token = load(need_token=True).API_TOKEN
    assert token is not None
    assert token.get_secret_value() == "token-1"


def test_a_token_file_is_looked_into_at_the_start(environment: Environment, tmp_path: Path) -> None:
    file = tmp_path / "token"
    environment(API_TOKEN_FILE=file)
    assert problems(need_token=True) == ["API_TOKEN_FILE: cannot be read (FileNotFoundError)"]
    file.write_text(" \n")
    assert problems(need_token=True) == ["API_TOKEN_FILE: holds no token: it is empty"]
    file.write_bytes(f"{SECRET} \xff".encode("latin-1"))
    (told,) = problems(need_token=True)
    assert told == "API_TOKEN_FILE: holds no token: it must be visible ASCII characters without blanks"
    file.write_text(f"\n{SECRET}\n")
    assert file == load(need_token=True).API_TOKEN_FILE


def test_a_folder_is_no_token_file(environment: Environment, tmp_path: Path) -> None:
    environment(API_TOKEN_FILE=tmp_path)
    assert problems() == ["API_TOKEN_FILE: cannot be read (IsADirectoryError)"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_token_file_that_may_not_be_read_is_a_problem(environment: Environment, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(SECRET)
    file.chmod(0)
    environment(API_TOKEN_FILE=file)
    assert problems() == ["API_TOKEN_FILE: cannot be read (PermissionError)"]


def test_one_token_is_enough(environment: Environment, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(SECRET)
    environment(API_TOKEN=SECRET, API_TOKEN_FILE=file)
    assert problems() == ["API_TOKEN_FILE: give API_TOKEN or API_TOKEN_FILE, not both"]


@pytest.mark.parametrize("token", ["two words", "tökén", "a\tb", " "])
def test_a_token_that_no_header_can_hold_is_refused_without_showing_it(environment: Environment, token: str) -> None:
    environment(API_TOKEN=token)
    (told,) = problems(need_token=True)
    assert told.startswith("API_TOKEN: ")
    assert token.strip() == "" or token not in told


def test_the_certificates_for_redis_must_be_some(environment: Environment, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    environment(REDIS_CA_FILE=file)
    assert problems() == ["REDIS_CA_FILE: holds no certificate in PEM format"]
    trustme.CA().cert_pem.write_to_path(file)
    assert file == load(need_token=False).REDIS_CA_FILE


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"one\ntwo\n", "holds no password: it has more than one line"),
        (b"\xff" + SECRET.encode(), "holds no password: it is not UTF-8"),
        (b"x" * 70_000, "holds no password: it is longer than 65536 bytes"),
    ],
    ids=["empty", "blank", "two-lines", "no-text", "too-long"],
)
def test_a_file_without_a_password_for_redis_is_refused_without_showing_it(
    environment: Environment, tmp_path: Path, content: bytes, wrong: str
) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    environment(REDIS_PASSWORD_FILE=file)
    assert problems() == [f"REDIS_PASSWORD_FILE: {wrong}"]


def test_a_password_for_redis_is_all_of_one_line_and_stands_in_one_place_alone(
    environment: Environment, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_bytes(b" with blanks \r\n")
    environment(REDIS_PASSWORD_FILE=file, REDIS_URL="redis://user@host")
    assert file == load(need_token=False).REDIS_PASSWORD_FILE
    assert read_password(file) == " with blanks "
    environment(REDIS_URL=f"redis://user:{SECRET}@host")
    assert problems() == ["REDIS_PASSWORD_FILE: give the password in REDIS_URL or in REDIS_PASSWORD_FILE, not both"]
    environment(REDIS_URL="redis://host", REDIS_PASSWORD_FILE=tmp_path / "none")
    assert problems() == ["REDIS_PASSWORD_FILE: cannot be read (FileNotFoundError)"]


def test_the_certificate_for_redis_and_its_key_belong_together(environment: Environment, tmp_path: Path) -> None:
    certificate, key, another = (tmp_path / name for name in ("tls.crt", "tls.key", "another.key"))
    authority = trustme.CA()
    issued = authority.issue_cert("worker")
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    authority.issue_cert("another").private_key_pem.write_to_path(another)

    environment(REDIS_URL="rediss://host", REDIS_CERT_FILE=certificate, REDIS_KEY_FILE=key)
    assert key == load(need_token=False).REDIS_KEY_FILE
    environment(REDIS_KEY_FILE=another)
    assert problems() == ["REDIS_KEY_FILE: is not the key of the certificate in REDIS_CERT_FILE"]
    another.write_text("no key")
    assert problems() == [
        "REDIS_KEY_FILE: holds no private key in PEM format, or one that is encrypted with a password"
    ]
    environment(REDIS_KEY_FILE=tmp_path / "none")
    assert problems() == ["REDIS_KEY_FILE: cannot be read (FileNotFoundError)"]
    environment(REDIS_KEY_FILE="")
    assert problems() == ["REDIS_KEY_FILE: give REDIS_CERT_FILE and REDIS_KEY_FILE, or neither"]
    environment(REDIS_KEY_FILE=key, REDIS_CERT_FILE="")
    assert problems() == ["REDIS_KEY_FILE: give REDIS_CERT_FILE and REDIS_KEY_FILE, or neither"]
    environment(REDIS_CERT_FILE=key)
    assert problems() == ["REDIS_CERT_FILE: holds no certificate in PEM format"]
    environment(REDIS_CERT_FILE=certificate, REDIS_URL="redis://host")
    assert problems() == ["REDIS_CERT_FILE: is for a server that speaks TLS: let REDIS_URL start with rediss://"]


@pytest.mark.parametrize(
    "source",
    [
        "/lock-worker",
        "/lock-worker/staging",
        "lock-worker",
        "urn:example:lock-worker:eu",
        "//example.org/locks",
        " /x\n",
        "https://lock-worker.example.org:8443/staging?region=eu#1",
        "https://[::1]/",
        "%C3%BC",
        "mailto:ops@example.org",
    ],
)
def test_the_source_of_events_is_any_reference_to_a_resource(environment: Environment, source: str) -> None:
    environment(EVENT_SOURCE=source)
    assert source.strip() == load(need_token=False).EVENT_SOURCE


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("a b", "must be a URI-reference such as /lock-worker/staging"),
        ("ü", "must be a URI-reference"),
        ("/a\nb", "must be a URI-reference"),
        ("%4", "must be a URI-reference"),
        ("1:b", "is not a URI-reference: there is a colon before its first slash"),
        ("http://h:port/", "is not a URI-reference: its host or port cannot be read"),
        ("http://[::1/", "is not a URI-reference: its host or port cannot be read"),
        ("/a[1]", "is not a URI-reference: # may stand in it once"),
        ("a#b#c", "is not a URI-reference: # may stand in it once"),
        (f"https://user:{SECRET}@h/", "must hold no user or password: it stands in every event"),
        ("x" * 501, "String should have at most 500 characters"),
    ],
)
def test_a_source_that_is_no_reference_is_refused_without_showing_it(
    environment: Environment, source: str, problem: str
) -> None:
    environment(EVENT_SOURCE=source)
    (told,) = problems()
    assert told.startswith(f"EVENT_SOURCE: {problem}")
    assert SECRET not in told


def test_what_must_agree_in_a_fleet_are_settings_and_none_is_secret(environment: Environment) -> None:
    environment(API_TOKEN=SECRET, REDIS_URL="redis://:hunter2@h")
    found = load(need_token=True).to_agree_on()
    assert found.keys() <= Settings.model_fields.keys()
    assert "hunter2" not in str(found)
    assert SECRET not in str(found)


@pytest.mark.parametrize("name", ["LOCK_QUEUE", "RESULTS_CHANNEL", "DEAD_STREAM"])
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("a\x06b", "must be printable characters"),
        ("n" * 201, "String should have at most 200 characters"),
        ("lw:1:x:again", "must not start with lw:, as the worker's own keys do"),
    ],
)
def test_a_name_in_redis_is_short_printable_and_none_of_ours(
    environment: Environment, name: str, value: str, problem: str
) -> None:
    environment(**{name: value})
    assert problems() == [f"{name}: {problem}"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"LOCK_QUEUE": "moderation.dead"}, "DEAD_STREAM: must differ from LOCK_QUEUE"),
        ({"DEAD_STREAM": "moderation.results"}, "DEAD_STREAM: must differ from RESULTS_CHANNEL"),
        ({"LOCK_QUEUE": "moderation.results"}, "RESULTS_CHANNEL: must differ from LOCK_QUEUE"),
    ],
)
def test_the_three_names_differ(environment: Environment, options: dict[str, str], problem: str) -> None:
    environment(**options)
    assert problems() == [problem]


@pytest.mark.parametrize("name", [name for name, field in Settings.model_fields.items() if field.annotation is float])
@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e400", "soon"])
def test_a_time_is_a_number_within_its_bounds(environment: Environment, name: str, value: str) -> None:
    environment(**{name: value})
    assert [problem.partition(":")[0] for problem in problems()] == [name]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("0", "Input should be greater than 0"),
        ("-5", "Input should be greater than 0"),
        ("-inf", "Input should be greater than 0"),
        ("nan", "Input should be less than or equal to 1000000"),
        ("inf", "Input should be less than or equal to 1000000"),
        ("none", "Input should be a valid number, unable to parse string as a number"),
    ],
)
def test_a_rate_limit_lets_some_calls_start(environment: Environment, value: str, problem: str) -> None:
    environment(RATE_LIMIT_PER_SECOND=value)
    assert problems() == [f"RATE_LIMIT_PER_SECOND: {problem}"]


def test_a_rate_limit_may_be_less_than_a_call_a_second_or_left_out(environment: Environment) -> None:
    environment(RATE_LIMIT_PER_SECOND="0.1")
    assert load(need_token=False).RATE_LIMIT_PER_SECOND == 0.1
    environment(RATE_LIMIT_PER_SECOND="")
    assert load(need_token=False).RATE_LIMIT_PER_SECOND is None


def test_the_breaker_can_be_switched_off_but_not_turned_round(environment: Environment) -> None:
    environment(BREAKER_FAILURES=0)
    assert load(need_token=False).BREAKER_FAILURES == 0
    environment(BREAKER_FAILURES=-1)
    assert problems() == ["BREAKER_FAILURES: Input should be greater than or equal to 0"]


@pytest.mark.parametrize(("timeout", "lease"), [(10, 10), (10, 9.5), (40, 30)])
def test_a_lease_outlives_a_call(environment: Environment, timeout: float, lease: float) -> None:
    environment(ATTEMPT_TIMEOUT_SECONDS=timeout, LEASE_SECONDS=lease)
    (told,) = problems()
    assert told.startswith(f"LEASE_SECONDS: must be longer than ATTEMPT_TIMEOUT_SECONDS ({timeout}), or a job could be")


def test_no_secret_shows_in_a_repr_an_error_or_a_traceback(environment: Environment) -> None:
    environment(REDIS_URL=f"rediss://user:{SECRET}@h", API_TOKEN=SECRET)
    found = load(need_token=True)
    assert SECRET not in f"{found} {found!r} {found.model_dump()} {found.model_dump_json()}"

    environment(REDIS_URL=f"rediss://user:{SECRET}@h:port", API_TOKEN=f"{SECRET} and more", MAX_ATTEMPTS=0)
    with pytest.raises(SettingsError) as caught:
        load(need_token=True)
    assert len(str(caught.value).splitlines()) == 4
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(ValueError, match="REDIS_URL") as bare:
        Settings()
    assert SECRET not in "".join(traceback.format_exception(bare.value))


def test_every_option_has_a_sentence_and_every_number_its_bounds() -> None:
    schema = settings.Settings.model_json_schema()["properties"]
    for name, field in Settings.model_fields.items():
        assert field.description
        assert field.description.endswith("."), name
        kinds = schema[name].get("anyOf", [schema[name]])
        for kind in kinds:
            if kind["type"] in {"integer", "number"}:
                assert "maximum" in kind, name
                assert kind.keys() & {"minimum", "exclusiveMinimum"}, name


def test_rules_in_any_order_are_one_setting_so_that_workers_agree(environment: Environment) -> None:
    environment(RULES_DRY_RUN="b, a ,b")
    assert load(need_token=False).to_agree_on()["RULES_DRY_RUN"] == "a,b"


def test_limits_of_rules_agree_if_they_are_the_same_wherever_and_however_they_are_written(
    environment: Environment, tmp_path: Path
) -> None:
    def told(name: str, text: str) -> object:
        (tmp_path / name).write_text(text, "utf-8")
        environment(RULE_LIMITS_FILE=tmp_path / name)
        return load(need_token=False).to_agree_on()["RULE_LIMITS_FILE"]

    first = told("one.json", '{"r-7": "200/10m", "r-8": "5/1h"}')

    assert str(first).startswith("2 rules, digest ")
    assert told("two.json", '{"r-8":"5/60m","r-7":"200/600s"}') == first
    assert told("one.json", '{"r-7": "200/10m", "r-8": "6/1h"}') != first
    assert told("one.json", '{"r-7": "200/10m", "r-9": "5/1h"}') != first
    assert told("one.json", "{}") is None
    environment(RULE_LIMITS_FILE="")
    assert load(need_token=False).to_agree_on()["RULE_LIMITS_FILE"] is None


@pytest.mark.parametrize(
    ("rules", "wrong"),
    [("a,,b", "names an empty rule id"), (",", "names an empty rule id"), ("x" * 129, "holds what no rule id is")],
)
def test_a_list_of_rules_that_may_hold_a_slip_is_refused(environment: Environment, rules: str, wrong: str) -> None:
    environment(RULES_DRY_RUN=rules)
    assert problems()[0].startswith(f"RULES_DRY_RUN: {wrong}")
