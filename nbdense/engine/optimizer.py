"""Optimizer steps over a range of the flat vectors: parameters, gradients and state, each touched once.

``state[0]`` holds the gradients, the further rows an optimizer's slots. Formulas are Keras 3's; every operation is
elementwise, so a range may be cut anywhere without changing a bit.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from nbdense._jit import intrinsic, kernel
from nbdense.engine.microkernel import I64, VECTOR_BYTES, multiply_add, splat

NONE, SGD, ADAM = range(3)
MOMENTUM, NESTEROV = 0, 1  # places in hyper
BETA_1, BETA_2, EPSILON = 0, 1, 2
HYPER = 12


@kernel
def _sgd(params, state, low, high, rate, hyper):
    number = params.dtype.type
    rate = number(rate)
    momentum = number(hyper[MOMENTUM])
    w, g, v = params[low:high], state[0, low:high], state[1, low:high]
    if hyper[MOMENTUM] == 0.0:
        for i in range(w.size):
            w[i] = w[i] - rate * g[i]
    elif hyper[NESTEROV] == 0.0:
        for i in range(w.size):
            v[i] = momentum * v[i] - rate * g[i]
            w[i] = w[i] + v[i]
    else:
        for i in range(w.size):
            v[i] = momentum * v[i] - rate * g[i]
            w[i] = w[i] + (momentum * v[i] - rate * g[i])


def _plain_adam(params, state, low, high, alpha, rest_1, rest_2, epsilon):
    w, g, m, v = params[low:high], state[0, low:high], state[1, low:high], state[2, low:high]
    for i in range(w.size):
        m[i] = m[i] + (g[i] - m[i]) * rest_1
        v[i] = v[i] + (g[i] * g[i] - v[i]) * rest_2
        w[i] = w[i] - alpha * m[i] / (math.sqrt(v[i]) + epsilon)


@intrinsic(_plain_adam)
def adam_range(typing_context, params, state, low, high, alpha, rest_1, rest_2, epsilon):
    """Adam's step on parameters low..high, whole vectors: high - low is a multiple of the vector's lanes.

    The square root and the division share a unit, which is what bounds a plain loop: with AVX-512 the root is an
    estimate and a Newton step (within 2 ulp) where the mean square is in the range in which that holds, and exact
    elsewhere. Epsilon is outside the root.
    """
    number = params.dtype
    signature = types.void(params, state, types.int64, types.int64, number, number, number, number)

    def codegen(context, builder, signature, arguments):
        params, state, low, high, *scalars = arguments
        element = context.get_value_type(number)
        lanes = VECTOR_BYTES // (number.bitwidth // 8)
        vector = ir.VectorType(element, lanes)
        base = context.make_array(signature.args[0])(context, builder, params).data
        slots = context.make_array(signature.args[1])(context, builder, state)
        row = cgutils.unpack_tuple(builder, slots.shape)[1]
        constants = [splat(builder, scalar, vector) for scalar in scalars]
        step = ir.Constant(I64, lanes)
        with cgutils.for_range_slice(builder, low, high, step, I64, inc=True) as (i, _):
            places = [builder.gep(base, [i])]
            places += [
                builder.gep(slots.data, [builder.add(i, builder.mul(row, ir.Constant(I64, k)))]) for k in range(3)
            ]
            places = [builder.bitcast(place, vector.as_pointer()) for place in places]
            w, g, m, v = (builder.load(place, align=number.bitwidth // 8) for place in places)
            written = [places[0], places[2], places[3]]  # all but the gradient
            for place, value in zip(written, _emit_adam(builder, w, g, m, v, *constants), strict=True):
                builder.store(value, place, align=number.bitwidth // 8)
        return context.get_dummy_value()

    return signature, codegen


def _emit_adam(builder, w, g, m, v, alpha, rest_1, rest_2, epsilon):
    """New (w, m, v)."""
    vector = w.type
    m = multiply_add(builder, builder.fsub(g, m), rest_1, m)
    v = multiply_add(builder, multiply_add(builder, g, g, builder.fneg(v)), rest_2, v)
    scaled = builder.fmul(alpha, m)

    def exact():
        suffix = f"v{vector.count}f{'32' if isinstance(vector.element, ir.FloatType) else '64'}"
        root = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector]), f"llvm.sqrt.{suffix}")
        return builder.fdiv(scaled, builder.fadd(builder.call(root, [v]), epsilon))

    if VECTOR_BYTES != 64 or not isinstance(vector.element, ir.FloatType):
        return builder.fsub(w, exact()), m, v

    def constant(number):
        return ir.Constant(vector, [number] * vector.count)

    # Zero is welcome: its root is 0 times a finite number. Subnormals, infinities and NaN take the exact way.
    small, large = constant(float(np.float32(1e-30))), constant(float(np.float32(1e30)))
    middle = builder.and_(builder.fcmp_ordered(">=", v, small), builder.fcmp_ordered("<=", v, large))
    good = builder.or_(middle, builder.fcmp_ordered("==", v, constant(0.0)))
    all_good = builder.icmp_signed("==", builder.bitcast(good, ir.IntType(16)), ir.Constant(ir.IntType(16), -1))
    with builder.if_else(all_good, likely=True) as (fast, slow):
        with fast:
            y = _estimated_inverse_root(builder, builder.select(middle, v, small))
            root = builder.fmul(v, y)
            rest = multiply_add(builder, builder.fneg(root), root, v)
            root = multiply_add(builder, rest, builder.fmul(constant(0.5), y), root)
            below = builder.fadd(root, epsilon)
            quick = builder.fdiv(scaled, below)
            fast_block = builder.block
        with slow:
            careful = exact()
            slow_block = builder.block
    change = builder.phi(vector)
    change.add_incoming(quick, fast_block)
    change.add_incoming(careful, slow_block)
    return builder.fsub(w, change), m, v


def _estimated_inverse_root(builder, value):
    """AVX-512's estimate of 1 / sqrt(value), to 14 bits."""
    vector, i16 = value.type, ir.IntType(16)
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(vector, [vector, vector, i16]), "llvm.x86.avx512.rsqrt14.ps.512"
    )
    return builder.call(function, [value, value, ir.Constant(i16, -1)])


@kernel
def rate_of_step(code, rate, step, hyper):
    """The learning rate with what an optimizer makes of it in its ``step``-th step, numbered from 1: once a step.

    Adam's bias correction is in it: Kingma and Ba, "Adam" (2015), the efficient order at the end of section 2.
    """
    if code == ADAM:
        return rate * math.sqrt(1.0 - hyper[BETA_2] ** step) / (1.0 - hyper[BETA_1] ** step)
    return rate


@kernel
def update(code, params, state, low, high, rate, step, hyper):
    """The ``step``-th step (from 1) of the optimizer ``code`` on parameters low..high; ``rate`` is `rate_of_step`'s."""
    if code == SGD:
        _sgd(params, state, low, high, rate, hyper)
    elif code == ADAM:
        number = params.dtype.type
        rest_1, rest_2 = number(1.0 - hyper[BETA_1]), number(1.0 - hyper[BETA_2])
        adam_range(params, state, low, high, number(rate), rest_1, rest_2, number(hyper[EPSILON]))
