"""exp, expm1, log, log1p, tanh, sigmoid, erf, normal_tail as branch-free arithmetic that the compiler vectorises.

A scalar call into libm in a compiled loop costs more than the matrix product beside it. Each function is
written once a dtype where constants or bit layouts differ, and once in all where they don't.

Method: Cody and Waite's argument reduction, x = n ln2 + r, with exp(r) - 1 as a polynomial on
|r| <= ln2/2 (Taylor to the order at which the remainder is below half an ulp); log by the series of atanh; erf by
polynomials through Chebyshev nodes, of erf(x)/x in x^2 up to 1 and of exp(x^2) erfc(x) in 2 / (2 + x) above; the
normal tail by one more such polynomial, in c / (c + x), whose relative error is below 1.4e-8 and 5e-17.
"""

from __future__ import annotations

import numpy as np

from nbdense._compile.policy import by_dtype, kernel


def _like32(x, value):
    return np.float32(value)


def _like64(x, value):
    return np.float64(value)


# A literal beside a float32 would make the whole expression float64: like(x, 0.5) is 0.5 in x's type.
like = by_dtype(_like32, _like64)

_LOG2E32, _LN2_HIGH32, _LN2_LOW32 = np.float32(1.4426950408889634), np.float32(0.693359375), np.float32(-2.12194440e-4)
_ROUND32 = np.float32(12582912.0)  # 1.5 * 2**23: adding it rounds to an integer, which the low bits then hold
_ROUND32_BITS = np.int32(0x4B400000)
_LOG2E64, _LN2_HIGH64, _LN2_LOW64 = 1.4426950408889634, 0.6931471803691238, 1.9082149292705877e-10
_ROUND64 = 6755399441055744.0  # 1.5 * 2**52
_ROUND64_BITS = np.int64(0x4338000000000000)

_E32 = tuple(np.float32(v) for v in (1 / 2, 1 / 6, 1 / 24, 1 / 120, 1 / 720, 1 / 5040))
_E64 = tuple(1 / float(v) for v in (2, 6, 24, 120, 720, 5040, 40320, 362880, 3628800, 39916800, 479001600, 6227020800))


@kernel
def _reduce32(x):
    """Return n and exp(r) - 1 of x = n ln2 + r, for x in [-104, 89]. A NaN stays one."""
    shifted = x * _LOG2E32 + _ROUND32
    n = np.int32(np.float32(shifted).view(np.int32) - _ROUND32_BITS)
    whole = shifted - _ROUND32
    r = (x - whole * _LN2_HIGH32) - whole * _LN2_LOW32
    p = _E32[5]
    p = p * r + _E32[4]
    p = p * r + _E32[3]
    p = p * r + _E32[2]
    p = p * r + _E32[1]
    p = p * r + _E32[0]
    return n, p * (r * r) + r


@kernel
def _power32(n):
    """Return 2**n for n in [-126, 127]."""
    return np.int32(np.int32(n + np.int32(127)) << np.int32(23)).view(np.float32)


def _exp32(x):
    low, high = np.float32(-104.0), np.float32(89.0)
    x = low if x < low else x
    x = high if x > high else x
    n, p = _reduce32(x)
    half = np.int32(n >> np.int32(1))  # two factors: 2**n itself may be denormal or infinite
    return (p * _power32(half) + _power32(half)) * _power32(np.int32(n - half))


def _expm132(x):
    low, high = np.float32(-80.0), np.float32(89.0)
    x = low if x < low else x
    x = high if x > high else x
    n, p = _reduce32(x)
    half = np.int32(n >> np.int32(1))
    scale, rest = _power32(half), _power32(np.int32(n - half))
    # scale*rest alone may be infinite where the result is not.
    big = (p * scale + scale) * rest - np.float32(1.0)
    small = p * (scale * rest) + (scale * rest - np.float32(1.0))
    return big if n > np.int32(30) else small


def _log32(x):
    one = np.float32(1.0)
    tiny = x < np.float32(1.1754944e-38)
    scaled = x * np.float32(8388608.0) if tiny else x
    bits = np.float32(scaled).view(np.int32)
    # The exponent is counted from sqrt(1/2), so that the mantissa lies in [sqrt(1/2), sqrt(2)).
    e = np.int32(np.int32(bits - np.int32(0x3F3504F3)) >> np.int32(23))
    m = np.int32(bits - np.int32(e << np.int32(23))).view(np.float32)
    n = np.float32(e) - (np.float32(23.0) if tiny else np.float32(0.0))
    f = m - one
    s = f / (np.float32(2.0) + f)
    z = s * s
    p = np.float32(2 / 9)
    p = p * z + np.float32(2 / 7)
    p = p * z + np.float32(2 / 5)
    p = p * z + np.float32(2 / 3)
    half = np.float32(0.5) * f * f
    y = n * _LN2_HIGH32 + (f - (half - (s * (half + p * z) + n * _LN2_LOW32)))
    y = x if x == np.float32(np.inf) else y
    y = np.float32(-np.inf) if x == np.float32(0.0) else y
    return y if x >= np.float32(0.0) else np.float32(np.nan)


