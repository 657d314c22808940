from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from sb3_vgs_ppo._alarms import ALARMS_FILE, Alarm, append_alarm
from sb3_vgs_ppo.studies.definition import Cell, Study, Variant
from sb3_vgs_ppo.studies.store import StudyStore

WriteCell = Callable[..., None]
VERSIONS = {"torch": "2.13.0", "numpy": "2.2.6"}


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., StudyStore]:
    def make(
        variants: Sequence[Variant | str] = ("off", "on"),
        *,
        env_ids: Sequence[str] = ("CartPole-v1",),
        seeds: Sequence[int] = (0, 1, 2, 3, 4),
        total_timesteps: int = 1_000,
        **fields: object,
    ) -> StudyStore:
        # Two variants with the same options would be refused
        made = [
            variant if isinstance(variant, Variant) else Variant(variant, {"algo_kwargs": {"n_epochs": 1 + number}})
            for number, variant in enumerate(variants)
        ]
        study = Study(
            env_ids=tuple(env_ids),
            variants=tuple(made),
            seeds=tuple(seeds),
            total_timesteps=total_timesteps,
            baseline=made[0].name,
            **fields,  # type: ignore[arg-type]
        )
        return StudyStore.create_or_open(tmp_path / "study", study)

    return make


@pytest.fixture
def write_cell() -> WriteCell:
    """Writes the files of a cell as a run would, and its mark."""

    def write(
        store: StudyStore,
        cell: Cell,
        episodes: Sequence[Sequence[tuple[float, int]]],
        progress: str | None = None,
        *,
        state: str = "finished",
        first_step: int = 0,
        evaluation: float = 0.0,
        alarms: Sequence[Alarm] | None = None,
        calibration: str | None = None,
        commit: str = "0123abc",
    ) -> None:
        """
        :param episodes: per environment the return and length of its episodes
        :param progress: ``progress.csv``
        :param alarms: changes that it noticed; None: it did not test for any
        :param calibration: ``calibration.csv``
        """
        folder = store.folder(cell)
        (folder / "monitor").mkdir(parents=True)
        for number, of_env in enumerate(episodes):
            rows = "".join(f"{reward},{length},0.1\n" for reward, length in of_env)
            (folder / "monitor" / f"{number}.monitor.csv").write_text(f'#{{"t_start": 0}}\nr,l,t\n{rows}')
        if progress is not None:
            (folder / "progress.csv").write_text(progress)
        if calibration is not None:
            (folder / "calibration.csv").write_text(calibration)
        for alarm in alarms or ():
            append_alarm(folder / ALARMS_FILE, alarm)
        options = {"on_change": "none" if alarms is None else "report"}
        config = {"options": options, "versions": VERSIONS, "git": {"commit": commit, "modified": False}}
        (folder / "config.json").write_text(json.dumps(config))
        summary = {"final_mean_reward": evaluation, "steps_per_second": 500.0} if state == "finished" else None
        cause = None if state == "finished" else "8 updates in a row were not finite"
        status = {"state": state, "num_timesteps": 1_000, "cause": cause, "summary": summary}
        (folder / "status.json").write_text(json.dumps(status))
        store.mark_done(cell, first_step)

    return write
