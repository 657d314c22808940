from __future__ import annotations

from pathlib import Path

from sb3_vgs_ppo.studies.episodes import read_episodes


def test_episodes_of_two_environments_in_the_order_of_their_ends(tmp_path: Path) -> None:
    (tmp_path / "0.monitor.csv").write_text('#{"t_start": 0}\nr,l,t\n1.5,10,0.1\n2.5,5,0.2\n')
    (tmp_path / "1.monitor.csv").write_text('#{"t_start": 0}\nr,l,t\n-3.0,12,0.1\n')
    episodes = read_episodes(tmp_path)
    assert episodes.steps.tolist() == [20, 24, 30]  # both environments have stepped 10, 12 and 15 times
    assert episodes.rewards.tolist() == [1.5, -3.0, 2.5]
    assert len(episodes) == 3


def test_no_episode_has_ended(tmp_path: Path) -> None:
    (tmp_path / "0.monitor.csv").write_text('#{"t_start": 0}\nr,l,t\n')
    assert len(read_episodes(tmp_path)) == 0


def test_an_episode_that_a_checkpoint_cut_off_counts_for_the_steps_of_later_ones(tmp_path: Path) -> None:
    (tmp_path / "0.monitor.csv").write_text('#{"t_start": 0}\nr,l,t\n1.5,10,0.1\nnan,6,0.2\n2.5,5,0.3\n')
    episodes = read_episodes(tmp_path)
    assert episodes.steps.tolist() == [10, 21]
    assert episodes.rewards.tolist() == [1.5, 2.5]
