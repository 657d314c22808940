"""Running a search: Optuna chooses options in rounds, and a round's agents are the cells of a study.

What is tried depends on the definition alone. A round's trials are chosen before any of them is trained, each by a
sampler seeded with its number, from the results of all rounds before; so neither the number of workers nor their speed
nor an interruption matters. Optuna's journal has every choice from the moment it is made. An interrupted round is gone
on with: its choices stand, and its cells continue as those of any study.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sb3_vgs_ppo._files import write_json
from sb3_vgs_ppo.errors import StudyError, UserInputError
from sb3_vgs_ppo.runs.engines import Engine
from sb3_vgs_ppo.runs.study import check_study, run_study
from sb3_vgs_ppo.runs.study_display import StudyDisplay
from sb3_vgs_ppo.studies.curves import read_records, step_grid
from sb3_vgs_ppo.studies.definition import Cell, Variant
from sb3_vgs_ppo.studies.scores import score_cell
from sb3_vgs_ppo.studies.search import Choices, Family, Parameter, Search, TrialResult, first_of_equals
from sb3_vgs_ppo.studies.search_tables import write_search_tables
from sb3_vgs_ppo.studies.store import LOCK, StudyStore, differences, lock_folder
from sb3_vgs_ppo.studies.summary import MEASURES

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

SCHEMA = 1
DEFINITION = "search.json"
JOURNAL = "journal.log"
TRIALS = "study"
"""Folder of the study whose variants are the trials."""


@dataclass(frozen=True)
class SearchResult:
    """
    :param trials: those of all finished rounds, round by round
    :param signal_number: the signal that stopped the search, None if it is finished
    """

    trials: list[TrialResult]
    signal_number: int | None = None


def check_search(search: Search) -> None:
    """
    Check the environment, and every option at every extreme of its space, before hours of training.

    :raises UserInputError: Optuna is missing, or an environment or option cannot be used
    """
    _require_optuna()
    for family in search.families:
        for number, values in enumerate(family.corners()):
            try:
                check_study(search.study([family.variant(number, values)]))
            except UserInputError as error:
                raise StudyError(f"family {family.name!r}: {error}") from None


def run_search(
    search: Search, out: Path, make_engine: Callable[[], Engine], make_display: Callable[[], StudyDisplay]
) -> SearchResult:
    """
    Try out all trials that are not finished yet. After every round, ``trials.csv`` and ``best.yaml`` are written.

    :param search: a search that was checked
    :param out: new or empty folder, or that of the same search, perhaps with fewer trials
    :param make_engine: makes what a round's cells are trained by
    :param make_display: makes what the user sees of a round
    :raises UserInputError: Optuna is missing
    :raises StudyError: the folder holds something else, another process searches in it, or a cell failed
    :raises KeyboardInterrupt: a second signal
    """
    _require_optuna()
    _make_folder(out)
    with lock_folder(out):
        _keep_definition(search, out / DEFINITION)
        storage = _open_journal(out / JOURNAL)
        sequences = [_Trials(storage, search, family) for family in search.families]
        results: list[TrialResult] = []
        for start in range(0, search.n_trials, search.batch_size):
            numbers = range(start, min(start + search.batch_size, search.n_trials))
            round_ = [(trials, number, trials.choose(number)) for number in numbers for trials in sequences]
            first_of = _first_of_equals(sequences)
            variants = [first_of[trials.family.name, number] for trials, number, _ in round_]
            StudyStore.create_or_open(out / TRIALS, search.study(_distinct(first_of.values())), extend=True)
            store = StudyStore(out / TRIALS, search.study(_distinct(variants)))  # looks at this round's cells alone
            display = make_display()
            display.message(f"Trials {numbers[0] + 1} to {numbers[-1] + 1} of {search.n_trials} of every family")
            signal_number = _train(store, make_engine(), display)
            if signal_number is not None:
                return SearchResult(results, signal_number)
            scores = _scores(store, search)
            for (trials, number, trial), variant in zip(round_, variants, strict=True):
                results.append(TrialResult(trials.family.name, number, trial.params, variant, scores[variant.name]))
                trials.finish(trial, results[-1].mean)
            write_search_tables(search, results, out)
        return SearchResult(results)


class _Trials:
    """
    The trials of one family, as an Optuna study in the journal.

    :param storage: the journal
    """

    def __init__(self, storage: BaseStorage, search: Search, family: Family) -> None:
        import optuna

        self.family = family
        self.seed = search.sampler_seed
        self.distributions = {parameter.path: _distribution(parameter) for parameter in family.space}
        self.study = optuna.create_study(
            storage=storage, study_name=family.name, direction="maximize", load_if_exists=True
        )
        for trial in self.study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
            if not self._is_whole(trial):  # killed while it was chosen
                self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)

    def choose(self, number: int) -> FrozenTrial:
        """
        :param number: among the trials that were chosen as a whole; one that was not, is chosen now
        :return: the trial
        """
        import optuna

        if number == len(self.chosen()):
            words = np.random.SeedSequence([self.seed, *self.family.name.encode(), number]).generate_state(1)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                # The trials of a round, which have no value yet, count as bad: it spreads over the space
                self.study.sampler = optuna.samplers.TPESampler(seed=int(words[0]), constant_liar=True)
            self.study.ask(self.distributions)
        return self.chosen()[number]

    def finish(self, trial: FrozenTrial, mean: float) -> None:
        """
        :param trial: trial that was chosen; one that has its value already is left alone
        :param mean: its value; NaN if there is none
        """
        import optuna

        if trial.state.is_finished():
            return
        if math.isnan(mean):
            self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        else:
            self.study.tell(trial.number, mean)

    def chosen(self) -> list[FrozenTrial]:
        """:return: trials with all of their values, in the order in which they were chosen"""
        return [trial for trial in self.study.get_trials(deepcopy=False) if self._is_whole(trial)]

    def _is_whole(self, trial: FrozenTrial) -> bool:
        return trial.params.keys() == self.distributions.keys()


def _require_optuna() -> None:
    try:
        import optuna
    except ImportError:
        raise UserInputError("a search needs Optuna; remedy: pip install 'sb3-vgs-ppo[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def _distribution(parameter: Parameter) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(parameter, Choices):
        return CategoricalDistribution(parameter.values)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def _make_folder(out: Path) -> None:
    """:raises StudyError: it holds something else than a search, or cannot be made"""
    is_new = not (out / DEFINITION).exists()
    try:
        if is_new and out.exists() and (not out.is_dir() or any(entry.name != LOCK for entry in out.iterdir())):
            raise StudyError(f"{out} is not empty and no search; remedy: another --out")
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(f"{out} cannot be written: {error.strerror}; remedy: another --out") from None


def _keep_definition(search: Search, path: Path) -> None:
    """Write the definition, or compare it with the one that is there; more trials are no other search."""
    values = json.loads(json.dumps(search.to_mapping()))
    if path.exists():
        try:
            old = json.loads(path.read_text(encoding="utf-8"))["search"]
        except (OSError, ValueError, KeyError) as error:
            raise StudyError(f"{path} cannot be read: {type(error).__name__}: {error}; remedy: another --out") from None
        changes = differences({**old, "n_trials": max(old["n_trials"], search.n_trials)}, values)
        if changes:
            raise StudyError(
                f"{path.parent} holds a search of another definition: {'; '.join(changes)}; remedy: another --out"
            )
    write_json(path, {"schema": SCHEMA, "search": values})


def _open_journal(path: Path) -> BaseStorage:
    """:return: the journal, without what a killed process left of its last line, and without its lock"""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path.touch()
    content = path.read_bytes()
    with path.open("r+b") as file:
        file.truncate(content.rfind(b"\n") + 1)
    for lock in path.parent.glob(f"{path.name}.lock*"):  # nobody else is here: we hold the folder
        lock.unlink()
    return JournalStorage(JournalFileBackend(str(path.resolve())))


def _first_of_equals(sequences: Sequence[_Trials]) -> dict[tuple[str, int], Variant]:
    """:return: of all trials chosen so far, by family and number, the first one's variant with the same options"""
    chosen = [(number, trials.family, trial) for trials in sequences for number, trial in enumerate(trials.chosen())]
    chosen.sort(key=lambda entry: entry[0])  # so that the order stays when more are chosen
    variants = first_of_equals(family.variant(number, trial.params) for number, family, trial in chosen)
    return {(family.name, number): variant for (number, family, _), variant in zip(chosen, variants, strict=True)}


def _distinct(variants: Iterable[Variant]) -> list[Variant]:
    return list({variant.name: variant for variant in variants}.values())


def _train(store: StudyStore, engine: Engine, display: StudyDisplay) -> int | None:
    """
    :return: the signal that stopped the round, None if all of its cells are done
    :raises StudyError: a cell failed
    """
    progress, signal_number = run_study(store, engine, display)
    if signal_number is None and progress.failed:
        cell, reason = next(iter(progress.failed.items()))
        raise StudyError(f"{len(progress.failed)} cells failed; the same command tries them again. {cell}: {reason}")
    return signal_number


def _scores(store: StudyStore, search: Search) -> dict[str, tuple[float, ...]]:
    """:return: by variant the objective of each seed"""
    study, measure, records = store.study, MEASURES[search.objective], read_records(store)
    grid, length = step_grid(search.total_timesteps), study.phase_length(search.env_id)

    def score(variant: str, seed: int) -> float:
        return measure(score_cell(records[Cell(search.env_id, variant, seed)], grid, length, threshold=None))

    return {variant.name: tuple(score(variant.name, seed) for seed in search.seeds) for variant in study.variants}