@kernel
def _reduce64(x):
    """Return n and exp(r) - 1 of x = n ln2 + r, for x in [-746, 710]. A NaN stays one."""
    shifted = x * _LOG2E64 + _ROUND64
    n = np.float64(shifted).view(np.int64) - _ROUND64_BITS
    whole = shifted - _ROUND64
    r = (x - whole * _LN2_HIGH64) - whole * _LN2_LOW64
    p = _E64[11]
    p = p * r + _E64[10]
    p = p * r + _E64[9]
    p = p * r + _E64[8]
    p = p * r + _E64[7]
    p = p * r + _E64[6]
    p = p * r + _E64[5]
    p = p * r + _E64[4]
    p = p * r + _E64[3]
    p = p * r + _E64[2]
    p = p * r + _E64[1]
    p = p * r + _E64[0]
    return n, p * (r * r) + r


@kernel
def _power64(n):
    return np.int64((n + np.int64(1023)) << np.int64(52)).view(np.float64)


def _exp64(x):
    x = -746.0 if x < -746.0 else x
    x = 710.0 if x > 710.0 else x
    n, p = _reduce64(x)
    half = np.int64(n >> np.int64(1))
    return (p * _power64(half) + _power64(half)) * _power64(n - half)


def _expm164(x):
    x = -700.0 if x < -700.0 else x
    x = 710.0 if x > 710.0 else x
    n, p = _reduce64(x)
    half = np.int64(n >> np.int64(1))
    scale, rest = _power64(half), _power64(n - half)
    big = (p * scale + scale) * rest - 1.0
    small = p * (scale * rest) + (scale * rest - 1.0)
    return big if n > np.int64(60) else small


def _log64(x):
    tiny = x < 2.2250738585072014e-308
    scaled = x * 18014398509481984.0 if tiny else x
    bits = np.float64(scaled).view(np.int64)
    e = np.int64((bits - np.int64(0x3FE6A09E667F3BCD)) >> np.int64(52))
    m = np.int64(bits - (e << np.int64(52))).view(np.float64)
    n = np.float64(e) - (54.0 if tiny else 0.0)
    f = m - 1.0
    s = f / (2.0 + f)
    z = s * s
    p = 2 / 23
    p = p * z + 2 / 21
    p = p * z + 2 / 19
    p = p * z + 2 / 17
    p = p * z + 2 / 15
    p = p * z + 2 / 13
    p = p * z + 2 / 11
    p = p * z + 2 / 9
    p = p * z + 2 / 7
    p = p * z + 2 / 5
    p = p * z + 2 / 3
    half = 0.5 * f * f
    y = n * _LN2_HIGH64 + (f - (half - (s * (half + p * z) + n * _LN2_LOW64)))
    y = x if x == np.inf else y
    y = -np.inf if x == 0.0 else y
    return y if x >= 0.0 else np.nan


exp = by_dtype(_exp32, _exp64)
expm1 = by_dtype(_expm132, _expm164)
log = by_dtype(_log32, _log64)


def _erf32(x):
    one, two, limit = np.float32(1.0), np.float32(2.0), np.float32(4.0)
    size = abs(x)
    size = limit if size > limit else size
    z = size * size
    p = np.float32(-9.667044571e-06)
    p = p * z + np.float32(0.0001126595903)
    p = p * z + np.float32(-0.0008484080406)
    p = p * z + np.float32(0.005221031808)
    p = p * z + np.float32(-0.02686543073)
    p = p * z + np.float32(0.112837825)
    p = p * z + np.float32(-0.3761263847)
    p = p * z + np.float32(1.128379167)
    t = two / (two + size)
    q = np.float32(0.12085243316317)
    q = q * t + np.float32(-0.47652527438461)
    q = q * t + np.float32(0.57126517581198)
    q = q * t + np.float32(-0.11020829405569)
    q = q * t + np.float32(0.35103032317879)
    q = q * t + np.float32(0.25875136638552)
    q = q * t + np.float32(0.28506162011557)
    q = q * t + np.float32(-0.00016423638708)
    near, far = size * p, one - exp(-z) * q  # both, and then a choice: a branch would not vectorise
    y = near if size < one else far
    return -y if x < np.float32(0.0) else y


