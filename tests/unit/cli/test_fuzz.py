"""Whatever a request says, attnforge never calls it its own fault (exit 1)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest
from fuzz_requests import ALLOWED, Case, cases, run
from hypothesis import HealthCheck, Phase, given, seed, settings

from attnforge.model.host import Host

MINUTES = float(os.environ.get("FUZZ_MINUTES", "0"))
CHECKS = list(HealthCheck)
PHASES = (Phase.generate, Phase.shrink)


@settings(suppress_health_check=CHECKS)
@given(case=cases())
def test_a_request_is_never_our_own_fault(make_host: Callable[..., Host], case: Case) -> None:
    assert run(case, make_host()) in ALLOWED


@pytest.mark.skipif(not MINUTES, reason="FUZZ_MINUTES=60 runs it")
def test_for_some_time(make_host: Callable[..., Host]) -> None:
    host, end, rounds = make_host(), time.monotonic() + 60 * MINUTES, 0
    start = int(time.time())
    while time.monotonic() < end:

        @seed(start + rounds)
        @settings(max_examples=200, deadline=None, database=None, suppress_health_check=CHECKS, phases=PHASES)
        @given(case=cases())
        def once(case: Case) -> None:
            assert run(case, host) in ALLOWED

        once()
        rounds += 1
    print(f"{rounds * 200} requests in {MINUTES:g} minutes")
