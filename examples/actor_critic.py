"""An actor-critic on the pole of `dqn.py`: one Dense head holds policy and value, and its user slices it.

Columns 0 and 1 of the head are the logits of the two actions, column 2 is the value of the state. The gradient of both
is put together by hand, an array of the head's shape, and goes through backward in one piece: advantage actor-critic
(Mnih et al. 2016, section 4) with generalised advantages (Schulman et al. 2016, equation 16) and an entropy bonus.

    python examples/actor_critic.py [--seed 0] [--updates 1000]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from dqn import CartPole

import nbdense as nb

GAMES, STEPS = 8, 16  # side by side, and between updates
DISCOUNT, TRACE = 0.99, 0.95
POLICY, VALUE = slice(0, CartPole.ACTIONS), CartPole.ACTIONS  # columns of the head
VALUE_SHARE, ENTROPY_SHARE = 0.01, 0.01  # values are a hundred times as large as logits
RATE = 5e-3  # at first; it falls to 0


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax of rows."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def advantages(values: np.ndarray, next_values: np.ndarray, lost: np.ndarray, ended: np.ndarray) -> np.ndarray:
    """Generalised advantages of (steps, games): discounted sums of one-step errors up to the end of each game."""
    errors = 1.0 + DISCOUNT * ~lost * next_values - values
    found = np.zeros_like(errors)
    running = np.zeros_like(errors[0])
    for step in reversed(range(len(errors))):
        running = errors[step] + DISCOUNT * TRACE * ~ended[step] * running
        found[step] = running
    return found


def head_gradient(head: np.ndarray, action: np.ndarray, advantage: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the derivative with respect to the head's outputs of the mean over rows of the loss.

    The loss is -advantage log p(action) - ENTROPY_SHARE entropy(p) + VALUE_SHARE (value - wanted)^2.
    """
    p = probabilities(head[:, POLICY])
    log_p = np.log(p)
    taken = np.arange(p.shape[1]) == action[:, np.newaxis]
    entropy = -(p * log_p).sum(axis=1, keepdims=True)
    gradient = np.empty_like(head)
    gradient[:, POLICY] = advantage[:, np.newaxis] * (p - taken) + ENTROPY_SHARE * p * (log_p + entropy)
    gradient[:, VALUE] = VALUE_SHARE * 2.0 * (head[:, VALUE] - wanted)
    return gradient / len(head)


class Games:
    """Poles side by side, each started anew when it falls or has stood for long enough."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._games = [CartPole(rng) for _ in range(GAMES)]
        self.states = np.stack([game.reset() for game in self._games])
        self._ages = np.zeros(GAMES, np.int64)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the state behind each action, whether the game is lost, and whether it ends there; new games begin."""
        results = [game.step(int(action)) for game, action in zip(self._games, actions, strict=True)]
        after, lost = np.stack([state for state, _ in results]), np.array([over for _, over in results])
        self._ages += 1
        ended = lost | (self._ages == CartPole.LONGEST)
        self.states = after.copy()
        for i in np.flatnonzero(ended):
            self.states[i], self._ages[i] = self._games[i].reset(), 0
        return after, lost, ended


def play(model: nb.Sequential, rng: np.random.Generator) -> int:
    """Play one game in which the likelier action is always taken; return its steps."""
    game = CartPole(rng)
    state = game.reset()
    for step in range(1, CartPole.LONGEST + 1):
        state, lost = game.step(int(model.predict(state[np.newaxis])[0, POLICY].argmax()))
        if lost:
            return step
    return CartPole.LONGEST


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train; returns the mean return of 20 games that were not trained on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--updates", type=int, default=1000)
    args = parser.parse_args(argv)

    nb.set_random_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    model = nb.Sequential([nb.Input((CartPole.STATES,)), nb.Dense(64, "tanh"), nb.Dense(CartPole.ACTIONS + 1)])
    model.compile(nb.Adam(RATE), "mse")  # the loss is not used: the gradient is made above
    games = Games(rng)
    before, after = np.zeros((2, STEPS, GAMES, CartPole.STATES), np.float32)
    action = np.zeros((STEPS, GAMES), np.int64)
    lost, ended = np.zeros((2, STEPS, GAMES), bool)
    for update in range(args.updates):
        model.optimizer.learning_rate = RATE * (1.0 - update / args.updates)
        for t in range(STEPS):
            before[t] = games.states
            p = probabilities(model.predict(games.states)[:, POLICY])
            action[t] = rng.random(GAMES) > p[:, 0]
            after[t], lost[t], ended[t] = games.step(action[t])
        head = model.forward(before.reshape(-1, CartPole.STATES), training=True)
        values = head[:, VALUE].reshape(STEPS, GAMES)
        next_values = model.predict(after.reshape(-1, CartPole.STATES))[:, VALUE].reshape(STEPS, GAMES)
        advantage = advantages(values, next_values, lost, ended)
        wanted = advantage + values
        scaled = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        model.backward(head_gradient(head, action.ravel(), scaled.ravel(), wanted.ravel()))
        model.apply_gradients()

    fresh = np.random.default_rng(args.seed + 1)
    score = float(np.mean([play(model, fresh) for _ in range(20)]))
    steps = args.updates * STEPS * GAMES
    print(f"{args.updates} updates, {steps} steps: mean return of 20 new games {score:.1f} of {CartPole.LONGEST}")
    return {"return": score, "steps": steps}


if __name__ == "__main__":
    main()
