"""Models of torch, Keras and Stable-Baselines3, and what they compute: for the golden file, and for the real ones."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np


@dataclass
class Case:
    """A model, the function of nbdense's that takes it, and its outputs, or the words of its refusal."""

    function: str
    model: Any
    x: Any = None
    y: Any = None
    words: str = ""
    options: dict = field(default_factory=dict)


# -- torch ------------------------------------------------------------------------------------------------------------


def own_modules() -> SimpleNamespace:
    """Modules with a forward of their own."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.norm, self.fc2 = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)

        def forward(self, x, mask=None):
            x = functional.leaky_relu(self.norm(self.fc1(x)), 0.1)
            return torch.softmax(self.fc2(functional.dropout(torch.tanh(x), 0.2, self.training)), dim=-1)

    class Block(nn.Module):
        def __init__(self, n_in, n_out):
            super().__init__()
            self.norm, self.fc1, self.fc2 = nn.LayerNorm(n_in), nn.Linear(n_in, 8), nn.Linear(8, n_out)
            self.skip = nn.Identity() if n_in == n_out else nn.Linear(n_in, n_out)

        def forward(self, x):
            return self.skip(x) + self.fc2(functional.gelu(self.fc1(self.norm(x))))

    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))

        def forward(self, x):
            return self.net(x.view(x.size(0), -1))

    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(x) if x.sum() > 0 else x

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.gate = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(x) * torch.sigmoid(self.gate(x))

    return SimpleNamespace(Functional=Functional, Block=Block, Flat=Flat, Branching=Branching, Gated=Gated)


def torch_case(generator) -> Callable[..., Case]:
    """A function that makes a case of a module: its weights and data are drawn."""
    import torch

    from tests.golden.make_torch_modules import randomise

    def case(model, shape=(4,), words="", **options):
        randomise(model, generator)
        model.eval()
        x = torch.randn((12, *shape), generator=generator) * 2
        if words:
            return Case("from_torch", model, words=words, options=options)
        return Case("from_torch", model, x.numpy(), model(x).detach().numpy(), options=options)

    return case


def module_cases() -> Iterator[tuple[str, Case]]:
    """A network around each module of torch.nn."""
    import torch
    from torch import nn

    from tests.golden.make_torch_modules import REFUSED, TAKEN

    case = torch_case(torch.Generator().manual_seed(6))
    for name, make in TAKEN.items():
        if name != "Unflatten":
            yield f"torch {name}", case(nn.Sequential(nn.Linear(4, 6), make(), nn.Linear(6, 3)))
    words = {"PReLU of several slopes": "a slope for each column"}
    for name, make in REFUSED.items():
        model = nn.Sequential(nn.Linear(4, 6), *(make() if isinstance(make(), nn.Sequential) else [make()]))
        kind = type(model[1]).__name__
        yield f"torch refused {name}", case(model, words=words.get(name, f"from_torch: {kind} '1': it "))


def torch_cases() -> Iterator[tuple[str, Case]]:
    import torch
    from torch import nn

    case, own = torch_case(torch.Generator().manual_seed(7)), own_modules()
    yield "torch nested", case(nn.Sequential(nn.Sequential(nn.Linear(4, 7), nn.Tanh()), nn.Sequential(nn.Linear(7, 2))))
    shared = nn.ReLU()
    yield "torch shared", case(nn.Sequential(nn.Linear(4, 7), shared, nn.Linear(7, 5), shared, nn.Linear(5, 2)))
    yield "torch one layer", case(nn.Linear(4, 3))
    rows = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 5), nn.RMSNorm(5), nn.SiLU(), nn.Linear(5, 2), nn.Softmax(-1))
    yield "torch positions", case(rows, (3, 4), input_shape=(3, 4))
    norms = nn.Sequential(
        nn.BatchNorm1d(4, affine=False), nn.Linear(4, 6), nn.RMSNorm(6, eps=1e-3), nn.LayerNorm(6, bias=False)
    )
    yield "torch norms", case(norms)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    yield "torch flatten", case(flat, (2, 3), input_shape=(2, 3))
    unknown = nn.Sequential(nn.Flatten(), nn.Linear(6, 5))
    yield "torch refused shape", case(unknown, words="Flatten '0': what shape its rows have is not known")
    yield "torch view", case(own.Flat(), (2, 3), input_shape=(2, 3))
    yield "torch functional", case(own.Functional())
    yield (
        "torch residual",
        case(nn.Sequential(nn.Linear(4, 6), own.Block(6, 6), nn.ReLU(), own.Block(6, 5), nn.Linear(5, 2))),
    )
    yield "torch refused branching", case(own.Branching(), words="Branching: its forward cannot be followed")
    yield "torch refused product", case(own.Gated(), words=r"mul\(\) in the forward of Gated: no layer stands for it")
    channels = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(3))
    yield "torch refused channels", case(channels, words="BatchNorm1d '1': it works on axis 1", input_shape=(3, 4))


# -- Keras ------------------------------------------------------------------------------------------------------------

KERAS_ACTIVATIONS = [
    *("relu", "relu6", "leaky_relu", "sigmoid", "tanh", "elu", "selu", "silu", "mish", "gelu", "softplus", "softsign"),
    *("exponential", "hard_sigmoid", "hard_silu", "celu", "log_sigmoid", "log_softmax", "softmax", "hard_tanh"),
    *("hard_shrink", "soft_shrink", "tanh_shrink", "squareplus", "sparse_plus", "sparse_sigmoid"),
]


def keras_cases() -> Iterator[tuple[str, Case]]:
    import keras
    from keras import layers

    generator = np.random.default_rng(8)

    def case(model, words=""):
        if words:
            return Case("from_keras", model, words=words)
        for weight in model.weights:
            low = 0.1 if "variance" in weight.path else -0.6
            weight.assign(generator.uniform(low, 0.8, weight.shape).astype(np.float32))
        x = generator.standard_normal((12, *model.input_shape[1:])).astype(np.float32)
        return Case("from_keras", model, x, np.asarray(model.predict(x, verbose=0)))

    def chain(*parts, shape=(4,)):
        return keras.Sequential([keras.Input(shape), *parts])

    def residual(project):
        start = keras.Input((4,))
        x = layers.Dense(6, name="first")(start)
        y = layers.Dense(5 if project else 6, "tanh")(layers.LayerNormalization()(x))
        x = layers.Add()([layers.Dense(5)(x) if project else x, y])
        return keras.Model(start, layers.Dense(3, "softmax", name="last")(layers.Activation("relu")(x)))

    class Own(layers.Layer):
        def call(self, x):
            return x * 2

    for name in KERAS_ACTIVATIONS:
        yield f"keras {name}", case(chain(layers.Dense(5, name), layers.Dense(2)))
    activations = [layers.ReLU(3.0, 0.1, 0.2), layers.LeakyReLU(0.2), layers.ELU(0.7), layers.Softmax()]
    mixed = [part for made in activations for part in (layers.Dense(5, use_bias=False), made)]
    yield "keras layers", case(chain(*mixed, layers.Dropout(0.3), layers.Identity(), layers.GaussianNoise(0.1)))
    norms = [layers.BatchNormalization(), layers.LayerNormalization(center=False), layers.RMSNormalization()]
    yield (
        "keras norms",
        case(chain(layers.Flatten(), layers.Dense(5), *norms, layers.Dense(1, "sigmoid"), shape=(2, 3))),
    )
    yield (
        "keras positions",
        case(chain(layers.Dense(5, "relu"), layers.LayerNormalization(), layers.Dense(2), shape=(3, 4))),
    )
    scaled = layers.Normalization(mean=[1.0, 2.0, -1.0, 0.0], variance=[4.0, 0.5, 1.0, 2.0])
    yield "keras scaled", case(chain(layers.Rescaling(0.5, offset=-0.5), scaled, layers.Dense(3)))
    yield "keras nested", case(chain(chain(layers.Dense(5, "relu")), layers.Dense(2)))
    yield "keras residual", case(residual(False))
    yield "keras projection", case(residual(True))
    yield "keras functional in sequential", case(chain(residual(False), layers.Dense(2), shape=(4,)))
    yield (
        "keras refused conv",
        case(chain(layers.Conv1D(3, 2), shape=(5, 4)), "Conv1D 'conv1d': nbdense has no such layer"),
    )
    yield "keras refused own", case(chain(Own(name="mine")), "Own 'mine': it has a call of its own")
    unknown = chain(layers.Dense(4, "sparsemax"))
    yield "keras refused activation", case(unknown, "its activation 'sparsemax' is none of nbdense's")
    yield "keras refused unbuilt", case(keras.Sequential([layers.Dense(3)]), "the model is not built")
    start = keras.Input((4,))
    joined = keras.Model(start, layers.Concatenate()([layers.Dense(2)(start), layers.Dense(3)(start)]))
    yield "keras refused joined", case(joined, "Concatenate .*: it takes 2 inputs")


# -- Stable-Baselines3 ------------------------------------------------------------------------------------------------


def sb3_cases() -> Iterator[tuple[str, Case]]:
    import gymnasium as gym
    import torch
    from stable_baselines3 import A2C, DQN, PPO, SAC, TD3

    class Nothing(gym.Env):
        """Observations of five numbers."""

        def __init__(self, actions, observations=None):
            self.action_space = actions
            self.observation_space = observations or gym.spaces.Box(-3, 3, (5,), np.float32)

        def reset(self, *, seed=None, options=None):
            return self.observation_space.sample(), {}

        def step(self, action):
            return self.observation_space.sample(), 0.0, True, False, {}

    box, discrete = gym.spaces.Box(-2, 2, (2,), np.float32), gym.spaces.Discrete(3)
    generator = torch.Generator().manual_seed(9)
    x, actions = (torch.randn((12, n), generator=generator) for n in (5, 2))
    sides = torch.cat([x, actions], 1)

    def case(policy, given, y, **options):
        return Case("from_sb3", policy, given.numpy(), y.detach().numpy(), options=options)

    def made(algorithm, space, **options):
        torch.manual_seed(9)
        policy = algorithm("MlpPolicy", Nothing(space), device="cpu", **options).policy
        policy.set_training_mode(False)
        return policy

    for name, algorithm, space in (("PPO", PPO, box), ("A2C", A2C, discrete)):
        policy = made(algorithm, space, policy_kwargs={"net_arch": {"pi": [8, 7], "vf": [6]}})
        hidden, _ = policy.mlp_extractor(policy.extract_features(x))
        yield f"sb3 {name} actor", case(policy, x, policy.action_net(hidden))
        yield f"sb3 {name} critic", case(policy, x, policy.predict_values(x), part="critic")
    sac = made(SAC, box, buffer_size=100, policy_kwargs={"net_arch": [8, 8]})
    yield "sb3 SAC actor", case(sac, x, sac.actor(x, deterministic=True))
    yield "sb3 SAC critic", case(sac, sides, sac.critic(x, actions)[1], part="critic", critic=1)
    td3 = made(TD3, box, buffer_size=100, policy_kwargs={"net_arch": [8, 8]})
    yield "sb3 TD3 actor", case(td3, x, td3.actor(x))
    yield "sb3 TD3 critic", case(td3, sides, td3.critic(x, actions)[0], part="critic")
    dqn = made(DQN, discrete, buffer_size=100, policy_kwargs={"net_arch": [8]})
    yield "sb3 DQN", case(dqn, x, dqn.q_net(x))
    torch.manual_seed(9)
    space = Nothing(discrete, gym.spaces.Discrete(4))
    numbers = PPO("MlpPolicy", space, device="cpu", policy_kwargs={"net_arch": [4]}).policy
    yield "sb3 refused numbers", Case("from_sb3", numbers, words="observations of Discrete are encoded")
    yield (
        "sb3 refused critic",
        Case("from_sb3", td3, words="critic must be below 2", options={"part": "critic", "critic": 2}),
    )


def cases() -> dict[str, Case]:
    """All cases, by name; torch, Keras, gymnasium and Stable-Baselines3 must be there."""
    return {**dict(module_cases()), **dict(torch_cases()), **dict(keras_cases()), **dict(sb3_cases())}
