"""Deep Q-learning of pole balancing in one's own loop: forward, a gradient made by hand, backward, apply_gradients.

The method is Mnih et al. 2015 (replay memory, target network), with the action of the next state chosen by the online
network (van Hasselt et al. 2016). The environment, the memory and the loss are a few lines of NumPy each. A random
player keeps the pole up for about 22 steps; this one stops when it has kept it up for 200 in ten games out of ten. At
the end it says how many steps of learning it takes in a second, and, where torch is installed, how many torch takes.

    python examples/dqn.py [--seed 0] [--games 400] [--alone]
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import timeit
from collections.abc import Callable, Sequence

import numpy as np

import nbdense as nb


class CartPole:
    """A pole on a cart that is pushed left or right: Barto, Sutton and Anderson 1983, without friction.

    A state is (position in m, its rate, angle in rad, its rate). The reward is 1 a step; the game is lost beyond 2.4 m
    or 12 degrees.
    """

    GRAVITY, CART, POLE, HALF_LENGTH, FORCE, SECONDS = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
    STATES, ACTIONS, LONGEST = 4, 2, 200

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self.state = np.zeros(4, np.float32)

    def reset(self) -> np.ndarray:
        """Begin a new game: near the middle, nearly upright."""
        self.state = self._rng.uniform(-0.05, 0.05, 4).astype(np.float32)
        return self.state

    def step(self, action: int) -> tuple[np.ndarray, bool]:
        """Push left (0) or right (1) for a fiftieth of a second: the next state, and whether the game is lost."""
        x, speed, angle, turn = map(float, self.state)
        total, moment = self.CART + self.POLE, self.POLE * self.HALF_LENGTH
        sine, cosine = math.sin(angle), math.cos(angle)
        push = ((self.FORCE if action else -self.FORCE) + moment * turn * turn * sine) / total
        swing = self.GRAVITY * sine - cosine * push
        swing /= self.HALF_LENGTH * (4 / 3 - self.POLE * cosine * cosine / total)
        pull = push - moment * swing * cosine / total
        now = (x, speed, angle, turn)
        rates = (speed, pull, turn, swing)
        self.state = np.array([a + self.SECONDS * b for a, b in zip(now, rates, strict=True)], np.float32)
        return self.state, abs(self.state[0]) > 2.4 or abs(self.state[2]) > math.radians(12)


class Memory:
    """The last so many transitions, in arrays that are written round and round."""

    def __init__(self, size: int, states: int) -> None:
        self.before, self.after = np.zeros((2, size, states), np.float32)
        self.action, self.lost = np.zeros(size, np.int64), np.zeros(size, bool)
        self.size, self.count = size, 0

    def add(self, before: np.ndarray, action: int, after: np.ndarray, lost: bool) -> None:
        """Write one transition over the oldest."""
        i = self.count % self.size
        self.before[i], self.action[i], self.after[i], self.lost[i] = before, action, after, lost
        self.count += 1

    def draw(self, rng: np.random.Generator, rows: int) -> tuple[np.ndarray, ...]:
        """Draw a random batch: states, actions, next states, whether they were the end."""
        i = rng.integers(0, min(self.count, self.size), rows)
        return self.before[i], self.action[i], self.after[i], self.lost[i]


def q_network() -> nb.Sequential:
    """States to the value of each action."""
    model = nb.Sequential([nb.Input((CartPole.STATES,)), nb.Dense(64, "relu"), nb.Dense(64, "relu")])
    model.add(nb.Dense(CartPole.ACTIONS))
    model.compile(nb.Adam(1e-3), "mse")  # the loss is not used: the gradient is made below
    return model


def learn(online: nb.Sequential, target: nb.Sequential, batch: tuple[np.ndarray, ...], discount: float) -> float:
    """One step on the Huber loss between the values of the actions taken and what came of them; returns its error."""
    before, action, after, lost = batch
    rows = np.arange(len(action))
    best = online.predict(after).argmax(axis=1)
    wanted = 1.0 + discount * ~lost * target.predict(after)[rows, best]
    values = online.forward(before, training=True)
    error = values[rows, action] - wanted
    gradient = np.zeros_like(values)
    gradient[rows, action] = np.clip(error, -1.0, 1.0) / len(rows)  # Huber's derivative; the other action's is 0
    online.backward(gradient)
    online.apply_gradients()
    return float(np.abs(error).mean())


def learn_in_torch() -> Callable[[tuple[np.ndarray, ...], float], float]:
    """Return the same step of the same networks in torch."""
    import torch
    from torch import nn

    online, target = (
        nn.Sequential(
            nn.Linear(CartPole.STATES, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CartPole.ACTIONS)
        )
        for _ in range(2)
    )
    optimizer = torch.optim.Adam(online.parameters(), 1e-3)

    def learn(batch: tuple[np.ndarray, ...], discount: float) -> float:
        before, action, after, lost = map(torch.from_numpy, batch)
        with torch.no_grad():
            best = online(after).argmax(dim=1, keepdim=True)
            wanted = 1.0 + discount * ~lost * target(after).gather(1, best)[:, 0]
        values = online(before).gather(1, action[:, None])[:, 0]
        optimizer.zero_grad()
        nn.functional.smooth_l1_loss(values, wanted).backward()
        optimizer.step()
        return float((values.detach() - wanted).abs().mean())

    return learn


def per_second(step: Callable[[], object]) -> float:
    """Return how often a step is taken in a second."""
    step()
    count, seconds = timeit.Timer(step).autorange()
    return count / seconds


def play(model: nb.Sequential, rng: np.random.Generator) -> int:
    """Play one game in which the best action is always taken; return its steps."""
    game = CartPole(rng)
    state = game.reset()
    for step in range(1, CartPole.LONGEST + 1):
        state, lost = game.step(int(model.predict(state[np.newaxis]).argmax()))
        if lost:
            return step
    return CartPole.LONGEST


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train; returns the mean return of 20 games that were not trained on, and the games that it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--games", type=int, default=400, help="at most")
    parser.add_argument("--alone", action="store_true", help="leave torch out, though it is installed")
    args = parser.parse_args(argv)

    nb.set_random_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    online, target = q_network(), q_network()
    memory, game = Memory(20_000, CartPole.STATES), CartPole(rng)
    steps, games, won = 0, 0, False
    while games < args.games and not won:
        state, games = game.reset(), games + 1
        for _ in range(CartPole.LONGEST):
            exploring = max(0.05, 1.0 - steps / 2000)
            values = online.predict(state[np.newaxis])
            action = int(rng.integers(CartPole.ACTIONS)) if rng.random() < exploring else int(values.argmax())
            after, lost = game.step(action)
            memory.add(state, action, after, lost)  # the end by time is no end: it bootstraps
            state, steps = after, steps + 1
            if steps >= 500:
                learn(online, target, memory.draw(rng, 64), discount=0.99)
            if steps % 100 == 0:
                target.set_weights(online.get_weights())
            if lost:
                break
        if games % 5 == 0 and steps >= 2000:
            won = min(play(online, rng) for _ in range(10)) == CartPole.LONGEST
    fresh = np.random.default_rng(args.seed + 1)
    score = float(np.mean([play(online, fresh) for _ in range(20)]))
    print(f"{games} games, {steps} steps: mean return of 20 new games {score:.1f} of {CartPole.LONGEST}")
    speed = per_second(lambda: learn(online, target, memory.draw(rng, 64), 0.99))
    print(f"{speed:,.0f} steps of learning a second, on batches of 64 from the memory")
    if not args.alone and importlib.util.find_spec("torch"):
        in_torch = learn_in_torch()
        print(f"{per_second(lambda: in_torch(memory.draw(rng, 64), 0.99)):,.0f} in torch")
    return {"return": score, "games": games, "steps": steps, "steps_per_second": speed}


if __name__ == "__main__":
    main()
