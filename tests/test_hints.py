from __future__ import annotations

from sb3_vgs_ppo._hints import did_you_mean


def test_a_close_name_is_offered_and_otherwise_all_of_them() -> None:
    assert did_you_mean("trian", ["train", "inspect"]) == "did you mean 'train'?"
    assert did_you_mean("fly", ["train", "inspect"]) == "known: inspect, train"
    assert did_you_mean("fly", ["train"], "see --help") == "see --help"
    assert did_you_mean("trian", ["train"], "see --help") == "did you mean 'train'?"
