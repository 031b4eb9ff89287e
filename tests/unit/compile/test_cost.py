from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnforge.compile.cost import DEFAULTS, KEEP, CostModel, Measured
from attnforge.model.cost import Prediction
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
    costs.learn(unit(), 50.0, 1_000)
    assert costs.predict(unit()) == Prediction(50.0, 1_000)


def test_the_median_time_and_the_highest_peak_are_predicted(path: Path) -> None:
    costs = CostModel(path)
    for seconds, peak in [(10.0, 5), (100.0, 9), (12.0, 7)]:
        costs.learn(unit(), seconds, peak)
    assert costs.predict(unit()) == Prediction(12.0, 9)


def test_another_build_knows_what_was_learned(path: Path) -> None:
    CostModel(path).learn(unit(), 10.0, 5)
    assert CostModel(path).predict(unit()) == Prediction(10.0, 5)


def test_old_measurements_are_forgotten(path: Path) -> None:
    costs = CostModel(path)
    costs.learn(unit(), 999.0, 999)
    for _ in range(KEEP):
        costs.learn(unit(), 10.0, 5)
    assert CostModel(path).predict(unit()) == Prediction(10.0, 5)


def test_a_unit_without_a_key_teaches_nothing(path: Path) -> None:
    CostModel(path).learn(unit(""), 10.0, 5)
    assert not path.exists()


def test_builds_that_learn_at_once_lose_nothing(path: Path) -> None:
    models = [CostModel(path) for _ in range(4)]

    def learn(number: int) -> None:
        for step in range(5):
            models[number].learn(unit(f"{number}-{step}"), 1.0, number)

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
        '{"schema": 2, "measured": {}}',
        '{"schema": 1, "measured": []}',
        '{"schema": 1, "measured": {"key": {}}}',
        '{"schema": 1, "measured": {"key": {"seconds": [], "peaks": []}}}',
        '{"schema": 1, "measured": {"key": {"seconds": ["x"], "peaks": [1]}}}',
        '{"schema": 1, "measured": {"key": {"seconds": [NaN], "peaks": [1]}}}',
        '{"schema": 1, "measured": {"key": {"seconds": [-1], "peaks": [1]}}}',
    ],
)
def test_a_file_that_is_wrong_is_set_aside(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    costs = CostModel(path)
    assert costs.predict(unit()) == DEFAULTS[Language.CUDA]
    assert path.with_name("costs.json.unreadable").read_text() == text
    costs.learn(unit(), 10.0, 5)
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
        costs.learn(unit(), 10.0, 5)
    assert costs.predict(unit()) == Prediction(10.0, 5)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1e5), st.integers(0, 10**12)), min_size=1))
def test_a_prediction_lies_within_what_was_measured(samples: list[tuple[float, int]]) -> None:
    measured = Measured()
    for seconds, peak in samples:
        measured = measured.with_one(seconds, peak)
    newest = samples[-KEEP:]
    prediction = measured.prediction()
    assert min(s for s, _ in newest) - 0.01 <= prediction.seconds <= max(s for s, _ in newest) + 0.01
    assert prediction.peak_bytes == max(peak for _, peak in newest)
