"""`from_sb3`: the networks of a Stable-Baselines3 policy of dense layers, each as a Sequential."""

from __future__ import annotations

from typing import Any

from nbdense import _checks
from nbdense.export.frameworks.chain import Chain, class_of
from nbdense.export.frameworks.torch import append_module
from nbdense.export.graph.steps import function
from nbdense.models import Sequential

OWNER = "from_sb3"
PARTS = ("actor", "critic")


def from_sb3(policy: Any, part: str = "actor", *, critic: int = 0, dtype: str = "float32") -> Sequential:
    """Make a model of a policy's actor or critic: of its dense layers, with copies of their weights.

    ============  ==========================================  =================================================
    algorithm     "actor": of observations                    "critic"
    ============  ==========================================  =================================================
    PPO, A2C      means of the actions, or logits of each     value, of observations
    SAC           the deterministic action, from -1 to 1      Q, of observations and such actions side by side
    TD3, DDPG     the action, from -1 to 1                    Q, of observations and such actions side by side
    DQN           Q of each action                            the same
    ============  ==========================================  =================================================

    It predicts what the policy's network does, within 1e-5. What ``predict`` of Stable-Baselines3 does behind that is
    the caller's: the largest logit or Q; clipping to the action space; of SAC, TD3 and DDPG low + (action + 1) / 2
    (high - low). So is what it does before: a VecNormalize scales observations.

    Parameters
    ----------
    policy : BasePolicy or BaseAlgorithm
        An MlpPolicy, or an algorithm that has one.
    part : {"actor", "critic"}
        Which of its networks.
    critic : int
        Which of several critics: SAC and TD3 have two.
    dtype : {"float32", "float64"}
        Type of the model.

    Returns
    -------
    Sequential
        Not compiled.

    Raises
    ------
    TypeError
        If it is no such policy.
    ValueError
        For another part, a policy that looks at images, dictionaries or class numbers, or a layer that nbdense has
        not: it is named.

    Examples
    --------
    >>> from nbdense.export import from_sb3
    >>> try:
    ...     from_sb3("ppo.zip")
    ... except TypeError as error:
    ...     print(error)
    from_sb3: expected a policy or algorithm of Stable-Baselines3, got str; PPO.load and the like read files
    """
    if part not in PARTS:
        raise ValueError(f"{OWNER}: part must be 'actor' or 'critic', got {part!r}")
    held = getattr(policy, "policy", policy)
    if not class_of(held, "stable_baselines3", ()):
        raise TypeError(
            f"{OWNER}: expected a policy or algorithm of Stable-Baselines3, got {type(policy).__name__}; PPO.load and "
            "the like read files"
        )
    chain = Chain(OWNER, _observation_shape(held))
    if hasattr(held, "mlp_extractor"):
        _append_actor_critic(chain, held, part)
    elif hasattr(held, "q_net"):
        _append_features(chain, held.q_net.features_extractor)
        append_module(chain, held.q_net.q_net, "q_net")
    elif part == "actor" and getattr(held, "actor", None) is not None:
        _append_actor(chain, held.actor)
    elif part == "critic" and hasattr(held, "critic"):
        _append_critic(chain, held, critic)
    else:
        raise ValueError(f"{OWNER}: {type(held).__name__} has no {part} of dense layers that is known")
    return chain.model(dtype)


def _observation_shape(policy: Any) -> tuple[int, ...]:
    """Return the shape of a row of observations that are numbers."""
    space = policy.observation_space
    if type(space).__name__ != "Box":
        raise ValueError(
            f"{OWNER}: observations of {type(space).__name__} are encoded by Stable-Baselines3 before its network; a "
            "model here takes rows of numbers, of a Box"
        )
    if str(space.dtype) == "uint8" and len(space.shape) == 3:
        raise ValueError(f"{OWNER}: observations are images, which a model of dense layers does not take")
    return tuple(space.shape)


def _append_features(chain: Chain, extractor: Any) -> None:
    if class_of(extractor, "stable_baselines3", ("forward",)) != "FlattenExtractor":
        raise chain.fail(
            type(extractor).__name__, "its features are no plain observations; policies of an MlpPolicy are taken"
        )
    chain.flatten("FlattenExtractor")


def _append_actor_critic(chain: Chain, policy: Any, part: str) -> None:
    acts, extractor = part == "actor", policy.mlp_extractor
    _append_features(chain, policy.pi_features_extractor if acts else policy.vf_features_extractor)
    append_module(chain, extractor.policy_net if acts else extractor.value_net, "policy_net" if acts else "value_net")
    append_module(chain, policy.action_net if acts else policy.value_net, "action_net" if acts else "value")
    if acts and policy.squash_output:
        chain.add(function("tanh"))


def _append_actor(chain: Chain, actor: Any) -> None:
    _append_features(chain, actor.features_extractor)
    if hasattr(actor, "latent_pi"):  # SAC's, whose distribution squashes the mean
        append_module(chain, actor.latent_pi, "latent_pi")
        append_module(chain, actor.mu, "mu")
        chain.add(function("tanh"))
    else:
        append_module(chain, actor.mu, "mu")


def _append_critic(chain: Chain, policy: Any, number: int) -> None:
    networks = policy.critic.q_networks
    number = _checks.whole_number(OWNER, "critic", number)
    if number >= len(networks):
        raise ValueError(f"{OWNER}: critic must be below {len(networks)}, the number of critics, got {number}")
    _append_features(Chain(OWNER, chain.shape), policy.critic.features_extractor)
    chain.shape = chain.input_shape = None  # observations and actions side by side
    append_module(chain, networks[number], f"qf{number}")