def _erf64(x):
    size = abs(x)
    size = 6.0 if size > 6.0 else size
    z = size * size
    p = 5.957176147748911e-11
    p = p * z + -1.1372848856791674e-09
    p = p * z + 1.4659775274047436e-08
    p = p * z + -1.6350312701054695e-07
    p = p * z + 1.6461000484121368e-06
    p = p * z + -1.4925595266831182e-05
    p = p * z + 0.0001205533111164271
    p = p * z + -0.000854832698083379
    p = p * z + 0.0052239776248180145
    p = p * z + -0.026866170645076792
    p = p * z + 0.11283791670954879
    p = p * z + -0.3761263890318375
    p = p * z + 1.1283791670955126
    t = 2.0 / (2.0 + size)
    q = -0.07440021243346044
    q = q * t + 0.5535022023245029
    q = q * t + -1.8535316382081848
    q = q * t + 3.6426059404027527
    q = q * t + -4.583844406614994
    q = q * t + 3.799359906028882
    q = q * t + -2.1298439188930316
    q = q * t + 0.9210072415249974
    q = q * t + -0.3377317752090611
    q = q * t + 0.0031605924750990814
    q = q * t + -0.011294696331083888
    q = q * t + 0.08342915067749279
    q = q * t + 0.17661452876291867
    q = q * t + 0.24676994208173553
    q = q * t + 0.28210194185256204
    q = q * t + 0.2820943374460364
    q = q * t + 1.273194538411999e-08
    near, far = size * p, 1.0 - exp(-z) * q
    y = near if size < 1.0 else far
    return -y if x < 0.0 else y


erf = by_dtype(_erf32, _erf64)


def _normal_tail32(x):
    t = np.float32(4.0) / (np.float32(4.0) + x)
    p = np.float32(0.016071473357)
    p = p * t + np.float32(-0.060225852864)
    p = p * t + np.float32(0.046119937233)
    p = p * t + np.float32(0.035075154299)
    p = p * t + np.float32(0.0078662033366)
    p = p * t + np.float32(0.088859359637)
    p = p * t + np.float32(0.071388571186)
    p = p * t + np.float32(0.095611575446)
    p = p * t + np.float32(0.099485568378)
    p = p * t + np.float32(0.099748012714)
    return p * t


def _normal_tail64(x):
    t = 5.0 / (5.0 + x)
    p = -0.00092534151243972
    p = p * t + 0.011304406406117367
    p = p * t + -0.06334963407558684
    p = p * t + 0.21521162963821575
    p = p * t + -0.4945997267140895
    p = p * t + 0.8164847769885554
    p = p * t + -1.010823140534612
    p = p * t + 0.9733623254533724
    p = p * t + -0.7454982059390811
    p = p * t + 0.4558711767344286
    p = p * t + -0.22986461348171344
    p = p * t + 0.09443435061558692
    p = p * t + -0.023898104524441896
    p = p * t + 0.02339909146042291
    p = p * t + 0.023836921315718473
    p = p * t + 0.03789424401895721
    p = p * t + 0.04974592277232775
    p = p * t + 0.061026564396091616
    p = p * t + 0.07021351012324419
    p = p * t + 0.07659693525369485
    p = p * t + 0.07978845551650066
    p = p * t + 0.0797884560887304
    return p * t


# exp(x^2 / 2) times the normal distribution's mass above x, x at least 0. Times exp(-x^2 / 2) it is that mass, with
# all its digits where 1 + erf would have lost them; where that factor is not yet 0 the polynomial holds.
normal_tail = by_dtype(_normal_tail32, _normal_tail64)


def _log1p32(x):
    s = x / (np.float32(2.0) + x)
    z = s * s
    p = np.float32(0.26851498023)
    p = p * z + np.float32(0.28236619805)
    p = p * z + np.float32(0.40007560645)
    p = p * z + np.float32(0.66666640337)
    return x - s * (x - z * p)


def _log1p64(x):
    s = x / (2.0 + x)
    z = s * s
    p = 0.1687070066109721
    p = p * z + 0.10322669270499082
    p = p * z + 0.135023424717571
    p = p * z + 0.15373274876358003
    p = p * z + 0.18182261108419745
    p = p * z + 0.22222212557929713
    p = p * z + 0.2857142867666099
    p = p * z + 0.39999999999560126
    p = p * z + 0.6666666666666697
    return x - s * (x - z * p)


# log(1 + x) for x in [0, 1] only, where the atanh series needs no reduction.
log1p = by_dtype(_log1p32, _log1p64)


@kernel
def sigmoid(x):
    """Return 1 / (1 + exp(-x)), from exp(-|x|): no overflow, and denormal results keep their digits."""
    zero, one = like(x, 0.0), like(x, 1.0)
    e = exp(-abs(x))
    return (e if x < zero else one) / (one + e)


@kernel
def tanh(x):
    """Return expm1(2|x|) / (expm1(2|x|) + 2), with x's sign; 1 from where it rounds to 1."""
    limit, two = like(x, 22.0), like(x, 2.0)
    size = abs(x)
    size = limit if size > limit else size
    e = expm1(two * size)
    y = e / (e + two)
    return -y if x < like(x, 0.0) else y
