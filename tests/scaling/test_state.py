"""State dicts: exact continuation, migration between versions, and what is refused."""

from __future__ import annotations

import io
import itertools
import math
import warnings
from typing import Any

import pytest
import torch as th

from sb3_vgs_ppo.errors import CheckpointError, VGSMigrationWarning
from sb3_vgs_ppo.scaling import KNOWN_VERSIONS, VarianceGradientScaler, migrate_state, parse_state

SETTINGS = {
    "enabled": True,
    "beta": 0.9,
    "alpha": 0.3,
    "eps": 1e-6,
    "warmup_steps": 5,
    "min_scaling_factor": 0.01,
    "variance_cap": 1e3,
}
FIGURES = ("grad_mean_ema", "grad_var_ema", "grad_norm_ema", "grad_max_ema")
AVERAGES = ("param_grad_mean_ema", "param_grad_sq_ema")
ELEMENT_AVERAGES = ("element_grad_mean_ema", "element_grad_var_ema")
APPLICATION = {"granularity": "tensor", "apply_to": "gradient", "momentum": None}
SIZES = (4, 3)

each_version = pytest.mark.parametrize("version", KNOWN_VERSIONS)
MIGRATIONS = list(itertools.permutations(KNOWN_VERSIONS, 2))


def averages_of(version: str) -> tuple[str, str]:
    return ELEMENT_AVERAGES if version == "4.0" else AVERAGES


def make(version: str, **settings: Any) -> VarianceGradientScaler:
    return VarianceGradientScaler([th.nn.Parameter(th.zeros(size)) for size in SIZES], version, **settings)


def train(scaler: VarianceGradientScaler, steps: range) -> list[float]:
    factors = []
    for step in steps:
        generator = th.Generator().manual_seed(step)
        for parameter in scaler.parameters:
            parameter.grad = th.randn(parameter.shape, generator=generator) + th.randn((), generator=generator) + 0.5
        factors.append(scaler.scale_gradients())
        scaler.step()
    return factors


def trained(version: str) -> VarianceGradientScaler:
    scaler = make(version, **SETTINGS)
    train(scaler, range(12))
    return scaler


def state_of(version: str) -> dict[str, Any]:
    return trained(version).state_dict()


