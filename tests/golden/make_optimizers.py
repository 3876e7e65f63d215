"""Writes optimizers.npz: ten steps of torch's and of Keras's optimizers, in float64, for the tests of the optimizers.

Run it by hand where torch, keras and jax are installed:

    KERAS_BACKEND=jax JAX_ENABLE_X64=1 python tests/golden/make_optimizers.py

The gradients do not depend on the parameters: g is (steps, parameters), of which the first SPLIT are a kernel and the
rest a bias. Each variant's array is the parameters behind each step, "average" their moving average behind the last.
"""

from pathlib import Path

import keras
import numpy as np
import torch

STEPS, SIZE, SPLIT = 10, 20, 15

TORCH = {
    "SGD": (torch.optim.SGD, {"lr": 0.1}),
    "SGD_momentum": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    "SGD_nesterov": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "Adam": (torch.optim.Adam, {"lr": 0.01, "eps": 1e-16}),
    "Adam_amsgrad": (torch.optim.Adam, {"lr": 0.01, "eps": 1e-16, "amsgrad": True}),
    "AdamW": (torch.optim.AdamW, {"lr": 0.01, "eps": 1e-16, "weight_decay": 0.1}),
}

KERAS = {
    "SGD": ("SGD", {}),
    "SGD_nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "RMSprop": ("RMSprop", {}),
    "RMSprop_momentum": ("RMSprop", {"momentum": 0.8, "rho": 0.7}),
    "RMSprop_centered": ("RMSprop", {"centered": True, "epsilon": 1e-3}),
    "RMSprop_both": ("RMSprop", {"centered": True, "momentum": 0.5, "epsilon": 1e-2}),
    "Adagrad": ("Adagrad", {"learning_rate": 0.1}),
    "Adagrad_initial": ("Adagrad", {"initial_accumulator_value": 0.5, "epsilon": 1e-3}),
    "Adam": ("Adam", {}),
    "Adam_amsgrad": ("Adam", {"amsgrad": True, "beta_2": 0.9}),
    "AdamW": ("AdamW", {}),
    "Nadam": ("Nadam", {}),
    "Nadam_betas": ("Nadam", {"beta_1": 0.7, "beta_2": 0.95, "learning_rate": 0.1}),
    "Lion": ("Lion", {}),
    "Adadelta": ("Adadelta", {"learning_rate": 1.0}),
    "Adadelta_rho": ("Adadelta", {"rho": 0.5, "epsilon": 1e-3}),
    "Adamax": ("Adamax", {}),
    "Adamax_betas": ("Adamax", {"beta_1": 0.7, "beta_2": 0.95, "learning_rate": 0.1}),
    "Ftrl": ("Ftrl", {"learning_rate": 0.1}),
    "Ftrl_all": (
        "Ftrl",
        {
            "learning_rate": 0.1,
            "learning_rate_power": -0.3,
            "initial_accumulator_value": 0.5,
            "l1_regularization_strength": 0.2,
            "l2_regularization_strength": 0.1,
            "l2_shrinkage_regularization_strength": 0.05,
            "beta": 0.4,
        },
    ),
    "clipnorm": ("SGD", {"learning_rate": 0.1, "clipnorm": 0.5}),
    "global_clipnorm": ("SGD", {"learning_rate": 0.1, "global_clipnorm": 0.5}),
    "clipvalue": ("SGD", {"learning_rate": 0.1, "clipvalue": 0.3}),
    "clipped_decay": ("RMSprop", {"learning_rate": 0.1, "global_clipnorm": 0.5, "weight_decay": 0.2}),
    "excluded": ("SGD", {"learning_rate": 0.1, "weight_decay": 0.2}),
    "accumulated": ("SGD", {"learning_rate": 0.1, "momentum": 0.9, "gradient_accumulation_steps": 3}),
    "accumulated_decay": (
        "Adam",
        {"learning_rate": 0.1, "global_clipnorm": 0.5, "weight_decay": 0.2, "gradient_accumulation_steps": 2},
    ),
    "ema": ("SGD", {"learning_rate": 0.1, "use_ema": True, "ema_momentum": 0.8}),
    "ema_overwritten": (
        "Adam",
        {"learning_rate": 0.1, "use_ema": True, "ema_momentum": 0.8, "ema_overwrite_frequency": 4},
    ),
}


def data():
    """Start and gradients: of many sizes, one parameter's always zero, another's always the same."""
    rng = np.random.default_rng(1)
    start = rng.normal(size=SIZE)
    gradients = rng.normal(size=(STEPS, SIZE)) * 10.0 ** rng.uniform(-3, 1, SIZE)
    gradients[:, 3], gradients[:, 17] = 0.0, 5.0
    return start, gradients


def torch_steps(kind, options, start, gradients):
    parameters = torch.tensor(start, requires_grad=True)
    optimizer = kind([parameters], **options)
    taken = []
    for gradient in gradients:
        parameters.grad = torch.tensor(gradient)
        optimizer.step()
        taken.append(parameters.detach().numpy().copy())
    return np.array(taken)


def keras_steps(variant, name, options, start, gradients):
    optimizer = getattr(keras.optimizers, name)(**options)
    if variant == "excluded":
        optimizer.exclude_from_weight_decay(var_names=["bias"])
    kernel = keras.Variable(start[:SPLIT], dtype="float64", name="kernel")
    bias = keras.Variable(start[SPLIT:], dtype="float64", name="bias")
    taken = []
    for gradient in gradients:
        parts = [keras.ops.convert_to_tensor(part) for part in (gradient[:SPLIT], gradient[SPLIT:])]
        optimizer.apply(parts, [kernel, bias])
        taken.append(np.concatenate([keras.ops.convert_to_numpy(part) for part in (kernel, bias)]))
    optimizer.finalize_variable_values([kernel, bias])
    return np.array(taken), np.concatenate([keras.ops.convert_to_numpy(part) for part in (kernel, bias)])


def main():
    keras.config.set_floatx("float64")
    start, gradients = data()
    arrays = {"start": start, "gradients": gradients}
    for variant, (kind, options) in TORCH.items():
        arrays[f"torch/{variant}"] = torch_steps(kind, options, start, gradients)
    for variant, (name, options) in KERAS.items():
        taken, final = keras_steps(variant, name, options, start, gradients)
        assert taken.dtype == np.float64
        arrays[f"keras/{variant}"] = taken
        if options.get("use_ema"):
            arrays[f"average/{variant}"] = final
    np.savez_compressed(Path(__file__).with_name("optimizers.npz"), **arrays)


if __name__ == "__main__":
    main()
