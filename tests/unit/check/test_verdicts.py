"""What answers mean: from an answer to a result, and from results to findings."""

from __future__ import annotations

from typing import Any

import pytest

from attnforge.check.verdicts import CODES, findings_of, is_fatal, not_run, result_of
from attnforge.cli.show_check import check_lines, topic_lines
from attnforge.knowledge.behaviour import Fault, behaviours
from attnforge.model.audit import verdict_of
from attnforge.model.check import Case, CaseResult, CheckReport
from attnforge.model.finding import Severity

GOOD = {"ok": True, "largest_error": 0.001, "cosine": 0.999, "mean_relative": 0.001, "not_finite": 0}
GOOD |= {"bound": 0.002, "plain_error": 0.001}
BAD = {**GOOD, "ok": False, "largest_error": 0.5}


def case(**changes: Any) -> Case:
    return Case(**{"name": "one", "topic": "dense", "call": "dense", "dtype": "fp16", "head_dim": 64, **changes})


def answer(*measures: dict[str, Any], **told: Any) -> Any:
    return {"measures": list(measures or (GOOD,)), "seconds": 0.01, "repeats": True, **told}


def error(kind: str, text: str, *, sticky: bool = False, trace: str = "") -> Any:
    return {"error": {"type": kind, "text": text, "trace": trace, "sticky": sticky}}


ANSWERS = [
    (answer(), "passed", ""),
    (answer(GOOD, BAD), "failed", "wrong-result"),
    (answer({**GOOD, "ok": False, "not_finite": 3}), "failed", "unwritten-output"),
    (answer(repeats=False), "failed", "not-repeatable"),
    (answer(wrong="the cache does not hold it"), "failed", "wrong-result"),
    (answer(skipped="one GPU"), "skipped", ""),
    (error("Hang", "no answer within 3 seconds"), "failed", "hang"),
    (error("Crash", "ended by signal 6", trace="a\nlast words\n"), "failed", "crash"),
    (error("RuntimeError", "CUDA error: no kernel image is available for execution"), "failed", "no-kernel-image"),
    (error("AcceleratorError", "CUDA error: an illegal memory access was encountered"), "failed", "cuda-error"),
    (error("RuntimeError", "something", sticky=True), "failed", "cuda-error"),
    (error("TypeError", "unexpected keyword"), "failed", "call-failed"),
]


@pytest.mark.parametrize(("told", "status", "code"), ANSWERS, ids=[f"{status} {code}" for _, status, code in ANSWERS])
def test_an_answer_means_what_it_is(told: Any, status: str, code: str) -> None:
    result = result_of(case(), told)
    assert (result.status, result.code) == (status, code)
    assert bool(result.said) == (status != "passed")


def test_the_worst_figures_are_told_with_the_bound_that_is_nearest() -> None:
    near = {**GOOD, "largest_error": 0.00019, "bound": 0.0002, "cosine": 0.99}
    figures = result_of(case(), answer(GOOD, near)).figures
    assert (figures["largest_error"], figures["bound"], figures["cosine"]) == (0.00019, 0.0002, 0.99)


def test_last_words_are_told_of_a_crash() -> None:
    assert "last words" in result_of(case(), error("Crash", "ended by signal 6", trace="a\nlast words\n")).said


LEFT_OUT = case(left_out="softcap", words=(("softcap",), ("attnforge build", "upstream says")))


@pytest.mark.parametrize(
    ("raised", "status", "code"),
    [
        (None, "failed", "left-out-silent"),
        ("RuntimeError: no softcap. A wheel with it: attnforge build", "raised", ""),
        ("RuntimeError: no softcap, upstream says", "raised", ""),
        ("RuntimeError: invalid argument", "failed", "left-out-unnamed"),
        ("RuntimeError: softcap is odd", "failed", "left-out-unnamed"),
    ],
)
def test_what_was_left_out_has_to_raise_and_to_say_so(raised: str | None, status: str, code: str) -> None:
    result = result_of(LEFT_OUT, {"measures": [], "raised": raised, "seconds": 0})
    assert (result.status, result.code) == (status, code)


