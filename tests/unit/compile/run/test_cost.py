from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnforge.compile.run.cost import DEFAULTS, ENOUGH, FASTEST, SLOWEST, STEP_DEFAULTS, CostModel, factors
from attnforge.compile.run.measured import KEEP, PEAK_MARGIN, Measured
from attnforge.model.cost import Prediction, step_key
from attnforge.model.graph import Language, Unit


def unit(cost_key: str = "key", language: Language = Language.CUDA) -> Unit:
    return Unit("/b/a.o", ("/s/a.cu",), ("nvcc",), "/b", language, cost_key=cost_key)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "costs.json"


@pytest.mark.parametrize("language", Language)
def test_what_is_unknown_goes_by_language(path: Path, language: Language) -> None:
    assert CostModel(path).predict(unit("", language)) == DEFAULTS[language]
    assert CostModel(path).predict(unit("never seen", language)) == DEFAULTS[language]


def test_figures_of_the_recipe_come_before_those_of_the_language(path: Path) -> None:
    prior = Prediction(34.0, 3_350_000_000)
    assert CostModel(path, {"key": prior}).predict(unit()) == prior


def test_measurements_come_before_figures(path: Path) -> None:
    costs = CostModel(path, {"key": Prediction(34.0, 3_350_000_000)})
    costs.learn(unit(), "", 50.0, 1_000)
    assert costs.predict(unit()) == Prediction(50.0, 1_020)


def test_the_median_time_and_the_highest_peak_are_predicted(path: Path) -> None:
    costs = CostModel(path)
    for seconds, peak in [(10.0, 500), (100.0, 900), (12.0, 700)]:
        costs.learn(unit(), "", seconds, peak)
    assert costs.predict(unit()) == Prediction(12.0, 918)


def test_another_build_knows_what_was_learned(path: Path) -> None:
    CostModel(path).learn(unit(), "", 10.0, 5)
    assert CostModel(path).predict(unit()) == Prediction(10.0, 5)


def test_old_measurements_are_forgotten(path: Path) -> None:
    costs = CostModel(path)
    costs.learn(unit(), "", 999.0, 999)
    for _ in range(KEEP):
        costs.learn(unit(), "", 10.0, 5)
    assert CostModel(path).predict(unit()) == Prediction(10.0, 5)


def test_a_unit_without_a_key_teaches_nothing(path: Path) -> None:
    CostModel(path).learn(unit(""), "", 10.0, 5)
    assert not path.exists()