def equal_states(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(
        th.equal(a[key], b[key]) if isinstance(a[key], th.Tensor) else a[key] == b[key] for key in a
    )


def load_quietly(scaler: VarianceGradientScaler, state: Any, **kwargs: Any) -> None:
    """Load a state where a migration is not what is tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VGSMigrationWarning)
        scaler.load_state_dict(state, **kwargs)


class TestFormat:
    @each_version
    def test_keys(self, version: str) -> None:
        expected = {"vgs_version", *SETTINGS, "step_count", *FIGURES}
        if version != "1.0":
            expected |= {*averages_of(version), "param_numel", "param_ema_weight"}
        if version == "4.0":
            expected |= {*APPLICATION}
        state = state_of(version)
        assert state.keys() == expected
        assert state["vgs_version"] == version
        assert state["step_count"] == 12
        assert {key: state[key] for key in SETTINGS} == SETTINGS
        assert all(type(state[key]) is float for key in FIGURES)

    @each_version
    def test_figures_are_none_before_anything_was_observed(self, version: str) -> None:
        assert [make(version).state_dict()[key] for key in FIGURES] == [None] * 4

    @pytest.mark.parametrize("version", ["2.0", "3.0", "3.1"])
    def test_per_tensor_fields_hold_what_the_table_says(self, version: str) -> None:
        scaler = make(version, beta=0.9)
        gradient = th.tensor([1.0, -2.0, 3.0, -6.0])
        scaler.parameters[0].grad = gradient
        scaler.step()
        state = scaler.state_dict()
        # mean −1, mean|g| 3, mean g² 12.5, biased variance 11.5; EMA1 starts at the value, EMA0 holds a tenth of it
        mean, second = {"2.0": (3.0, 11.5), "3.0": (-0.1, 0.1), "3.1": (-0.1, 1.25)}[version]
        assert state["param_grad_mean_ema"].tolist() == pytest.approx([mean, 0.0], rel=1e-12)
        assert state["param_grad_sq_ema"].tolist() == pytest.approx([second, 0.0], rel=1e-12)
        assert state["param_ema_weight"].tolist() == pytest.approx([1.0 if version == "2.0" else 0.1, 0.0], rel=1e-12)
        assert state["param_numel"].tolist() == [4, 3]

    @each_version
    def test_reading_back_needs_no_pickle(self, version: str) -> None:
        file = io.BytesIO()
        th.save(state_of(version), file)
        file.seek(0)
        assert equal_states(th.load(file, weights_only=True), state_of(version))

    def test_state_is_a_copy(self) -> None:
        scaler = trained("3.0")
        state, before = scaler.state_dict(), scaler.get_normalized_variance()
        for value in state.values():
            if isinstance(value, th.Tensor):
                value.zero_()
        assert scaler.get_normalized_variance() == before

    def test_loaded_state_is_a_copy(self) -> None:
        scaler, state = make("3.0"), state_of("3.0")
        scaler.load_state_dict(state)
        before = scaler.get_normalized_variance()
        state["param_grad_sq_ema"].fill_(1e9)
        train(scaler, range(1))
        assert scaler.get_normalized_variance() < 1e3 > before


class TestContinuation:
    @each_version
    @pytest.mark.filterwarnings("error")
    def test_same_version_continues_bit_for_bit(self, version: str) -> None:
        original, restored = trained(version), make(version)
        restored.load_state_dict(original.state_dict())
        assert equal_states(restored.state_dict(), original.state_dict())
        factors = train(original, range(12, 100))
        assert train(restored, range(12, 100)) == factors
        assert min(factors) < 0.99
        assert equal_states(restored.state_dict(), original.state_dict())

    @each_version
    def test_readings_are_the_same_after_loading(self, version: str) -> None:
        """To the last digit, whatever the order in which many elements are added up while training."""
        original, restored = (VarianceGradientScaler([th.nn.Parameter(th.zeros(999))], version) for _ in range(2))
        for step in range(20):
            train(original, range(step, step + 1))
            restored.load_state_dict(original.state_dict())
            assert restored.get_normalized_variance() == original.get_normalized_variance()

    def test_enabled_is_taken_over(self) -> None:
        scaler = make("3.0")
        scaler.load_state_dict({**state_of("3.0"), "enabled": False})
        assert scaler.enabled is False
        assert train(scaler, range(3)) == [1.0] * 3

    @each_version
    def test_continues_within_warm_up(self, version: str) -> None:
        scaler = make(version, **SETTINGS)
        train(scaler, range(3))
        restored = make(version)
        restored.load_state_dict(scaler.state_dict())
        assert [factor == 1.0 for factor in train(restored, range(3, 7))] == [True, True, False, False]

    @pytest.mark.parametrize(
        ("found", "measure"), [("2.0.1", "2.0"), ("1.5", "1.0"), ("1.0.2", "1.0"), ("1", "1.0"), ("3.2", "3.1")]
    )
    @pytest.mark.filterwarnings("error")
    def test_other_names_of_the_same_measure(self, found: str, measure: str) -> None:
        original, restored = trained(measure), make(measure)
        restored.load_state_dict({**original.state_dict(), "vgs_version": found})
        assert equal_states(restored.state_dict(), original.state_dict())

    @pytest.mark.filterwarnings("error")
    def test_a_state_without_version_is_1_0(self) -> None:
        state = state_of("1.0")
        del state["vgs_version"]
        restored = make("1.0")
        restored.load_state_dict(state)
        assert restored.get_normalized_variance() == trained("1.0").get_normalized_variance() > 0.0

    @pytest.mark.parametrize("version", ["2.0", "3.0", "3.1"])
    @pytest.mark.parametrize("convert", [th.Tensor.tolist, th.Tensor.float, th.Tensor.clone], ids=lambda f: f.__name__)
    def test_legacy_files_count_for_all_tensors_together(self, version: str, convert: Any) -> None:
        """No ``param_ema_weight``, and statistics as lists or float32: the step count gives the bias correction."""
        original, restored = trained(version), make(version)
        state = original.state_dict()
        del state["param_ema_weight"]
        for key in (*AVERAGES, "param_numel"):
            state[key] = convert(state[key])
        restored.load_state_dict(state)
        assert restored.get_normalized_variance() == pytest.approx(original.get_normalized_variance(), rel=1e-4)

    @pytest.mark.parametrize("version", ["2.0", "3.0", "3.1"])
    def test_none_where_legacy_code_never_observed(self, version: str) -> None:
        state = {**make(version).state_dict(), **dict.fromkeys(AVERAGES)}
        del state["param_ema_weight"]
        restored = make(version)
        restored.load_state_dict(state)
        assert train(restored, range(12)) == train(make(version), range(12))
        assert restored.get_normalized_variance() > 0.0

    @each_version
    def test_figures_that_a_nan_poisoned_start_afresh(self, version: str) -> None:
        state = {**state_of(version), "grad_mean_ema": math.nan, "grad_var_ema": th.tensor(math.inf)}
        restored = make(version)
        restored.load_state_dict(state)
        assert [restored.state_dict()[key] is None for key in FIGURES] == [True, True, False, False]
        train(restored, range(5))
        assert all(math.isfinite(restored.state_dict()[key]) for key in FIGURES)

    def test_staged_statistics_are_dropped(self) -> None:
        scaler = make("3.0")
        scaler.parameters[0].grad = th.ones(4)
        scaler.observe()
        scaler.load_state_dict(state_of("3.0"))
        scaler.parameters[0].grad = None
        scaler.step()
        assert scaler.state_dict()["step_count"] == 12


class TestMigration:
    @pytest.mark.parametrize(("source", "target"), MIGRATIONS)
    def test_one_warning_and_a_restart(self, source: str, target: str) -> None:
        state, scaler = state_of(source), make(target)
        train(scaler, range(30))
        with pytest.warns(VGSMigrationWarning) as caught:
            scaler.load_state_dict(state)
        assert len(caught) == 1
        assert caught[0].filename == __file__  # it points at the caller
        migrated = scaler.state_dict()
        assert scaler.version == migrated["vgs_version"] == target
        assert migrated["step_count"] == 0
        assert {key: migrated[key] for key in SETTINGS} == SETTINGS
        assert [migrated[key] for key in FIGURES] == [state[key] for key in FIGURES]
        if target != "1.0":
            assert all(not migrated[key].any() for key in (*averages_of(target), "param_ema_weight"))
        # warm-up runs again, and the statistics are those of a scaler that never saw the state
        factors = train(scaler, range(8))
        assert [factor == 1.0 for factor in factors] == [True] * 5 + [False] * 3
        if target != "1.0":
            assert factors == train(make(target, **SETTINGS), range(8))

    @pytest.mark.parametrize("found", ["1.0", "1.3", "2.0", "2.0.1", None])
    @pytest.mark.parametrize("target", ["3.0", "3.1"])
    def test_message_of_the_critical_fix(self, found: str | None, target: str) -> None:
        state = state_of("1.0" if found is None or found[0] == "1" else "2.0")
        state.pop("vgs_version")
        if found is not None:
            state["vgs_version"] = found
        with pytest.warns(VGSMigrationWarning) as caught:
            make(target).load_state_dict(state)
        text = str(caught[0].message)
        for part in (
            "VGS v3.0 CRITICAL FIX",
            f"version {found or '1.0'}",
            "SPATIAL variance",
            "v3.0 computes STOCHASTIC variance",
            "over time",
            "RESET",
            "Retraining is recommended",
        ):
            assert part in text

    @pytest.mark.parametrize(("source", "target"), [m for m in MIGRATIONS if not (m[0] < "3" <= m[1])])
    def test_other_migrations_claim_no_fix(self, source: str, target: str) -> None:
        with pytest.warns(VGSMigrationWarning) as caught:
            make(target).load_state_dict(state_of(source))
        text = str(caught[0].message)
        assert "CRITICAL FIX" not in text
        assert f"version {source} into a scaler of version {target}" in text
        assert "RESET" in text

    @pytest.mark.parametrize("source", ["1.0", "2.0"])
    def test_a_steady_gradient_reads_zero_after_a_migration(self, source: str) -> None:
        """With ``step_count`` kept, empty averages would count as full and 0.25 would read 120."""
        legacy, scaler = make(source), make("3.0", warmup_steps=1)
        for current in (legacy, scaler):
            for _ in range(500 if current is legacy else 1):
                for parameter in current.parameters:
                    parameter.grad = th.full_like(parameter, 0.25)
                current.step()
            if current is legacy:
                load_quietly(scaler, legacy.state_dict())
        assert scaler.get_normalized_variance() == pytest.approx(0.0, abs=1e-9)

    @pytest.mark.filterwarnings("error")
    def test_a_warning_that_is_an_error_changes_nothing(self) -> None:
        scaler, state = trained("3.0"), {**state_of("2.0"), "alpha": 0.9}
        before = scaler.state_dict()
        with pytest.raises(VGSMigrationWarning):
            scaler.load_state_dict(state)
        assert equal_states(scaler.state_dict(), before)

    def test_migrating_is_a_pure_function(self) -> None:
        parsed = parse_state(state_of("2.0"))
        before = dict(parsed)
        migrated = migrate_state(parsed, "3.1")
        assert equal_states(parsed, before)
        assert migrated["vgs_version"] == "3.1"
        assert migrate_state(parsed, "2.0") is parsed
        # what it writes can be read again, without a warning, by a scaler of that version
        restored = make("3.1")
        restored.load_state_dict(migrated)
        assert restored.state_dict()["step_count"] == 0


class TestRefusals:
    """Each error names the field, and the scaler stays as it was."""

    @staticmethod
    def refused(state: Any, field: str, version: str = "3.0", **kwargs: Any) -> None:
        scaler = trained(version)
        before = scaler.state_dict()
        scaler.parameters[0].grad = th.ones(4)
        scaler.observe()
        with pytest.raises(CheckpointError, match=field):
            load_quietly(scaler, state, **kwargs)
        assert equal_states(scaler.state_dict(), before)
        scaler.step()  # what was staged is still there
        assert scaler.state_dict()["step_count"] == 13

    @pytest.mark.parametrize("found", ["4.0.1", "9.9", "2.1", "banana", "", 3.0, None, ["3.0"]])
    def test_unknown_versions(self, found: Any) -> None:
        self.refused({**state_of("3.0"), "vgs_version": found}, "vgs_version.*1.0, 2.0, 3.0, 3.1")

    @pytest.mark.parametrize("source", KNOWN_VERSIONS)
    @pytest.mark.parametrize("target", ["1.0", "3.0"])
    def test_missing_fields(self, source: str, target: str) -> None:
        complete = state_of(source)
        for field in complete.keys() - {"vgs_version", "param_ema_weight"}:
            self.refused({k: v for k, v in complete.items() if k != field}, f"'{field}' is missing", target)

    @pytest.mark.parametrize("source", ["2.0", "3.0", "3.1"])
    @pytest.mark.parametrize("field", [*AVERAGES, "param_numel", "param_ema_weight"])
    @pytest.mark.parametrize(
        "value",
        ["full", [1.0], [1.0, 2.0, 3.0], [[1.0, 2.0]], th.zeros(2, 1), ["a", "b"], {"0": 1.0}, th.tensor(1.0)],
        ids=str,
    )
    def test_per_tensor_fields_of_wrong_shape_or_type(self, source: str, field: str, value: Any) -> None:
        self.refused({**state_of(source), field: value}, "param_")

    def test_the_field_that_is_wrong_is_the_one_named(self) -> None:
        for field in (*AVERAGES, "param_ema_weight"):
            self.refused({**state_of("3.0"), field: [1.0] * 3}, f"'{field}' has 3 entries for 2 tensors")
            self.refused({**state_of("3.0"), field: [1.0, math.nan]}, f"'{field}' holds NaN")
            self.refused({**state_of("3.0"), field: [True, False]}, f"'{field}' must be a vector of numbers")
        self.refused({**state_of("3.0"), "param_grad_sq_ema": None}, "'param_grad_sq_ema' is None")
        self.refused({**state_of("3.0"), "param_numel": None}, "'param_numel' is None")

    @pytest.mark.parametrize("source", ["2.0", "3.0"])
    @pytest.mark.parametrize("sizes", [(4,), (3, 4), (4, 3, 2)])
    def test_states_of_other_tensors(self, source: str, sizes: tuple[int, ...]) -> None:
        other = VarianceGradientScaler([th.nn.Parameter(th.zeros(size)) for size in sizes], source)
        self.refused(other.state_dict(), f"param_numel.*{len(sizes)} tensors with {sum(sizes)} elements")

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("beta", 1.0),
            ("beta", "0.9"),
            ("alpha", -1.0),
            ("alpha", None),
            ("eps", 0.0),
            ("warmup_steps", 1.5),
            ("min_scaling_factor", 2.0),
            ("variance_cap", math.nan),
            ("enabled", "yes"),
            ("enabled", 1),
            ("step_count", -1),
            ("step_count", 2.5),
            ("step_count", True),
            ("step_count", None),
            *[(figure, "high") for figure in FIGURES],
            ("grad_mean_ema", [1.0]),
            ("grad_mean_ema", True),
        ],
    )
    @pytest.mark.parametrize("source", ["1.0", "3.0"])
    def test_bad_values(self, source: str, field: str, value: Any) -> None:
        self.refused({**state_of(source), field: value}, field)

    @pytest.mark.parametrize("state", [None, [], "3.0", 1])
    def test_what_is_no_dictionary(self, state: Any) -> None:
        self.refused(state, "expected a dictionary")


class TestStrict:
    def test_unknown_keys(self) -> None:
        state = {**state_of("3.0"), "lottery": 1}
        TestRefusals.refused(state, "'lottery' is not a field")
        scaler = make("3.0")
        scaler.load_state_dict(state, strict=False)
        assert equal_states(scaler.state_dict(), state_of("3.0"))

    @pytest.mark.parametrize("field", [*SETTINGS, *FIGURES])
    def test_gaps_are_filled_from_the_scaler(self, field: str) -> None:
        state, scaler = state_of("3.0"), make("3.0", alpha=0.7, enabled=False, warmup_steps=9)
        before = scaler.state_dict()
        del state[field]
        scaler.load_state_dict(state, strict=False)
        after = scaler.state_dict()
        assert after[field] == before[field]
        assert after["step_count"] == 12

    @pytest.mark.parametrize("field", ["step_count", *AVERAGES, "param_numel"])
    def test_statistics_are_never_optional(self, field: str) -> None:
        state = state_of("3.0")
        del state[field]
        TestRefusals.refused(state, f"'{field}' is missing", strict=False)