REFUSED = case(topic="errors", refused="Number of heads in key/value must divide")


@pytest.mark.parametrize(
    ("raised", "status", "code"),
    [
        ("RuntimeError: Number of heads in key/value must divide number of heads in query", "passed", ""),
        (None, "failed", "error-silent"),
        ("RuntimeError: ", "failed", "error-lost"),
        ("", "failed", "error-lost"),
        ("RuntimeError: Number of heads", "failed", "error-lost"),
    ],
)
def test_what_upstream_refuses_has_to_raise_with_its_message(raised: str | None, status: str, code: str) -> None:
    result = result_of(REFUSED, {"measures": [], "raised": raised, "seconds": 0})
    assert (result.status, result.code) == (status, code)


@pytest.mark.parametrize("one", [LEFT_OUT, REFUSED], ids=["left out", "refused"])
def test_a_crash_is_no_way_to_raise(one: Case) -> None:
    assert result_of(one, error("Crash", "ended by signal 11")).code == "crash"


def test_a_kernel_for_another_gpu_may_refuse_and_may_not_be_wrong() -> None:
    other = case(topic="kernel", kernel="sageattn_sm90", promised=False)
    refused = result_of(other, error("AssertionError", "SM90 kernel is not available"))
    assert refused.status == "refused"
    assert verdict_of(findings_of([refused])) == "good"
    wrong = result_of(other, answer(BAD))
    assert verdict_of(findings_of([wrong])) == "bad"


def test_what_upstream_does_not_promise_is_a_warning() -> None:
    broken = result_of(case(topic="compile", call="compile", promised=False), error("Unsupported", "graph break"))
    (finding,) = findings_of([broken])
    assert (finding.code, finding.severity) == ("graph-break", Severity.WARNING)
    promised = result_of(case(topic="compile", call="compile"), error("Unsupported", "graph break"))
    assert findings_of([promised])[0].severity is Severity.ERROR


def test_failures_are_told_once_for_each_code_and_topic_with_the_worst_of_them() -> None:
    worse = {**BAD, "largest_error": 2.0}
    results = [
        result_of(case(name="a"), answer(BAD)),
        result_of(case(name="b"), answer(worse)),
        result_of(case(name="c"), answer()),
        result_of(case(name="d", topic="softcap"), answer(BAD)),
    ]
    dense, softcap = findings_of(results)
    assert dense.seen.startswith("2 of 3 cases; b: largest error 2.0")
    assert (softcap.code, softcap.subject) == ("wrong-result", "softcap")
    assert verdict_of((dense, softcap)) == "bad"


def test_what_was_not_tried_is_never_good() -> None:
    results = [result_of(case(), answer()), not_run(case(topic="softcap"), "given up")]
    (finding,) = findings_of(results)
    assert (finding.code, finding.severity) == ("not-run", Severity.UNCHECKED)
    assert verdict_of((finding,)) == "unchecked"


def test_what_this_machine_cannot_do_is_told_and_does_not_count() -> None:
    (finding,) = findings_of([result_of(case(topic="devices"), answer(skipped="one GPU"))])
    assert (finding.severity, finding.seen) == (Severity.INFO, "one GPU")


def test_a_call_that_changes_its_inputs_is_told() -> None:
    (finding,) = findings_of([result_of(case(), answer(changed_inputs=["k"]))])
    assert (finding.code, finding.severity, finding.subject) == ("inputs-changed", Severity.WARNING, "k")


def test_only_a_missing_kernel_of_a_promised_case_ends_the_check() -> None:
    image = error("RuntimeError", "no kernel image is available")
    assert is_fatal(result_of(case(), image))
    assert not is_fatal(result_of(case(kernel="other", promised=False), image))
    assert not is_fatal(result_of(case(), answer(BAD)))


@pytest.mark.parametrize(("verdict", "code"), [("good", 0), ("bad", 5), ("unchecked", 6)])
def test_the_exit_code_follows_from_the_verdict(verdict: Any, code: int) -> None:
    report = CheckReport(wheel="w.whl", sha256="", package="w", version="1", findings=(), verdict=verdict, seconds=1.0)
    assert report.exit_code == code
    assert report.to_json()["schema"] == 1


