"""The examples reach what they say."""

import importlib
import re

import numpy as np
import pytest

from tests.support.source_tree import ROOT

EXAMPLES = ROOT / "examples"


@pytest.fixture
def example(monkeypatch):
    """Import as if run from the folder: examples are no package."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module


def test_readme_lists_every_example():
    listed = re.findall(r"^\| `(\w+\.py)` \|", (EXAMPLES / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in EXAMPLES.glob("*.py"))


def test_dqn_balances_the_pole(example, capsys):
    """From about 22 steps, at random, to nearly all of 200."""
    found = example("dqn").main(["--alone"])
    assert found["return"] > 150
    assert f"{found['steps_per_second']:,.0f} steps of learning a second" in capsys.readouterr().out


def test_online_learning_keeps_up_with_a_stream_that_drifts(example, capsys):
    """The plane turns by 81 degrees while rows are counted: who has stopped is wrong more and more often."""
    found = example("online").main(["--rows", "11000", "--alone"])
    assert found["accuracy"] > 0.9
    assert found["stopped"] < 0.8
    assert f"{found['rows_per_second']:,.0f} rows predicted and learned a second" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["dqn", "online"])
def test_torch_is_asked_only_where_it_is_installed(name, example, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    options = ["--games", "4"] if name == "dqn" else ["--rows", "2100"]
    example(name).main(options)
    assert "torch" not in capsys.readouterr().out


def test_actor_critic_balances_the_pole(example):
    assert example("actor_critic").main([])["return"] > 150


def test_siamese_tells_pairs(example):
    assert example("siamese").main([])["accuracy"] > 0.93


def test_autoencoder_beats_principal_components(example):
    found = example("autoencoder").main(["--epochs", "40"])
    assert found["error"] < 0.75 * found["linear_error"]
    assert found["accuracy"] > 0.92


def test_gradients_made_by_hand_are_slopes(example):
    """The actor-critic's head's and the contrastive loss's, by central differences."""
    rng = np.random.default_rng(0)
    actor_critic, siamese = example("actor_critic"), example("siamese")
    head, action = rng.normal(size=(5, 3)), rng.integers(0, 2, 5)
    advantage, wanted = rng.normal(size=(2, 5))

    def loss_of_head(values):
        p = actor_critic.probabilities(values[:, :2])
        entropy = -(p * np.log(p)).sum(axis=1)
        terms = -advantage * np.log(p[np.arange(5), action]) - actor_critic.ENTROPY_SHARE * entropy
        return (terms + actor_critic.VALUE_SHARE * (values[:, 2] - wanted) ** 2).mean()

    codes, alike = rng.normal(0, 0.3, (2, 6, 4)), np.arange(6) % 2 == 0
    for value, at, gradient in (
        (loss_of_head, head, actor_critic.head_gradient(head, action, advantage, wanted)),
        (lambda c: siamese.contrastive(c, alike)[0], codes, siamese.contrastive(codes, alike)[1]),
    ):
        slopes = np.empty_like(at)
        for index in np.ndindex(at.shape):
            step = np.zeros_like(at)
            step[index] = 1e-6
            slopes[index] = (value(at + step) - value(at - step)) / 2e-6
        np.testing.assert_allclose(gradient, slopes, atol=1e-8)