def test_builds_that_learn_at_once_lose_nothing(path: Path) -> None:
    models = [CostModel(path) for _ in range(4)]

    def learn(number: int) -> None:
        for step in range(5):
            models[number].learn(unit(f"{number}-{step}"), "", 1.0, number)

    threads = [threading.Thread(target=learn, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads(path.read_text())["measured"]) == 20


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"schema": 1, "measured": {}}',
        '{"schema": 2, "measured": {}}',
        '{"schema": 4, "measured": {}}',
        '{"schema": 3, "measured": []}',
        '{"schema": 3, "measured": {"key": {}}}',
        '{"schema": 3, "measured": {"key": {"seconds": [1], "peaks": [1]}}}',
        '{"schema": 3, "measured": {"key": {"seconds": [], "peaks": [], "lates": [], "earlies": []}}}',
        '{"schema": 3, "measured": {"key": {"seconds": ["x"], "peaks": [1], "lates": [1], "earlies": [1]}}}',
        '{"schema": 3, "measured": {"key": {"seconds": [NaN], "peaks": [1], "lates": [1], "earlies": [1]}}}',
        '{"schema": 3, "measured": {"key": {"seconds": [-1], "peaks": [1], "lates": [1], "earlies": [1]}}}',
        '{"schema": 3, "measured": {"key": {"seconds": [1], "peaks": [1, 2], "lates": [1], "earlies": [1]}}}',
    ],
)
def test_a_file_that_is_wrong_is_set_aside(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    costs = CostModel(path)
    assert costs.predict(unit()) == DEFAULTS[Language.CUDA]
    assert path.with_name("costs.json.unreadable").read_text() == text
    costs.learn(unit(), "", 10.0, 5)
    assert CostModel(path).predict(unit()) == Prediction(10.0, 5)


def test_bytes_that_are_no_text_are_set_aside(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"\xff\xfe\x00")
    assert CostModel(path).predict(unit()) == DEFAULTS[Language.CUDA]
    assert path.with_name("costs.json.unreadable").exists()


def test_what_cannot_be_written_is_known_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    costs = CostModel(tmp_path / "file" / "costs.json")
    with pytest.raises(OSError):
        costs.learn(unit(), "", 10.0, 5)
    assert costs.predict(unit()) == Prediction(10.0, 5)


@given(st.lists(st.tuples(st.floats(0, 1e5), st.integers(0, 10**12)), min_size=1))
def test_a_prediction_lies_within_what_was_measured(samples: list[tuple[float, int]]) -> None:
    measured = Measured()
    for seconds, peak in samples:
        measured = measured.with_one(seconds, peak)
    newest = samples[-KEEP:]
    prediction = measured.prediction()
    assert min(s for s, _ in newest) - 0.01 <= prediction.seconds <= max(s for s, _ in newest) + 0.01
    assert prediction.peak_bytes == int(PEAK_MARGIN * max(peak for _, peak in newest))
    assert prediction.late_bytes is None


# --- steps


@pytest.mark.parametrize("tool", STEP_DEFAULTS)
@pytest.mark.parametrize("code", ["", " sm_90"])
def test_what_is_unknown_of_a_step_goes_by_its_program(path: Path, tool: str, code: str) -> None:
    assert CostModel(path).predict(unit("never seen"), tool + code) == STEP_DEFAULTS[tool]
    assert CostModel(path).predict(unit(""), tool + code) == STEP_DEFAULTS[tool]


def test_a_program_that_is_not_known_goes_by_language(path: Path) -> None:
    assert CostModel(path).predict(unit(), "newcc sm_90") == DEFAULTS[Language.CUDA]


def test_the_steps_of_an_unknown_unit_are_the_unit() -> None:
    whole = DEFAULTS[Language.CUDA]
    assert sum(step.seconds for step in STEP_DEFAULTS.values()) == pytest.approx(whole.seconds, rel=0.05)
    assert max(step.peak_bytes for step in STEP_DEFAULTS.values()) == whole.peak_bytes


def test_each_step_learns_for_itself(path: Path) -> None:
    costs = CostModel(path)
    costs.learn(unit(), "cicc sm_90", 50.0, 3)
    costs.learn(unit(), "ptxas sm_90", 4.0, 1)
    assert CostModel(path).predict(unit(), "cicc sm_90") == Prediction(50.0, 3)
    assert CostModel(path).predict(unit(), "ptxas sm_90") == Prediction(4.0, 1)
    assert CostModel(path).predict(unit(), "cicc sm_80") == STEP_DEFAULTS["cicc"]
    assert CostModel(path).predict(unit()) == DEFAULTS[Language.CUDA]
    assert set(json.loads(path.read_text())["measured"]) == {"key | cicc sm_90", "key | ptxas sm_90"}


def figures(label: str, seconds: float, *keys: str) -> dict[str, Prediction]:
    return {step_key(key, label): Prediction(seconds, 7) for key in keys}


def test_a_slow_machine_is_slow_with_what_it_has_not_compiled_yet(path: Path) -> None:
    prior = figures("cicc sm_90", 50.0, "one", "other") | figures("ptxas sm_90", 4.0, "other")
    costs = CostModel(path, prior)
    costs.learn(unit("one"), "cicc sm_90", 75.0, 7)
    assert costs.predict(unit("other"), "cicc sm_90") == Prediction(75.0, 7)
    assert costs.predict(unit("other"), "ptxas sm_90") == Prediction(4.0, 7)


def test_the_factor_of_a_program_is_the_median_of_all_units(path: Path) -> None:
    names = [f"unit {number}" for number in range(5)]
    costs = CostModel(path, figures("cicc sm_90", 10.0, *names, "new") | figures("cicc sm_80", 10.0, "new"))
    for name, seconds in zip(names, [11.0, 12.0, 13.0, 40.0, 5.0], strict=True):
        costs.learn(unit(name), "cicc sm_90", seconds, 1)
    assert costs.predict(unit("new"), "cicc sm_90").seconds == pytest.approx(12.0)
    assert costs.predict(unit("new"), "cicc sm_80").seconds == pytest.approx(12.0)


@pytest.mark.parametrize(("seconds", "factor"), [(1000.0, SLOWEST), (0.0, FASTEST)])
def test_a_factor_is_bounded(path: Path, seconds: float, factor: float) -> None:
    costs = CostModel(path, figures("cicc sm_90", 10.0, "one", "other"))
    costs.learn(unit("one"), "cicc sm_90", seconds, 1)
    assert costs.predict(unit("other"), "cicc sm_90").seconds == 10.0 * factor


def test_measurements_are_not_scaled(path: Path) -> None:
    costs = CostModel(path, figures("cicc sm_90", 10.0, "one", "other"))
    costs.learn(unit("one"), "cicc sm_90", 30.0, 1)
    assert costs.predict(unit("one"), "cicc sm_90") == Prediction(30.0, 1)


def test_figures_of_nothing_have_no_factor() -> None:
    measured = {"a | cicc": Measured((3.0,), (1,)), "b": Measured((3.0,), (1,))}
    assert factors(measured, {"a | cicc": Prediction(0.0, 1)}).tools == {}
    assert factors(measured, {"b": Prediction(1.5, 1)}).tools == {"": 2.0}


def test_an_estimate_is_made_of_the_same_numbers(path: Path) -> None:
    prior = figures("cicc sm_90", 50.0, "one", "other") | figures("ptxas sm_90", 4.0, "other") | figures("", 9.0, "one")
    costs = CostModel(path, prior)
    costs.learn(unit("one"), "cicc sm_90", 75.0, 9)
    found = CostModel(path).expect(prior)
    assert found.keys() == prior.keys()
    for key in prior:
        name, _, label = key.partition(" | ")
        assert found[key] == costs.predict(unit(name), label)


@given(st.dictionaries(st.sampled_from("abcdef"), st.floats(0.01, 1e4), min_size=1), st.floats(0.3, 4.0))
def test_a_machine_that_differs_by_a_factor_is_known_by_it(prior: dict[str, float], factor: float) -> None:
    figures = {step_key(key, "cicc sm_90"): Prediction(seconds, 1) for key, seconds in prior.items()}
    measured = {key: Measured((one.seconds * factor,), (1,)) for key, one in figures.items()}
    assert factors(measured, figures).tools["cicc"] == pytest.approx(factor)


# --- memory, and units that are alike


def test_what_is_held_late_is_learned(path: Path) -> None:
    costs = CostModel(path)
    costs.learn(unit(), "cicc sm_90", 200.0, 4000, 1000, 0.2)
    costs.learn(unit(), "cicc sm_90", 210.0, 3900, 1200, 0.3)
    assert CostModel(path).predict(unit(), "cicc sm_90") == Prediction(205.0, 4080, 1224, 0.25)


def test_memory_that_once_did_not_drop_is_not_expected_to(path: Path) -> None:
    costs = CostModel(path)
    costs.learn(unit(), "cicc sm_90", 200.0, 4000, 1000, 0.2)
    costs.learn(unit(), "cicc sm_90", 200.0, 4000)
    assert costs.predict(unit(), "cicc sm_90").late_bytes is None


KINDS = {
    step_key(f"fa 2 {kind}-hdim{dim} full nvcc 13", "cicc sm_90"): Prediction(100.0, 4000, 1000, 0.2)
    for kind in ("forward", "split")
    for dim in (32, 64, 96, 128)
}


MB = 10**6


def like(kind: str, dim: int) -> Unit:
    return unit(f"fa 2 {kind}-hdim{dim} full nvcc 13")


def test_the_first_unit_of_a_kind_corrects_the_others(path: Path) -> None:
    costs = CostModel(path, KINDS)
    costs.learn(like("split", 64), "cicc sm_90", 300.0, 5000, 1000, 0.2)
    assert costs.predict(like("split", 32), "cicc sm_90") == Prediction(300.0, 5000, 1250, 0.2)
    # Of another kind nothing was measured: the machine's factor for this program, and the recipe's bytes.
    assert costs.predict(like("forward", 32), "cicc sm_90") == Prediction(300.0, 4000, 1000, 0.2)
    costs.learn(like("forward", 32), "cicc sm_90", 50.0, 4000)
    assert costs.predict(like("forward", 64), "cicc sm_90").seconds == 50.0
    assert costs.predict(like("split", 32), "cicc sm_90").seconds == 300.0


def figures_of(kind: str, label: str, peak_bytes: int) -> dict[str, Prediction]:
    dims = (32, 64, 96, 128)
    return {
        step_key(f"fa 2 {kind}-hdim{dim} full nvcc 13", label): Prediction(100.0, peak_bytes, peak_bytes // 4, 0.2)
        for dim in dims
    }


def test_less_memory_is_believed_when_several_units_needed_less(path: Path) -> None:
    costs = CostModel(path, figures_of("split", "cicc sm_90", 4000 * MB))
    for count, dim in enumerate((32, 64, 96), 1):
        costs.learn(like("split", dim), "cicc sm_90", 100.0, (2000 + dim) * MB)
        expected = 4000 if count < ENOUGH else 2096
        assert costs.predict(like("split", 128), "cicc sm_90").peak_bytes == expected * MB


def test_of_a_small_step_less_memory_is_never_believed_because_of_others(path: Path) -> None:
    costs = CostModel(path, figures_of("split", "fatbinary", 120 * MB))
    for dim in (32, 64, 96):
        costs.learn(like("split", dim), "fatbinary", 2.0, 60 * MB)
    assert costs.predict(like("split", 128), "fatbinary").peak_bytes == 120 * MB
    costs.learn(like("split", 64), "fatbinary", 2.0, 240 * MB)
    assert costs.predict(like("split", 128), "fatbinary").peak_bytes == 240 * MB


@pytest.mark.parametrize(("seconds", "expected"), [(1.0, 120 * MB), (20.0, int(3 * MB * PEAK_MARGIN))])
def test_what_samples_missed_of_a_short_step_is_expected_again(path: Path, seconds: float, expected: int) -> None:
    figures = figures_of("forward", "preprocess", 120 * MB)
    costs, one = CostModel(path, figures), like("forward", 64)
    costs.learn(one, "preprocess", seconds, 3 * MB)
    found = costs.predict(one, "preprocess")
    assert found.peak_bytes == expected
    assert costs.measured(one, "preprocess") == found
    assert costs.expect(figures)[step_key(one.cost_key, "preprocess")] == found


@given(st.lists(st.integers(1000, 8000), min_size=1, max_size=3))
def test_no_unit_of_a_kind_is_expected_to_hold_less_than_one_did(peaks: list[int]) -> None:
    measured = {key: Measured().with_one(1.0, peak) for key, peak in zip(KINDS, peaks, strict=False)}
    scaled = factors(measured, KINDS)
    for key in list(KINDS)[:4]:
        assert scaled.scaled(key, KINDS[key]).peak_bytes >= max(peaks) - 1


def test_what_was_measured_of_a_whole_unit_is_known_as_such(path: Path) -> None:
    costs = CostModel(path, {"key": Prediction(9.0, 9)})
    assert costs.measured(unit()) is None
    costs.learn(unit(), "", 10.0, 100)
    assert costs.measured(unit()) == Prediction(10.0, 102)
