"""Configs of RL2."""

from metarl.config_files import load_config


def test_a_config_is_read_without_the_environment_that_it_needs(tmp_path, monkeypatch):
    """Meta-World's action space is known to another interpreter, which may not be set up."""
    monkeypatch.setenv("METARL_HOME", str(tmp_path))
    assert load_config("metaworld_ml1/rl2").agent.kind == "rl2"