def test_results_without_measures_have_no_figures() -> None:
    assert result_of(case(), error("Hang", "no answer")).figures == {}
    assert isinstance(not_run(case(), "no"), CaseResult)


# --- what upstream's own release computes wrong

FAULT = Fault(
    id="ends",
    keys_multiple=64,
    least_cosine=0.95,
    message="keys past the end count",
    hint="pad the keys",
    source="seen",
)
OFF = {"ok": False, "largest_error": 0.1, "cosine": 0.99, "mean_relative": 0.2, "not_finite": 0}


@pytest.mark.parametrize(
    ("known", "measure", "code"),
    [
        (True, OFF, "known-fault"),
        # Further off than upstream is, or never written: that is no longer what upstream does.
        (True, {**OFF, "cosine": 0.9}, "wrong-result"),
        (True, {**OFF, "not_finite": 1}, "unwritten-output"),
        (False, OFF, "wrong-result"),
    ],
)
def test_a_fault_of_upstreams_is_told_from_a_broken_wheel(known: bool, measure: dict[str, Any], code: str) -> None:
    fault = {"fault": "ends", "least_cosine": 0.95} if known else {}
    result = result_of(case(**fault), answer(measure))
    assert (result.status, result.code, result.fault) == ("failed", code, "ends" if code == "known-fault" else "")


def test_a_fault_of_upstreams_warns_and_everything_else_still_counts() -> None:
    known = result_of(case(fault="ends", least_cosine=0.95), answer(OFF))
    passed = result_of(case(), answer())
    (finding,) = findings_of([known, passed], (FAULT,))
    assert (finding.severity, finding.code, finding.subject) == (Severity.WARNING, "known-fault", "dense")
    assert "ends, 1 of 2 cases" in finding.seen
    assert "keys past the end count" in finding.means
    assert finding.hint == "pad the keys"
    assert verdict_of((finding,)) == "good"
    broken = result_of(case(fault="ends", least_cosine=0.95), answer({**OFF, "cosine": 0.5}))
    assert verdict_of(findings_of([known, broken], (FAULT,))) == "bad"


def test_a_topic_that_upstream_computes_wrong_is_marked_as_a_warning() -> None:
    known = result_of(case(fault="ends", least_cosine=0.95), answer(OFF))
    assert next(topic_lines([known])).startswith("  warn  dense")
    assert next(topic_lines([known, result_of(case(), answer(OFF))])).startswith("  BAD   dense")


@pytest.mark.parametrize(("faulty", "ending"), [(0, ""), (2, ", except 2 cases that upstream computes wrong")])
def test_the_last_line_counts_the_cases_that_upstream_computes_wrong(faulty: int, ending: str) -> None:
    known = result_of(case(fault="ends", least_cosine=0.95), answer(OFF))
    told: dict[str, Any] = {"wheel": "a.whl", "torch": "", "findings": (), "verdict": "good"}
    report = CheckReport.model_construct(**told, results=(known,) * faulty)
    assert list(check_lines(report)) == [f"a.whl: good{ending}"]


def test_a_package_may_have_advice_of_its_own_for_a_failure() -> None:
    advice = behaviours()["sageattention-2"].advice
    assert set(advice) <= set(CODES)
    unwritten = result_of(case(), answer({**GOOD, "ok": False, "not_finite": 3}))
    (finding,) = findings_of([unwritten], advice=advice)
    assert finding.hint == "do not use the wheel; build a later commit"
    assert finding.link.endswith("/SageAttention/issues/320")
    assert findings_of([unwritten])[0].hint == "do not use the wheel"


def test_known_faults_say_where_they_were_seen() -> None:
    faults = [fault for behaviour in behaviours().values() for fault in behaviour.faults]
    assert faults
    for fault in faults:
        assert fault.message
        assert fault.hint
        assert fault.source
        assert 0.5 <= fault.least_cosine < 1
